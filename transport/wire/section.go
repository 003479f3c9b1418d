package wire

import (
	"encoding/binary"
	"errors"
	"sort"
	"strings"
)

// Kind is the kind of a file in a Section.
type Kind uint8

// The kinds a store path can hold. Nothing else is exported.
const (
	KindDir Kind = iota + 1
	KindFile
	KindSymlink
)

// Entry is one file of a Section, decoded.
type Entry struct {
	Name   string // "" for entry 0, the store path itself
	Kind   Kind
	Exec   bool
	Parent uint32
	Size   uint64 // files: bytes
	// Content is another number whenever the file's bytes may be others: who has
	// read a file of a section may keep the bytes for as long as he meets a section of
	// the same name and hash.
	Content uint64
	Target  string // symbolic links
	First   uint32 // directories: the first child's number; the others follow it
	Count   uint32 // directories: how many children
}

// The encoding of a section:
//
//	header   magic "WVSECT2\n" | entries u32 | strings u32
//	entries  records of 32 bytes
//	strings  names and link targets
//
// A record:
//
//	 0  name offset u32   into strings
//	 4  name length u16
//	 6  kind u8
//	 7  flags u8          bit 0: executable
//	 8  parent u32
//	12  first u32         directory: first child; link: target's offset
//	16  count u32         directory: children; link: target's length
//	12  content u64       file: see Entry.Content
//	20  reserved u32      zero
//	24  size u64          file: bytes
//
// Entry 0 is the store path itself. A directory's children stand side by side,
// sorted by name as bytes, and behind the directory (breadth first). So a lookup
// is a binary search in place: the encoded form is also the form in memory, at 32
// bytes and the name an entry.
const (
	sectionMagic  = "WVSECT2\n"
	sectionHeader = len(sectionMagic) + 8
	recordSize    = 32
)

// A Section is the metadata of one store path, in its encoded form.
type Section struct {
	recs    []byte
	strs    []byte
	entries uint32
}

// Len tells how many entries there are.
func (s *Section) Len() uint32 { return s.entries }

func (s *Section) rec(i uint32) []byte {
	o := int(i) * recordSize
	return s.recs[o : o+recordSize]
}

func (s *Section) name(i uint32) []byte {
	r := s.rec(i)
	o := int(binary.LittleEndian.Uint32(r))
	return s.strs[o : o+int(binary.LittleEndian.Uint16(r[4:]))]
}

// Name returns entry i's name.
func (s *Section) Name(i uint32) string { return string(s.name(i)) }

// Kind returns entry i's kind.
func (s *Section) Kind(i uint32) Kind { return Kind(s.rec(i)[6]) }

// Entry returns entry i, which must be below Len.
func (s *Section) Entry(i uint32) Entry {
	r := s.rec(i)
	e := Entry{
		Name:   string(s.name(i)),
		Kind:   Kind(r[6]),
		Exec:   r[7]&1 != 0,
		Parent: binary.LittleEndian.Uint32(r[8:]),
	}
	first, count := binary.LittleEndian.Uint32(r[12:]), binary.LittleEndian.Uint32(r[16:])
	switch e.Kind {
	case KindDir:
		e.First, e.Count = first, count
	case KindSymlink:
		e.Target = string(s.strs[first : first+count])
	case KindFile:
		e.Size, e.Content = binary.LittleEndian.Uint64(r[24:]), binary.LittleEndian.Uint64(r[12:])
	}
	return e
}

// Attr returns what stat(2) tells of entry i, without its strings: a link's size is its
// target's length, a directory's 0.
func (s *Section) Attr(i uint32) (kind Kind, exec bool, size uint64) {
	r := s.rec(i)
	switch kind = Kind(r[6]); kind {
	case KindFile:
		size = binary.LittleEndian.Uint64(r[24:])
	case KindSymlink:
		size = uint64(binary.LittleEndian.Uint32(r[16:]))
	case KindDir:
	}
	return kind, r[7]&1 != 0, size
}

// Size returns how many bytes entry i, a regular file, has.
func (s *Section) Size(i uint32) uint64 { return binary.LittleEndian.Uint64(s.rec(i)[24:]) }

// Content returns entry i's Content; the entry must be a regular file.
func (s *Section) Content(i uint32) uint64 { return binary.LittleEndian.Uint64(s.rec(i)[12:]) }

// Parent returns the number of entry i's directory.
func (s *Section) Parent(i uint32) uint32 { return binary.LittleEndian.Uint32(s.rec(i)[8:]) }

// Children returns the number of a directory's first child, and how many there are.
func (s *Section) Children(dir uint32) (first, count uint32) {
	r := s.rec(dir)
	return binary.LittleEndian.Uint32(r[12:]), binary.LittleEndian.Uint32(r[16:])
}

// Lookup finds the child of directory dir called name.
func (s *Section) Lookup(dir uint32, name string) (uint32, bool) {
	r := s.rec(dir)
	if Kind(r[6]) != KindDir {
		return 0, false
	}
	first, count := s.Children(dir)
	i := sort.Search(int(count), func(i int) bool { return string(s.name(first+uint32(i))) >= name })
	if i < int(count) && string(s.name(first+uint32(i))) == name {
		return first + uint32(i), true
	}
	return 0, false
}

