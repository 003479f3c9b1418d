package fsrpctest

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

func treeReadWrite(x tr) {
	data := randBytes(3*fsrpc.MaxData+77, 1)
	n := x.write("f", data)
	wantFile(x, x.h("f"), data)
	h := x.open(n, unix.O_RDONLY)
	for _, c := range []struct{ off, size int }{{0, 1}, {5, 4096}, {fsrpc.MaxData - 1, fsrpc.MaxData}, {len(data) - 10, 100}, {len(data), 10}, {len(data) + 9999, 10}, {3, 0}} {
		x.read(h, uint64(c.off), c.size, data[min(c.off, len(data)):min(c.off+c.size, len(data))])
	}
	_, err := x.fs.Write(x.ctx(), h, 0, []byte("x"))
	wantErr(x, err, "write to a file opened for reading", unix.EBADF)
	x.release(h)
	w := x.open(n, unix.O_WRONLY)
	_, err = x.fs.Read(x.ctx(), w, 0, make([]byte, 1))
	wantErr(x, err, "read from a file opened for writing", unix.EBADF)
	_, err = x.fs.Write(x.ctx(), w, 6<<30, []byte("far"))
	ok(x, err, "write beyond 4 GiB")
	a, err := x.fs.Getattr(x.ctx(), n, w)
	if err != nil || a.Size != 6<<30+3 || a.Node != n {
		x.Errorf("getattr of the open file: %+v, %v", a, err)
	}
	x.release(w)
	d := x.open(fsrpc.RootNode, unix.O_DIRECTORY)
	_, err = x.fs.Read(x.ctx(), d, 0, make([]byte, 1))
	wantErr(x, err, "read a directory", unix.EISDIR)
	_, err = x.fs.Write(x.ctx(), d, 0, []byte("x"))
	wantErr(x, err, "write a directory", unix.EISDIR, unix.EBADF)
	x.release(d)
}

func treeReadWriteLimits(x tr) {
	n := x.write("f", []byte("content"))
	h := x.open(n, unix.O_RDWR)
	_, err := x.fs.Read(x.ctx(), h, 0, make([]byte, fsrpc.MaxData+1))
	wantErr(x, err, "read of too much", unix.EINVAL)
	_, err = x.fs.Write(x.ctx(), h, 0, make([]byte, fsrpc.MaxData+1))
	wantErr(x, err, "write of too much", unix.EINVAL)
	for _, off := range []uint64{1<<63 - 1, 1 << 63, 1<<64 - 1} {
		_, err := x.fs.Write(x.ctx(), h, off, []byte("xx"))
		wantErr(x, err, "write beyond all", unix.EINVAL, unix.EFBIG)
		_, err = x.fs.Read(x.ctx(), h, off, make([]byte, 2))
		wantErr(x, err, "read beyond all", unix.EINVAL)
		_, err = x.fs.Setattr(x.ctx(), n, h, fsrpc.SetAttr{Valid: fsrpc.SetSize, Size: off + 1})
		if off+1 != 0 {
			wantErr(x, err, "size beyond all", unix.EINVAL, unix.EFBIG)
		}
		wantErr(x, x.fs.Fallocate(x.ctx(), h, 0, off, 10), "fallocate beyond all", unix.EINVAL, unix.EFBIG)
	}
	x.release(h)
}

