package fsrpc

import (
	"context"
	"syscall"
)

// NodeID names a file of a tree share for as long as the mount side holds a
// lookup reference to it. The host side chooses it; it never means another
// file within one session.
type NodeID uint64

// RootNode is the share's top directory. It is always held.
const RootNode NodeID = 1

// HandleID names an open file or directory of one session.
type HandleID uint64

// NoHandle is what a request carries that is about a node, not an open file.
const NoHandle HandleID = 0

// Limits of one message. The other side refuses what goes beyond them.
const (
	// MaxData is the most bytes one read or write carries.
	MaxData = 1 << 20
	// MaxName is the longest file name, in bytes.
	MaxName = 255
	// MaxTarget is the longest symbolic link target, in bytes (PATH_MAX-1).
	MaxTarget = 4095
	// MaxListing is the most bytes of directory entries one response carries.
	MaxListing = 256 << 10
	// EntryOverhead is what an entry of a listing takes beside its name.
	EntryOverhead = 92
	// MaxForgets is the most nodes one forget request carries.
	MaxForgets = 4096
)

// Attr is what stat(2) tells of a file. Times are nanoseconds since 1970.
type Attr struct {
	Node    NodeID // 0 in a plain listing
	Ino     uint64 // inode number to show
	Mode    uint32 // S_IFMT | permissions
	Nlink   uint32
	Size    uint64
	Blocks  uint64 // of 512 bytes
	Blksize uint32
	Rdev    uint32
	Atime   int64
	Mtime   int64
	Ctime   int64
	// Foreign is set if the file does not belong to the user that the host
	// agent runs as.
	Foreign bool
}

// SetAttr says which attributes to change; only fields whose bit is set in
// Valid count.
type SetAttr struct {
	Valid SetMask
	Mode  uint32
	Size  uint64
	Atime int64
	Mtime int64
}

// SetMask is the set of attributes a SetAttr changes.
type SetMask uint32

// The bits of a SetMask. SetAtimeNow and SetMtimeNow mean the host's clock.
const (
	SetMode SetMask = 1 << iota
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow
	SetMtimeNow
)

// DirEntry is one name in a listing. Next is the offset that continues after
// it. Attr is complete if the listing was asked for with attributes (then a
// lookup reference is taken for Attr.Node, unless Node is 0: the file went
// away or is one that isn't exported); else only Ino and the type in Mode are set.
type DirEntry struct {
	Name string
	Next uint64
	Attr Attr
}

// Forget gives back Count lookup references to Node.
type Forget struct {
	Node  NodeID
	Count uint64
}

// Statfs is what statfs(2) tells of the share.
type Statfs struct {
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Bsize, NameLen                      uint32
}