// DecodeSection checks buf and returns it as a Section, without copying.
func DecodeSection(buf []byte) (*Section, error) {
	if len(buf) < sectionHeader || string(buf[:len(sectionMagic)]) != sectionMagic {
		return nil, Malformed("not a section")
	}
	d := NewDecoder(buf[len(sectionMagic):])
	n, strs := d.U32(), d.U32()
	if n == 0 || uint64(d.Len()) != uint64(n)*recordSize+uint64(strs) {
		return nil, Malformed("section of %d entries and %d bytes of strings has %d bytes", n, strs, len(buf))
	}
	s := &Section{entries: n, recs: d.Raw(int(n) * recordSize), strs: d.Raw(int(strs))}
	return s, s.check()
}

// check makes sure that no later access can leave the buffers or loop.
func (s *Section) check() error {
	next := uint32(1) // where the next directory's children must begin
	for i := range s.entries {
		r := s.rec(i)
		if err := s.checkName(i, r); err != nil {
			return err
		}
		first, count := binary.LittleEndian.Uint32(r[12:]), binary.LittleEndian.Uint32(r[16:])
		switch Kind(r[6]) {
		case KindDir:
			if count > 0 && (first != next || first <= i) || count > s.entries-next {
				return Malformed("entry %d: children %d+%d where %d is next of %d", i, first, count, next, s.entries)
			}
			if err := s.checkChildren(i, first, count); err != nil {
				return err
			}
			next += count
		case KindSymlink:
			if count == 0 || uint64(first)+uint64(count) > uint64(len(s.strs)) {
				return Malformed("entry %d: link target %d+%d of %d", i, first, count, len(s.strs))
			}
		case KindFile:
		default:
			return Malformed("entry %d: kind %d", i, r[6])
		}
	}
	if next != s.entries {
		return Malformed("%d entries belong to no directory", s.entries-next)
	}
	return nil
}

func (s *Section) checkName(i uint32, r []byte) error {
	off, n := binary.LittleEndian.Uint32(r), binary.LittleEndian.Uint16(r[4:])
	if uint64(off)+uint64(n) > uint64(len(s.strs)) {
		return Malformed("entry %d: name %d+%d of %d", i, off, n, len(s.strs))
	}
	if i == 0 {
		if n != 0 {
			return Malformed("entry 0 has a name")
		}
		return nil
	}
	if !ValidName(string(s.strs[off : off+uint32(n)])) {
		return Malformed("entry %d: not a file name", i)
	}
	return nil
}

func (s *Section) checkChildren(dir, first, count uint32) error {
	for c := first; c < first+count; c++ {
		r := s.rec(c)
		if binary.LittleEndian.Uint32(r[8:]) != dir {
			return Malformed("entry %d: parent is not %d", c, dir)
		}
		o, n := binary.LittleEndian.Uint32(r), binary.LittleEndian.Uint16(r[4:])
		if uint64(o)+uint64(n) > uint64(len(s.strs)) {
			return Malformed("entry %d: name %d+%d of %d", c, o, n, len(s.strs))
		}
		if c > first && string(s.name(c-1)) >= string(s.name(c)) {
			return Malformed("entry %d: names not sorted", c)
		}
	}
	return nil
}

// ValidName reports whether name can be a file name: 1 to 255 bytes, not "." or
// "..", without '/' and NUL.
func ValidName(name string) bool {
	return name != "" && len(name) <= 255 && name != "." && name != ".." && strings.IndexByte(name, '/') < 0 && strings.IndexByte(name, 0) < 0
}

// A SectionBuilder makes the encoding of a section. Entries are added breadth
// first: the store path itself, then for each directory in the order of numbers its children,
// sorted, followed by SetChildren.
type SectionBuilder struct {
	recs Encoder
	strs []byte
	n    uint32
}

// ErrTooLarge is returned for a store path with more than 2^32-1 entries or
// bytes of names.
var ErrTooLarge = errors.New("too many files or names in one store path")

// Add appends one entry and returns its number. First and Count of a directory
// are set later by SetChildren.
func (b *SectionBuilder) Add(e Entry) (uint32, error) {
	if uint64(len(b.strs))+uint64(len(e.Name))+uint64(len(e.Target)) > 1<<32-1 || b.n == 1<<32-1 {
		return 0, ErrTooLarge
	}
	r := &b.recs
	r.U32(uint32(len(b.strs)))
	b.strs = append(b.strs, e.Name...)
	r.U16(uint16(len(e.Name)))
	r.U8(uint8(e.Kind))
	if e.Exec {
		r.U8(1)
	} else {
		r.U8(0)
	}
	r.U32(e.Parent)
	switch e.Kind {
	case KindSymlink:
		r.U32(uint32(len(b.strs)))
		r.U32(uint32(len(e.Target)))
		b.strs = append(b.strs, e.Target...)
	case KindFile:
		r.U64(e.Content)
	default:
		r.U32(e.First)
		r.U32(e.Count)
	}
	r.U32(0)
	r.U64(e.Size)
	b.n++
	return b.n - 1, nil
}

// SetChildren says that directory dir's children are the count entries from
// first on.
func (b *SectionBuilder) SetChildren(dir, first, count uint32) {
	r := b.recs.buf[int(dir)*recordSize:]
	binary.LittleEndian.PutUint32(r[12:], first)
	binary.LittleEndian.PutUint32(r[16:], count)
}

// Len tells how many entries were added.
func (b *SectionBuilder) Len() uint32 { return b.n }

// Encode returns the section's encoding.
func (b *SectionBuilder) Encode() []byte {
	var e Encoder
	e.buf = make([]byte, 0, sectionHeader+len(b.recs.buf)+len(b.strs))
	e.Raw([]byte(sectionMagic))
	e.U32(b.n)
	e.U32(uint32(len(b.strs)))
	e.Raw(b.recs.buf)
	e.Raw(b.strs)
	return e.Bytes()
}