func treeAppend(x tr) {
	n := x.write("f", []byte("start."))
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			h, err := x.fs.Open(x.ctx(), n, unix.O_WRONLY|unix.O_APPEND)
			if err != nil {
				x.Errorf("open: %v", err)
				return
			}
			for i := range 50 {
				if _, err := x.fs.Write(x.ctx(), h, 0, fmt.Appendf(nil, "%d:%03d.", w, i)); err != nil {
					x.Errorf("append: %v", err)
				}
			}
			if err := x.fs.Release(x.ctx(), h); err != nil {
				x.Errorf("release: %v", err)
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(x.h("f"))
	ok(x, err, "read")
	if len(got) != 6+100*6 || string(got[:6]) != "start." {
		x.Errorf("%d bytes, begins %q", len(got), got[:min(len(got), 6)])
	}
}

func treeOpenFlags(x tr) {
	f := x.write("f", []byte("content"))
	for _, flags := range []uint32{unix.O_CREAT, unix.O_NOFOLLOW, unix.O_DIRECT, unix.O_PATH, unix.O_NOATIME, unix.O_NONBLOCK, unix.O_TMPFILE, 1 << 31, unix.O_ACCMODE} {
		_, err := x.fs.Open(x.ctx(), f, flags)
		wantErr(x, err, fmt.Sprintf("open with %#o", flags), unix.EINVAL)
		_, _, err = x.fs.Create(x.ctx(), fsrpc.RootNode, "g", flags, 0o644)
		wantErr(x, err, fmt.Sprintf("create with %#o", flags), unix.EINVAL)
	}
	_, err := x.fs.Open(x.ctx(), f, unix.O_DIRECTORY)
	wantErr(x, err, "a file as a directory", unix.ENOTDIR)
	_, err = x.fs.Open(x.ctx(), fsrpc.RootNode, unix.O_RDWR)
	wantErr(x, err, "a directory for writing", unix.EISDIR)
	x.release(x.open(f, unix.O_WRONLY|unix.O_SYNC))
	x.release(x.open(f, unix.O_WRONLY|unix.O_DSYNC))
	x.release(x.open(fsrpc.RootNode, unix.O_RDONLY))
	x.release(x.open(f, unix.O_RDWR|unix.O_TRUNC))
	wantFile(x, x.h("f"), nil)
}

func treeCreate(x tr) {
	ctx, root := x.ctx(), fsrpc.RootNode
	a, h, err := x.fs.Create(ctx, root, "f", unix.O_RDWR|unix.O_EXCL, 0o444)
	ok(x, err, "create")
	x.same(a, "f")
	_, err = x.fs.Write(ctx, h, 0, []byte("content"))
	ok(x, err, "write to a file created unwritable")
	x.release(h)
	_, _, err = x.fs.Create(ctx, root, "f", unix.O_RDWR|unix.O_EXCL, 0o644)
	wantErr(x, err, "create again with O_EXCL", unix.EEXIST)
	b, h, err := x.fs.Create(ctx, root, "f", unix.O_RDONLY, 0o600)
	ok(x, err, "open by create")
	if b.Node != a.Node || b.Mode&0o777 != 0o444 || b.Size != 7 {
		x.Errorf("open by create: %+v", b)
	}
	x.read(h, 0, 10, []byte("content"))
	x.release(h)
	x.write("t", []byte("to be cut"))
	c, h, err := x.fs.Create(ctx, root, "t", unix.O_WRONLY|unix.O_TRUNC, 0o644)
	ok(x, err, "create with O_TRUNC")
	if c.Size != 0 {
		x.Errorf("size %d after O_TRUNC", c.Size)
	}
	x.release(h)
	x.mkdir(root, "d")
	_, _, err = x.fs.Create(ctx, root, "d", unix.O_RDWR, 0o644)
	wantErr(x, err, "create onto a directory", unix.EISDIR)
	_, _, err = x.fs.Create(ctx, a.Node, "x", unix.O_RDWR, 0o644)
	wantErr(x, err, "create in a file", unix.ENOTDIR)
	_, err = x.fs.Mkdir(ctx, root, "d", 0o755)
	wantErr(x, err, "mkdir again", unix.EEXIST)
}

func treeSetattr(x tr) {
	ctx := x.ctx()
	f := x.write("f", []byte("0123456789"))
	set := func(n fsrpc.NodeID, h fsrpc.HandleID, s fsrpc.SetAttr) fsrpc.Attr {
		x.Helper()
		a, err := x.fs.Setattr(ctx, n, h, s)
		ok(x, err, "setattr %+v", s)
		return a
	}
	a := set(f, 0, fsrpc.SetAttr{Valid: fsrpc.SetSize, Size: 4})
	x.same(a, "f")
	wantFile(x, x.h("f"), []byte("0123"))
	a = set(f, 0, fsrpc.SetAttr{Valid: fsrpc.SetSize | fsrpc.SetMode | fsrpc.SetMtime, Size: 6, Mode: 0o600, Mtime: 123456789012345678})
	x.same(a, "f")
	if a.Size != 6 || a.Mode&0o777 != 0o600 || a.Mtime != 123456789012345678 {
		x.Errorf("all at once: %+v", a)
	}
	a = set(f, 0, fsrpc.SetAttr{Valid: fsrpc.SetAtime, Atime: -1_500_000_000})
	if a.Atime != -1_500_000_000 || a.Mtime != 123456789012345678 {
		x.Errorf("atime before 1970: %+v", a)
	}
	a = set(f, 0, fsrpc.SetAttr{Valid: fsrpc.SetMtimeNow | fsrpc.SetAtimeNow})
	if a.Mtime == 123456789012345678 || a.Atime < 0 {
		x.Errorf("now: %+v", a)
	}
	x.same(set(f, 0, fsrpc.SetAttr{}), "f")
	h := x.open(f, unix.O_RDWR)
	if a := set(f, h, fsrpc.SetAttr{Valid: fsrpc.SetSize, Size: 1}); a.Size != 1 {
		x.Errorf("through the open file: %+v", a)
	}
	x.release(h)
	r := x.open(f, unix.O_RDONLY)
	set(f, r, fsrpc.SetAttr{Valid: fsrpc.SetSize, Size: 2})
	x.release(r)
	_, err := x.fs.Setattr(ctx, fsrpc.RootNode, 0, fsrpc.SetAttr{Valid: fsrpc.SetSize})
	wantErr(x, err, "size of a directory", unix.EISDIR)
	_, err = x.fs.Setattr(ctx, f, 0, fsrpc.SetAttr{Valid: 1 << 30})
	wantErr(x, err, "an unknown attribute", unix.EINVAL)
}

func treeSetattrRemoved(x tr) {
	a, h := x.create(fsrpc.RootNode, "f")
	ok(x, x.fs.Unlink(x.ctx(), fsrpc.RootNode, "f"), "unlink")
	x.write("f", []byte("another"))
	got, err := x.fs.Setattr(x.ctx(), a.Node, fsrpc.NoHandle, fsrpc.SetAttr{Valid: fsrpc.SetSize | fsrpc.SetMode, Size: 100, Mode: 0o600})
	ok(x, err, "setattr of a removed file")
	if got.Size != 100 || got.Nlink != 0 {
		x.Errorf("%+v", got)
	}
	x.release(h)
	wantFile(x, x.h("f"), []byte("another"))
}

func treeModes(x tr) {
	ctx, root := x.ctx(), fsrpc.RootNode
	a, h, err := x.fs.Create(ctx, root, "f", unix.O_RDWR, 0o6777)
	ok(x, err, "create")
	x.release(h)
	d, err := x.fs.Mkdir(ctx, root, "d", 0o3777)
	ok(x, err, "mkdir")
	for name, at := range map[string]fsrpc.Attr{"f": a, "d": d} {
		if st := lstat(x, x.h(name)); at.Mode&0o7777 != 0o777 || st.Mode&0o7777 != 0o777 {
			x.Errorf("%s made with mode %#o, on the host %#o", name, at.Mode, st.Mode)
		}
		got, err := x.fs.Setattr(ctx, at.Node, 0, fsrpc.SetAttr{Valid: fsrpc.SetMode, Mode: 0o7751})
		ok(x, err, "chmod")
		if st := lstat(x, x.h(name)); got.Mode&0o7777 != 0o751 || st.Mode&0o7777 != 0o751 {
			x.Errorf("%s: chmod gave %#o, on the host %#o", name, got.Mode, st.Mode)
		}
	}
	ok(x, os.Chmod(x.h("f"), 0o755|os.ModeSetuid), "chmod on the host")
	if got := x.lookup(root, "f"); got.Mode&0o7777 != 0o755 {
		x.Errorf("the host's setuid file has mode %#o", got.Mode)
	}
	// The umask of the process that serves doesn't count.
	old := unix.Umask(0o077)
	g, h, err := x.fs.Create(ctx, root, "g", unix.O_RDWR, 0o666)
	unix.Umask(old)
	ok(x, err, "create")
	x.release(h)
	x.same(g, "g")
	if g.Mode&0o777 != 0o666 {
		x.Errorf("made with mode %#o under a umask", g.Mode)
	}
}

func treeSpace(x tr) {
	ctx := x.ctx()
	a, h := x.create(fsrpc.RootNode, "f")
	defer x.release(h)
	if err := x.fs.Fallocate(ctx, h, 0, 0, 1<<20); err != nil {
		wantErr(x, err, "fallocate", unix.EOPNOTSUPP)
		x.Skip("no fallocate on this file system")
	}
	if st := lstat(x, x.h("f")); st.Size != 1<<20 || st.Blocks < 2048 {
		x.Errorf("fallocate made size %d, %d blocks", st.Size, st.Blocks)
	}
	_, err := x.fs.Write(ctx, h, 0, randBytes(1<<20, 1))
	ok(x, err, "write")
	ok(x, x.fs.Fallocate(ctx, h, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 64<<10, 128<<10), "punch a hole")
	ok(x, x.fs.Fsync(ctx, h, false), "fsync")
	x.read(h, 64<<10, 100, make([]byte, 100))
	at, err := x.fs.Lseek(ctx, h, 0, unix.SEEK_HOLE)
	if err != nil || at != 64<<10 && at != 1<<20 {
		x.Errorf("hole at %d, %v", at, err)
	}
	_, err = x.fs.Lseek(ctx, h, 2<<20, unix.SEEK_DATA)
	wantErr(x, err, "data beyond the end", unix.ENXIO)
	_, err = x.fs.Lseek(ctx, h, 0, unix.SEEK_SET)
	wantErr(x, err, "SEEK_SET", unix.EINVAL)
	wantErr(x, x.fs.Fallocate(ctx, h, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), "collapse range", unix.EOPNOTSUPP)
	wantErr(x, x.fs.Fallocate(ctx, h, 0, 0, 0), "fallocate of nothing", unix.EINVAL)
	got, err := x.fs.Getattr(ctx, a.Node, fsrpc.NoHandle)
	ok(x, err, "getattr")
	x.same(got, "f")
	st, err := x.fs.Statfs(ctx)
	ok(x, err, "statfs")
	var host unix.Statfs_t
	ok(x, unix.Statfs(x.host, &host), "statfs on the host")
	if st.Blocks != host.Blocks || int64(st.Bsize) != host.Bsize || st.NameLen != 255 {
		x.Errorf("statfs %+v, on the host %+v", st, host)
	}
}

func treeSync(x tr) {
	data := randBytes(100<<10, 1)
	_, h := x.create(fsrpc.RootNode, "f")
	_, err := x.fs.Write(x.ctx(), h, 0, data)
	ok(x, err, "write")
	ok(x, x.fs.Fsync(x.ctx(), h, true), "fdatasync")
	ok(x, x.fs.Fsync(x.ctx(), h, false), "fsync")
	ok(x, x.fs.Sync(x.ctx()), "sync")
	wantFile(x, x.h("f"), data)
	x.release(h)
	d := x.open(fsrpc.RootNode, unix.O_DIRECTORY)
	ok(x, x.fs.Fsync(x.ctx(), d, false), "fsync of a directory")
	x.release(d)
	ok(x, x.fs.Sync(x.ctx()), "sync again")
}

func treeCancelled(x tr) {
	n := x.write("f", nil)
	h := x.open(n, unix.O_RDWR)
	ctx, cancel := context.WithCancel(x.ctx())
	cancel()
	if _, err := x.fs.Lookup(ctx, fsrpc.RootNode, "f"); err == nil {
		x.Error("lookup with a cancelled context worked")
	}
	if _, err := x.fs.Read(ctx, h, 0, make([]byte, 10)); err == nil {
		x.Error("read with a cancelled context worked")
	}
	x.release(h)
}

// readAll reads a whole file through the tree.
func readAll(ctx context.Context, fs fsrpc.Tree, h fsrpc.HandleID) ([]byte, error) {
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := fs.Read(ctx, h, uint64(len(all)), buf)
		all = append(all, buf[:n]...)
		if err != nil || n < len(buf) {
			return all, err
		}
	}
}