// Tree is a read-write file tree: the shares xchg and outputs. It is what the
// host side exports (hostagent/hostfs), what Client gives the mount side, and
// what the conformance suite fsrpctest tests; so a mount works the same on all
// of them.
//
// Names are single components: never empty, ".", "..", or with '/' or NUL.
// Both sides check. Open flags are Linux's O_* (amd64); only O_ACCMODE,
// O_APPEND, O_TRUNC, O_EXCL, O_SYNC, O_DSYNC and O_DIRECTORY pass.
//
// Errors are syscall.Errno values, possibly wrapped; ToErrno takes them out.
// All methods may be called from many goroutines at once. A cancelled context
// abandons the wait, not the operation: it may still happen.
type Tree interface {
	// Lookup finds name in parent and takes one lookup reference.
	Lookup(ctx context.Context, parent NodeID, name string) (Attr, error)
	// RealName answers, without a listing, which existing name in parent equals
	// name but for case; ENOENT if there is none.
	RealName(ctx context.Context, parent NodeID, name string) (string, error)
	// Forget returns lookup references.
	Forget(ctx context.Context, f []Forget) error
	// Getattr stats node, or the open file if h is not NoHandle.
	Getattr(ctx context.Context, n NodeID, h HandleID) (Attr, error)
	// Setattr changes attributes and returns the new ones.
	Setattr(ctx context.Context, n NodeID, h HandleID, s SetAttr) (Attr, error)
	Readlink(ctx context.Context, n NodeID) (string, error)
	// Mkdir, Symlink, Link and Create take one lookup reference on the result.
	Mkdir(ctx context.Context, parent NodeID, name string, mode uint32) (Attr, error)
	Symlink(ctx context.Context, parent NodeID, name, target string) (Attr, error)
	Link(ctx context.Context, n NodeID, parent NodeID, name string) (Attr, error)
	Create(ctx context.Context, parent NodeID, name string, flags, mode uint32) (Attr, HandleID, error)
	Unlink(ctx context.Context, parent NodeID, name string) error
	Rmdir(ctx context.Context, parent NodeID, name string) error
	// Rename takes RENAME_NOREPLACE and RENAME_EXCHANGE of renameat2(2).
	Rename(ctx context.Context, parent NodeID, name string, newParent NodeID, newName string, flags uint32) error
	// Open opens a regular file or a directory (O_DIRECTORY).
	Open(ctx context.Context, n NodeID, flags uint32) (HandleID, error)
	// Read fills buf from off; fewer bytes mean end of file.
	Read(ctx context.Context, h HandleID, off uint64, buf []byte) (int, error)
	// Write writes all of data or fails; with O_APPEND off is ignored.
	Write(ctx context.Context, h HandleID, off uint64, data []byte) (int, error)
	// Readdir lists from offset off (0: the start), at most about max bytes, where
	// an entry counts as EntryOverhead and its name; no entries mean the end. "."
	// and ".." are not listed.
	Readdir(ctx context.Context, h HandleID, off uint64, max int, attrs bool) ([]DirEntry, error)
	// Fsync puts the open file or directory on the host's disk.
	Fsync(ctx context.Context, h HandleID, dataOnly bool) error
	Fallocate(ctx context.Context, h HandleID, mode uint32, off, length uint64) error
	// Lseek is SEEK_DATA or SEEK_HOLE.
	Lseek(ctx context.Context, h HandleID, off uint64, whence uint32) (uint64, error)
	// Release closes. An error of an earlier write that only the close tells
	// (NFS, quota) is returned.
	Release(ctx context.Context, h HandleID) error
	Statfs(ctx context.Context) (Statfs, error)
	// Sync returns when all that was written is with the host's file system,
	// though perhaps not on its disk, and tells the first error of a write or
	// close that nobody was told of yet.
	Sync(ctx context.Context) error
}

// Section is one store path of the share nixstore: Name is its base name
// below the store directory. Hash is the SHA-256 of its encoded metadata
// (package wire, Section), Size that encoding's length.
type Section struct {
	Name    string
	Hash    [32]byte
	Size    uint64
	Entries uint32
}

// Limits of the nixstore share.
const (
	// MaxSections is the most store paths one closure may have.
	MaxSections = 1 << 20
	// MaxSectionSize is the longest encoding of one store path's metadata.
	MaxSectionSize = 1 << 30
	// MaxBatch is the most files of one batch.
	MaxBatch = 512
	// BatchOverhead is what a file of a batch takes beside its bytes.
	BatchOverhead = 6
)

// A FileID names a file of a store: the number of its section, and of the entry in it.
type FileID struct{ Section, Entry uint32 }

// A BatchFile is what became of one file of a batch: N bytes, or an error.
type BatchFile struct {
	N   int
	Err error
}

// Store is the read-only side of the share nixstore: metadata as sections that
// are fetched once by hash, contents by position.
type Store interface {
	// Sections tells what the closure is, sorted by name, from the ordinal
	// first on; fewer than asked for mean the end.
	Sections(ctx context.Context, first uint32, max int) ([]Section, error)
	// Metadata fills buf with encoded metadata: that of all sections from the one
	// with that ordinal on, one behind the other, from offset off. Fewer bytes mean that
	// there is no more.
	Metadata(ctx context.Context, section uint32, off uint64, buf []byte) (int, error)
	// Read fills buf from the regular file that is entry number entry of that
	// section. A file that isn't what the metadata says is EIO, never other bytes.
	Read(ctx context.Context, section, entry uint32, off uint64, buf []byte) (int, error)
	// ReadBatch reads whole regular files into buf, one behind the other, at most
	// MaxBatch, and tells of each how many bytes it has, or why none of it came: Read's
	// errors, and EFBIG for a file that doesn't fit into what is left of buf. buf has
	// at most MaxData bytes; a Client saves a copy if it has BatchOverhead bytes a file
	// more capacity than length, which are then overwritten.
	ReadBatch(ctx context.Context, files []FileID, buf []byte) ([]BatchFile, error)
}

// ToErrno takes the errno out of an error; what carries none is EIO. nil is 0.
func ToErrno(err error) syscall.Errno { return toErrno(err) }
