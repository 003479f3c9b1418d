package fsrpc_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// A fake is a Tree and a Store that notes what it is asked and answers with
// values that differ from each other and from zero.
type fake struct {
	mu    sync.Mutex
	asked []string
	bad   []string // what a handler must not have let through
}

var (
	_ fsrpc.Tree  = (*fake)(nil)
	_ fsrpc.Store = (*fakeStore)(nil)
)

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
}

func (f *fake) names(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range names {
		if !wire.ValidName(n) {
			f.bad = append(f.bad, fmt.Sprintf("name %q", n))
		}
	}
}

func (f *fake) limit(what string, n, most uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > most {
		f.bad = append(f.bad, fmt.Sprintf("%s %d", what, n))
	}
}

// take returns what was asked since the last time.
func (f *fake) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.asked, "; ")
	f.asked = nil
	return s
}

const farthest = 1<<63 - 1 - fsrpc.MaxData

func fakeAttr(n fsrpc.NodeID) fsrpc.Attr {
	return fsrpc.Attr{
		Node: n, Ino: 0x1112131415161718, Mode: 0o100644, Nlink: 0x21222324, Size: 0x3132333435363738,
		Blocks: 0x4142434445464748, Blksize: 0x51525354, Rdev: 0x61626364, Atime: -2,
		Mtime: 0x7172737475767778, Ctime: 1, Foreign: true,
	}
}

func (f *fake) Lookup(_ context.Context, p fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	f.names(name)
	f.note("Lookup %d %s", p, name)
	return fakeAttr(7), nil
}

func (f *fake) RealName(_ context.Context, p fsrpc.NodeID, name string) (string, error) {
	f.names(name)
	f.note("RealName %d %s", p, name)
	return "Name.EXE", nil
}

func (f *fake) Forget(_ context.Context, fs []fsrpc.Forget) error {
	f.limit("forgets", uint64(len(fs)), fsrpc.MaxForgets)
	f.note("Forget %v", fs)
	return nil
}

func (f *fake) Getattr(_ context.Context, n fsrpc.NodeID, h fsrpc.HandleID) (fsrpc.Attr, error) {
	f.note("Getattr %d %d", n, h)
	return fakeAttr(n), nil
}

func (f *fake) Setattr(_ context.Context, n fsrpc.NodeID, h fsrpc.HandleID, s fsrpc.SetAttr) (fsrpc.Attr, error) {
	f.note("Setattr %d %d %+v", n, h, s)
	return fakeAttr(n), nil
}

func (f *fake) Readlink(_ context.Context, n fsrpc.NodeID) (string, error) {
	f.note("Readlink %d", n)
	return "../target", nil
}

func (f *fake) Mkdir(_ context.Context, p fsrpc.NodeID, name string, mode uint32) (fsrpc.Attr, error) {
	f.names(name)
	f.note("Mkdir %d %s %o", p, name, mode)
	return fakeAttr(8), nil
}

func (f *fake) Symlink(_ context.Context, p fsrpc.NodeID, name, target string) (fsrpc.Attr, error) {
	f.names(name)
	f.limit("target", uint64(len(target)), fsrpc.MaxTarget)
	f.note("Symlink %d %s %s", p, name, target)
	return fakeAttr(9), nil
}

func (f *fake) Link(_ context.Context, n, p fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	f.names(name)
	f.note("Link %d %d %s", n, p, name)
	return fakeAttr(n), nil
}

func (f *fake) Create(_ context.Context, p fsrpc.NodeID, name string, flags, mode uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	f.names(name)
	f.note("Create %d %s %#x %o", p, name, flags, mode)
	return fakeAttr(10), 0x8182838485868788, nil
}

func (f *fake) Unlink(_ context.Context, p fsrpc.NodeID, name string) error {
	f.names(name)
	f.note("Unlink %d %s", p, name)
	return nil
}

func (f *fake) Rmdir(_ context.Context, p fsrpc.NodeID, name string) error {
	f.names(name)
	f.note("Rmdir %d %s", p, name)
	return nil
}

func (f *fake) Rename(_ context.Context, p fsrpc.NodeID, name string, q fsrpc.NodeID, newName string, flags uint32) error {
	f.names(name, newName)
	f.note("Rename %d %s %d %s %d", p, name, q, newName, flags)
	return nil
}

func (f *fake) Open(_ context.Context, n fsrpc.NodeID, flags uint32) (fsrpc.HandleID, error) {
	f.note("Open %d %#x", n, flags)
	return 0x9192939495969798, nil
}

