package fsrpc

import (
	"fmt"
	"syscall"

	"winvm/transport/wire"
)

// Version is this protocol's version. Both sides must have the same one: the
// controller is part of the image, and `hostagent suspend` brings it up to date.
const Version = 2

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
	opStoreBatch
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

// A batch's request is room u32 and its files; the response is the files' bytes, one
// behind the other, and then of each errno u16 and length u32.

func putFileIDs(e *wire.Encoder, files []FileID) {
	for _, f := range files {
		e.U32(f.Section)
		e.U32(f.Entry)
	}
}

// getFileIDs takes all that is left.
func getFileIDs(d *wire.Decoder) []FileID {
	if d.Len()%8 != 0 || d.Len() > 8*MaxBatch {
		d.Fail("batch of %d bytes of file numbers", d.Len())
		return nil
	}
	files := make([]FileID, d.Len()/8)
	for i := range files {
		files[i] = FileID{d.U32(), d.U32()}
	}
	return files
}

func putBatch(e *wire.Encoder, list []BatchFile) {
	for _, f := range list {
		e.U16(uint16(min(ToErrno(f.Err), maxErrno)))
		e.U32(uint32(f.N))
	}
}

// maxErrno is the greatest number that package rpc lets through.
const maxErrno = 511

// getBatch takes apart what came in response to a request for n files, and returns
// how many bytes of files stand in front.
func getBatch(body []byte, n int) ([]BatchFile, int, error) {
	if len(body) < n*BatchOverhead {
		return nil, 0, wire.Malformed("batch of %d files in %d bytes", n, len(body))
	}
	data := len(body) - n*BatchOverhead
	d := wire.NewDecoder(body[data:])
	list := make([]BatchFile, n)
	rest := uint64(data)
	for i := range list {
		errno, size := syscall.Errno(d.U16()), uint64(d.U32())
		switch {
		case size > rest || errno != 0 && size != 0:
			return nil, 0, wire.Malformed("batch: file %d has %d bytes of %d and errno %d", i, size, rest, errno)
		case errno > maxErrno:
			errno = syscall.EIO
		}
		if rest -= size; errno != 0 {
			list[i].Err = errno
		} else {
			list[i].N = int(size)
		}
	}
	if rest != 0 {
		return nil, 0, wire.Malformed("batch: %d bytes belong to no file", rest)
	}
	return list, data, d.Close()
}
