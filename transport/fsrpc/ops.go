package fsrpc

import (
	"fmt"

	"winvm/transport/wire"
)

// Version is this protocol's version. Both sides must have the same one: the
// controller is part of the image, and `hostagent suspend` brings it up to date.
const Version = 1

// Operation numbers. They are never reused; new ones are appended.
const (
	opAttach uint16 = iota + 1
	opLookup
	opRealName
	opForget
	opGetattr
	opSetattr
	opReadlink
	opMkdir
	opSymlink
	opLink
	opCreate
	opUnlink
	opRmdir
	opRename
	opOpen
	opRead
	opWrite
	opReaddir
	opFsync
	opFallocate
	opLseek
	opRelease
	opStatfs
	opSync
	opSections
	opMetadata
	opStoreRead
)

// A ShareKind says which interface a share has.
type ShareKind uint8

// The kinds of share.
const (
	KindTree ShareKind = iota + 1
	KindStore
)

func (k ShareKind) String() string {
	switch k {
	case KindTree:
		return "tree"
	case KindStore:
		return "store"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// The shares of a build.
const (
	ShareXchg    = "xchg"
	ShareOutputs = "outputs"
	ShareStore   = "nixstore"
)

// StreamName is the name of the stream that carries a share.
func StreamName(share string) string { return "fs/" + share }

// maxFrame is the most bytes a request's or response's body has: the data and
// the fields before it.
const maxFrame = MaxData + 4096

func putAttr(e *wire.Encoder, a *Attr) {
	e.U64(uint64(a.Node))
	e.U64(a.Ino)
	e.U32(a.Mode)
	e.U32(a.Nlink)
	e.U64(a.Size)
	e.U64(a.Blocks)
	e.U32(a.Blksize)
	e.U32(a.Rdev)
	e.I64(a.Atime)
	e.I64(a.Mtime)
	e.I64(a.Ctime)
	e.Bool(a.Foreign)
}

func getAttr(d *wire.Decoder) Attr {
	return Attr{
		Node:    NodeID(d.U64()),
		Ino:     d.U64(),
		Mode:    d.U32(),
		Nlink:   d.U32(),
		Size:    d.U64(),
		Blocks:  d.U64(),
		Blksize: d.U32(),
		Rdev:    d.U32(),
		Atime:   d.I64(),
		Mtime:   d.I64(),
		Ctime:   d.I64(),
		Foreign: d.Bool(),
	}
}

func putSetAttr(e *wire.Encoder, s *SetAttr) {
	e.U32(uint32(s.Valid))
	e.U32(s.Mode)
	e.U64(s.Size)
	e.I64(s.Atime)
	e.I64(s.Mtime)
}

func getSetAttr(d *wire.Decoder) SetAttr {
	return SetAttr{
		Valid: SetMask(d.U32()),
		Mode:  d.U32(),
		Size:  d.U64(),
		Atime: d.I64(),
		Mtime: d.I64(),
	}
}

func putEntry(e *wire.Encoder, de *DirEntry) {
	e.String(de.Name)
	e.U64(de.Next)
	putAttr(e, &de.Attr)
}

func getEntry(d *wire.Decoder) DirEntry {
	return DirEntry{Name: getName(d), Next: d.U64(), Attr: getAttr(d)}
}

// getName takes a file name and checks it.
func getName(d *wire.Decoder) string {
	s := d.String(MaxName)
	if d.Err() == nil && !wire.ValidName(s) {
		d.Fail("%q is not a file name", s)
	}
	return s
}

func putSection(e *wire.Encoder, s *Section) {
	e.String(s.Name)
	e.Raw(s.Hash[:])
	e.U64(s.Size)
	e.U32(s.Entries)
}

// sectionSize is the least that putSection writes.
const sectionSize = 2 + 1 + 32 + 8 + 4

func getSection(d *wire.Decoder) Section {
	s := Section{Name: getName(d)}
	copy(s.Hash[:], d.Raw(len(s.Hash)))
	s.Size, s.Entries = d.U64(), d.U32()
	if s.Size > MaxSectionSize {
		d.Fail("section %q of %d bytes", s.Name, s.Size)
	}
	return s
}

func putStatfs(e *wire.Encoder, s *Statfs) {
	for _, v := range []uint64{s.Blocks, s.Bfree, s.Bavail, s.Files, s.Ffree} {
		e.U64(v)
	}
	e.U32(s.Bsize)
	e.U32(s.NameLen)
}

func getStatfs(d *wire.Decoder) Statfs {
	return Statfs{
		Blocks: d.U64(), Bfree: d.U64(), Bavail: d.U64(), Files: d.U64(), Ffree: d.U64(),
		Bsize: d.U32(), NameLen: d.U32(),
	}
}