func (f *fake) Read(_ context.Context, h fsrpc.HandleID, off uint64, buf []byte) (int, error) {
	f.limit("offset", off, farthest)
	f.limit("read", uint64(len(buf)), fsrpc.MaxData)
	f.note("Read %d %d %d", h, off, len(buf))
	return copy(buf, "content"), nil
}

func (f *fake) Write(_ context.Context, h fsrpc.HandleID, off uint64, data []byte) (int, error) {
	f.limit("offset", off, farthest)
	f.limit("write", uint64(len(data)), fsrpc.MaxData)
	f.note("Write %d %d %s", h, off, data)
	return len(data), nil
}

func (f *fake) Readdir(_ context.Context, h fsrpc.HandleID, off uint64, limit int, attrs bool) ([]fsrpc.DirEntry, error) {
	f.limit("listing", uint64(limit), fsrpc.MaxListing)
	f.note("Readdir %d %d %d %v", h, off, limit, attrs)
	return []fsrpc.DirEntry{
		{Name: "a", Next: 3, Attr: fakeAttr(11)},
		{Name: "Grüße", Next: 0xa1a2a3a4a5a6a7a8, Attr: fsrpc.Attr{Ino: 5, Mode: 0o40000}},
	}, nil
}

func (f *fake) Fsync(_ context.Context, h fsrpc.HandleID, dataOnly bool) error {
	f.note("Fsync %d %v", h, dataOnly)
	return nil
}

func (f *fake) Fallocate(_ context.Context, h fsrpc.HandleID, mode uint32, off, length uint64) error {
	f.limit("offset", off, farthest)
	f.limit("length", length, farthest-off)
	f.note("Fallocate %d %d %d %d", h, mode, off, length)
	return nil
}

func (f *fake) Lseek(_ context.Context, h fsrpc.HandleID, off uint64, whence uint32) (uint64, error) {
	f.note("Lseek %d %d %d", h, off, whence)
	return 0xb1b2b3b4b5b6b7b8, nil
}

func (f *fake) Release(_ context.Context, h fsrpc.HandleID) error {
	f.note("Release %d", h)
	return nil
}

func (f *fake) Statfs(context.Context) (fsrpc.Statfs, error) {
	f.note("Statfs")
	return fsrpc.Statfs{Blocks: 1, Bfree: 2, Bavail: 3, Files: 4, Ffree: 5, Bsize: 4096, NameLen: 255}, nil
}

func (f *fake) Sync(context.Context) error {
	f.note("Sync")
	return nil
}

// fakeStore has the Store's methods, of which one has a Tree's name.
type fakeStore struct{ fake }

func (f *fakeStore) Sections(_ context.Context, first uint32, limit int) ([]fsrpc.Section, error) {
	f.limit("sections", uint64(limit), fsrpc.MaxSectionsPerCall)
	f.note("Sections %d %d", first, limit)
	s := []fsrpc.Section{
		{Name: "abc-hello", Hash: [32]byte{1, 2, 31: 32}, Size: 0x12345678 >> 1, Entries: 0xc1c2c3c4},
		{Name: "def-x", Size: fsrpc.MaxSectionSize, Entries: 1},
	}
	return s[:min(limit, len(s))], nil
}

func (f *fakeStore) Metadata(_ context.Context, section uint32, off uint64, buf []byte) (int, error) {
	f.limit("metadata", uint64(len(buf)), fsrpc.MaxData)
	f.note("Metadata %d %d %d", section, off, len(buf))
	return copy(buf, "metadata"), nil
}

func (f *fakeStore) Read(_ context.Context, section, entry uint32, off uint64, buf []byte) (int, error) {
	f.limit("read", uint64(len(buf)), fsrpc.MaxData)
	f.note("Read %d %d %d %d", section, entry, off, len(buf))
	return copy(buf, "content"), nil
}

func (f *fakeStore) ReadBatch(_ context.Context, files []fsrpc.FileID, buf []byte) ([]fsrpc.BatchFile, error) {
	f.limit("files", uint64(len(files)), fsrpc.MaxBatch)
	f.limit("batch", uint64(len(buf)), fsrpc.MaxData)
	f.note("ReadBatch %v %d", files, len(buf))
	out := make([]fsrpc.BatchFile, len(files))
	for i := range files {
		if i == 1 || len(buf) < 7 {
			out[i].Err = syscall.EFBIG
			continue
		}
		out[i].N = copy(buf, "content")
		buf = buf[7:]
	}
	return out, nil
}
