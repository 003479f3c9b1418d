package fsrpctest

import (
	"context"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// A tr is one test's own tree, with the host directory behind it.
type tr struct {
	*testing.T
	fs   fsrpc.Tree
	host string
}

// TestTree checks an fsrpc.Tree. open makes one, over an empty host directory of
// its own, for each test; what has to be closed it hands to t.Cleanup.
func TestTree(t *testing.T, open func(t *testing.T) (tree fsrpc.Tree, hostDir string)) {
	tests := []struct {
		name string
		f    func(tr)
	}{
		{"Lookup", treeLookup},
		{"Forget", treeForget},
		{"BadNames", treeBadNames},
		{"StrangeNames", treeStrangeNames},
		{"UnknownIDs", treeUnknownIDs},
		{"ReadWrite", treeReadWrite},
		{"ReadWriteLimits", treeReadWriteLimits},
		{"Append", treeAppend},
		{"OpenFlags", treeOpenFlags},
		{"Create", treeCreate},
		{"Setattr", treeSetattr},
		{"SetattrRemoved", treeSetattrRemoved},
		{"Modes", treeModes},
		{"Link", treeLink},
		{"Symlink", treeSymlink},
		{"SymlinkNotFollowed", treeSymlinkNotFollowed},
		{"Remove", treeRemove},
		{"Rename", treeRename},
		{"Readdir", treeReaddir},
		{"ReaddirAttrs", treeReaddirAttrs},
		{"ReaddirParallel", treeReaddirParallel},
		{"RealName", treeRealName},
		{"RealNameWhileCreating", treeRealNameWhileCreating},
		{"SpecialFiles", treeSpecialFiles},
		{"Space", treeSpace},
		{"Sync", treeSync},
		{"Cancelled", treeCancelled},
		{"SwapRace", treeSwapRace},
		{"Parallel", treeParallel},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exactModes(t)
			fs, host := open(t)
			tt.f(tr{t, fs, host})
		})
	}
}

// TestTreeFull checks that a full disk is told; hostDir must be on a SmallTmpfs.
func TestTreeFull(t *testing.T, tree fsrpc.Tree, hostDir string) {
	x := tr{t, tree, hostDir}
	a, h := x.create(fsrpc.RootNode, "full")
	chunk := randBytes(fsrpc.MaxData, 1)
	var err error
	for off := uint64(0); off < 64<<20 && err == nil; off += fsrpc.MaxData {
		_, err = tree.Write(x.ctx(), h, off, chunk)
	}
	wantErr(t, err, "write to a full disk", unix.ENOSPC)
	x.release(h)
	ok(t, tree.Unlink(x.ctx(), fsrpc.RootNode, "full"), "unlink")
	// A file that is still referred to still takes its room.
	ok(t, tree.Forget(x.ctx(), []fsrpc.Forget{{Node: a.Node, Count: 1}}), "forget")
	eventually(t, settle, func() string {
		if st, err := tree.Statfs(x.ctx()); err != nil || st.Bavail*uint64(st.Bsize) < 4096 {
			return "no room after the file was removed"
		}
		return ""
	})
	x.write("again", chunk[:1000])
	wantFile(t, x.h("again"), chunk[:1000])
	ok(t, tree.Sync(x.ctx()), "sync: the writer was told already")
}

func (x tr) ctx() context.Context { return x.Context() }

func (x tr) h(name string) string { return filepath.Join(x.host, name) }

func (x tr) lookup(parent fsrpc.NodeID, name string) fsrpc.Attr {
	x.Helper()
	a, err := x.fs.Lookup(x.ctx(), parent, name)
	ok(x, err, "lookup %q", name)
	return a
}

func (x tr) create(parent fsrpc.NodeID, name string) (fsrpc.Attr, fsrpc.HandleID) {
	x.Helper()
	a, h, err := x.fs.Create(x.ctx(), parent, name, unix.O_RDWR, 0o644)
	ok(x, err, "create %q", name)
	return a, h
}

func (x tr) mkdir(parent fsrpc.NodeID, name string) fsrpc.NodeID {
	x.Helper()
	a, err := x.fs.Mkdir(x.ctx(), parent, name, 0o755)
	ok(x, err, "mkdir %q", name)
	return a.Node
}

func (x tr) open(n fsrpc.NodeID, flags uint32) fsrpc.HandleID {
	x.Helper()
	h, err := x.fs.Open(x.ctx(), n, flags)
	ok(x, err, "open")
	return h
}

func (x tr) release(h fsrpc.HandleID) {
	x.Helper()
	ok(x, x.fs.Release(x.ctx(), h), "release")
}

// write makes a file in the root through the tree.
func (x tr) write(name string, data []byte) fsrpc.NodeID {
	x.Helper()
	a, h := x.create(fsrpc.RootNode, name)
	for off := 0; off < len(data); off += fsrpc.MaxData {
		part := data[off:min(len(data), off+fsrpc.MaxData)]
		n, err := x.fs.Write(x.ctx(), h, uint64(off), part)
		if err != nil || n != len(part) {
			x.Fatalf("write %s: %d of %d: %v", name, n, len(part), err)
		}
	}
	x.release(h)
	return a.Node
}

// read reads at off; want is what must come.
func (x tr) read(h fsrpc.HandleID, off uint64, size int, want []byte) {
	x.Helper()
	buf := make([]byte, size)
	n, err := x.fs.Read(x.ctx(), h, off, buf)
	ok(x, err, "read")
	wantBytes(x, buf[:n], want, "read")
}

// list lists a whole directory in pieces of limit bytes.
func (x tr) list(h fsrpc.HandleID, limit int, attrs bool) []fsrpc.DirEntry {
	x.Helper()
	var all []fsrpc.DirEntry
	var off uint64
	for range 1 << 20 {
		es, err := x.fs.Readdir(x.ctx(), h, off, limit, attrs)
		ok(x, err, "readdir")
		if len(es) == 0 {
			return all
		}
		size := 0
		for _, e := range es {
			size += fsrpc.EntryOverhead + len(e.Name)
		}
		if size > limit && len(es) > 1 {
			x.Fatalf("readdir of %d bytes, %d asked for", size, limit)
		}
		all = append(all, es...)
		off = es[len(es)-1].Next
	}
	x.Fatal("a listing without end")
	return nil
}

// same checks an attribute against the host's file.
func (x tr) same(a fsrpc.Attr, name string) {
	x.Helper()
	st := lstat(x, x.h(name))
	if a.Node == 0 || a.Ino != st.Ino || a.Mode != st.Mode&^0o7000 || uint64(a.Nlink) != st.Nlink || a.Size != uint64(st.Size) ||
		a.Mtime != st.Mtim.Nano() || a.Ctime != st.Ctim.Nano() || a.Blocks != uint64(st.Blocks) || a.Foreign {
		x.Errorf("%s: %+v, on the host %+v", name, a, st)
	}
}
