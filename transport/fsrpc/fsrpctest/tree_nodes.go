package fsrpctest

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

func treeLookup(x tr) {
	ok(x, os.WriteFile(x.h("f"), []byte("12345"), 0o640), "write")
	ok(x, os.Mkdir(x.h("d"), 0o750), "mkdir")
	ok(x, os.Symlink("some/where", x.h("l")), "symlink")
	ok(x, os.WriteFile(x.h("d/g"), nil, 0o600), "write")
	for _, name := range []string{"f", "d", "l"} {
		a := x.lookup(fsrpc.RootNode, name)
		x.same(a, name)
		if b := x.lookup(fsrpc.RootNode, name); b.Node != a.Node {
			x.Errorf("%s is node %d, then %d", name, a.Node, b.Node)
		}
		got, err := x.fs.Getattr(x.ctx(), a.Node, fsrpc.NoHandle)
		ok(x, err, "getattr")
		x.same(got, name)
	}
	d := x.lookup(fsrpc.RootNode, "d")
	x.same(x.lookup(d.Node, "g"), "d/g")
	root, err := x.fs.Getattr(x.ctx(), fsrpc.RootNode, fsrpc.NoHandle)
	ok(x, err, "getattr of the root")
	x.same(root, "")
	_, err = x.fs.Lookup(x.ctx(), fsrpc.RootNode, "none")
	wantErr(x, err, "lookup of nothing", unix.ENOENT)
	_, err = x.fs.Lookup(x.ctx(), x.lookup(fsrpc.RootNode, "f").Node, "x")
	wantErr(x, err, "lookup in a file", unix.ENOTDIR)
	_, err = x.fs.Lookup(x.ctx(), x.lookup(fsrpc.RootNode, "l").Node, "x")
	wantErr(x, err, "lookup in a symbolic link", unix.ENOTDIR)
	// A file that took another's name is another node.
	f := x.lookup(fsrpc.RootNode, "f")
	ok(x, os.WriteFile(x.h("f2"), nil, 0o644), "write")
	ok(x, os.Rename(x.h("f2"), x.h("f")), "rename")
	if g := x.lookup(fsrpc.RootNode, "f"); g.Node == f.Node {
		x.Error("a replaced file kept its node")
	}
	old, err := x.fs.Getattr(x.ctx(), f.Node, fsrpc.NoHandle)
	if err != nil || old.Nlink != 0 || old.Size != 5 {
		x.Errorf("the replaced file: %+v, %v", old, err)
	}
}

func treeForget(x tr) {
	ok(x, os.WriteFile(x.h("f"), nil, 0o644), "write")
	n := x.lookup(fsrpc.RootNode, "f").Node
	x.lookup(fsrpc.RootNode, "f")
	x.lookup(fsrpc.RootNode, "f")
	stat := func(n fsrpc.NodeID) error {
		_, err := x.fs.Getattr(x.ctx(), n, fsrpc.NoHandle)
		return err
	}
	ok(x, x.fs.Forget(x.ctx(), []fsrpc.Forget{{Node: n, Count: 2}}), "forget")
	ok(x, stat(n), "getattr with one reference left")
	ok(x, x.fs.Forget(x.ctx(), []fsrpc.Forget{{Node: n, Count: 1}}), "forget")
	eventually(x, settle, func() string { // a forget may be sent without an answer
		if err := stat(n); err == nil {
			return "a forgotten node answers"
		}
		return ""
	})
	wantErr(x, stat(n), "getattr of a forgotten node", unix.ESTALE)
	again := x.lookup(fsrpc.RootNode, "f").Node
	if again == n {
		x.Error("a node number came back")
	}
	// More than are held, and of what isn't there: nothing breaks.
	_ = x.fs.Forget(x.ctx(), []fsrpc.Forget{{Node: again, Count: 1 << 63}, {Node: again, Count: 1}, {Node: 1 << 60, Count: 1}})
	_ = x.fs.Forget(x.ctx(), []fsrpc.Forget{{Node: fsrpc.RootNode, Count: 1 << 62}})
	ok(x, stat(fsrpc.RootNode), "getattr of the root, forgotten")
	x.lookup(fsrpc.RootNode, "f")
	// An open file outlives its node.
	a, h := x.create(fsrpc.RootNode, "g")
	ok(x, x.fs.Forget(x.ctx(), []fsrpc.Forget{{Node: a.Node, Count: 1}}), "forget an open file")
	_, err := x.fs.Write(x.ctx(), h, 0, []byte("x"))
	ok(x, err, "write to a forgotten file")
	x.release(h)
}

// Each operation that takes a name, with that name.
func withName(x tr, d, f fsrpc.NodeID, name string) map[string]error {
	errs := map[string]error{}
	_, errs["lookup"] = x.fs.Lookup(x.ctx(), d, name)
	_, errs["realname"] = x.fs.RealName(x.ctx(), d, name)
	_, errs["mkdir"] = x.fs.Mkdir(x.ctx(), d, name, 0o755)
	_, errs["symlink"] = x.fs.Symlink(x.ctx(), d, name, "x")
	_, errs["link"] = x.fs.Link(x.ctx(), f, d, name)
	_, _, errs["create"] = x.fs.Create(x.ctx(), d, name, unix.O_RDWR, 0o644)
	errs["unlink"] = x.fs.Unlink(x.ctx(), d, name)
	errs["rmdir"] = x.fs.Rmdir(x.ctx(), d, name)
	errs["rename from"] = x.fs.Rename(x.ctx(), d, name, d, "to", 0)
	errs["rename to"] = x.fs.Rename(x.ctx(), d, "f", d, name, 0)
	return errs
}

func treeBadNames(x tr) {
	d := x.mkdir(fsrpc.RootNode, "d")
	ok(x, os.WriteFile(x.h("d/f"), nil, 0o644), "write")
	f := x.lookup(d, "f").Node
	for _, name := range []string{"", ".", "..", "/", "a/b", "../x", "/etc", "a/", "a\x00b", "\x00"} {
		for op, err := range withName(x, d, f, name) {
			wantErr(x, err, op+" "+strings.ToValidUTF8(name, "?"), unix.EINVAL)
		}
	}
	for op, err := range withName(x, d, f, strings.Repeat("n", 256)) {
		wantErr(x, err, op+" of 256 bytes", unix.ENAMETOOLONG)
	}
	names, err := os.ReadDir(x.h("d"))
	if err != nil || len(names) != 1 {
		x.Errorf("after bad names the directory holds %v, %v", names, err)
	}
}

func treeStrangeNames(x tr) {
	want := map[string]bool{}
	for what, name := range strangeNames() {
		x.write(name, []byte(what))
		wantFile(x, x.h(name), []byte(what))
		x.same(x.lookup(fsrpc.RootNode, name), name)
		want[name] = true
	}
	for _, e := range x.list(x.open(fsrpc.RootNode, unix.O_DIRECTORY), 4096, false) {
		if !want[e.Name] {
			x.Errorf("listing shows %q", e.Name)
		}
		delete(want, e.Name)
	}
	if len(want) > 0 {
		x.Errorf("listing lacks %v", want)
	}
}

func treeUnknownIDs(x tr) {
	f := x.write("f", nil)
	ctx := x.ctx()
	for _, n := range []fsrpc.NodeID{0, 12345678, 1<<64 - 1} {
		for op, err := range withName(x, n, f, "x") {
			wantErr(x, err, "unknown node: "+op, unix.ESTALE)
		}
		_, err := x.fs.Getattr(ctx, n, fsrpc.NoHandle)
		wantErr(x, err, "unknown node: getattr", unix.ESTALE)
		_, err = x.fs.Setattr(ctx, n, fsrpc.NoHandle, fsrpc.SetAttr{Valid: fsrpc.SetMode})
		wantErr(x, err, "unknown node: setattr", unix.ESTALE)
		_, err = x.fs.Open(ctx, n, unix.O_RDONLY)
		wantErr(x, err, "unknown node: open", unix.ESTALE)
		_, err = x.fs.Readlink(ctx, n)
		wantErr(x, err, "unknown node: readlink", unix.ESTALE)
		_, err = x.fs.Link(ctx, n, fsrpc.RootNode, "x")
		wantErr(x, err, "unknown node: link", unix.ESTALE)
		wantErr(x, x.fs.Rename(ctx, fsrpc.RootNode, "f", n, "x", 0), "unknown node: rename", unix.ESTALE)
	}
	released := x.open(f, unix.O_RDWR)
	x.release(released)
	for _, h := range []fsrpc.HandleID{released, 12345678, 1<<64 - 1} {
		_, err := x.fs.Read(ctx, h, 0, make([]byte, 1))
		wantErr(x, err, "unknown handle: read", syscall.EBADF)
		_, err = x.fs.Write(ctx, h, 0, []byte("x"))
		wantErr(x, err, "unknown handle: write", syscall.EBADF)
		_, err = x.fs.Readdir(ctx, h, 0, 1000, false)
		wantErr(x, err, "unknown handle: readdir", syscall.EBADF)
		_, err = x.fs.Getattr(ctx, f, h)
		wantErr(x, err, "unknown handle: getattr", syscall.EBADF)
		_, err = x.fs.Setattr(ctx, f, h, fsrpc.SetAttr{Valid: fsrpc.SetSize})
		wantErr(x, err, "unknown handle: setattr", syscall.EBADF)
		wantErr(x, x.fs.Fsync(ctx, h, false), "unknown handle: fsync", syscall.EBADF)
		wantErr(x, x.fs.Fallocate(ctx, h, 0, 0, 10), "unknown handle: fallocate", syscall.EBADF)
		_, err = x.fs.Lseek(ctx, h, 0, unix.SEEK_DATA)
		wantErr(x, err, "unknown handle: lseek", syscall.EBADF)
		wantErr(x, x.fs.Release(ctx, h), "unknown handle: release", syscall.EBADF)
	}
}

func treeLink(x tr) {
	ctx := x.ctx()
	f := x.write("f", []byte("one"))
	d := x.mkdir(fsrpc.RootNode, "d")
	a, err := x.fs.Link(ctx, f, d, "g")
	ok(x, err, "link")
	if a.Node != f || a.Nlink != 2 {
		x.Errorf("link is node %d nlink %d; the file is node %d", a.Node, a.Nlink, f)
	}
	x.same(a, "d/g")
	_, err = x.fs.Link(ctx, f, d, "g")
	wantErr(x, err, "link again", unix.EEXIST)
	_, err = x.fs.Link(ctx, d, fsrpc.RootNode, "d2")
	wantErr(x, err, "link to a directory", unix.EPERM)
	s, err := x.fs.Symlink(ctx, fsrpc.RootNode, "s", "target")
	ok(x, err, "symlink")
	b, err := x.fs.Link(ctx, s.Node, fsrpc.RootNode, "s2")
	ok(x, err, "link to a symbolic link")
	if b.Node != s.Node || b.Mode&unix.S_IFMT != unix.S_IFLNK {
		x.Errorf("linked symbolic link: %+v", b)
	}
}

func treeSymlink(x tr) {
	ctx := x.ctx()
	for i, target := range []string{"f", "/etc/passwd", "../../..", "a\xffb", strings.Repeat("0123456789/", 363)} {
		name := "l" + string(rune('0'+i))
		a, err := x.fs.Symlink(ctx, fsrpc.RootNode, name, target)
		ok(x, err, "symlink")
		x.same(a, name)
		got, err := x.fs.Readlink(ctx, a.Node)
		if err != nil || got != target {
			x.Errorf("readlink: %q, %v; want %q", got, err, target)
		}
	}
	_, err := x.fs.Symlink(ctx, fsrpc.RootNode, "long", strings.Repeat("x", fsrpc.MaxTarget+1))
	wantErr(x, err, "a target that is too long", unix.ENAMETOOLONG)
	_, err = x.fs.Symlink(ctx, fsrpc.RootNode, "nul", "a\x00b")
	wantErr(x, err, "a target with NUL", unix.EINVAL)
	_, err = x.fs.Symlink(ctx, fsrpc.RootNode, "l0", "f")
	wantErr(x, err, "symlink again", unix.EEXIST)
	_, err = x.fs.Readlink(ctx, fsrpc.RootNode)
	wantErr(x, err, "readlink of a directory", unix.EINVAL)
}

// The host side never follows a symbolic link, wherever it comes from.
func treeSymlinkNotFollowed(x tr) {
	ctx := x.ctx()
	outside := x.TempDir()
	ok(x, os.WriteFile(outside+"/secret", []byte("secret"), 0o644), "write")
	ok(x, os.Symlink(outside, x.h("dir")), "symlink")
	ok(x, os.Symlink(outside+"/secret", x.h("file")), "symlink")
	ok(x, os.Symlink(outside+"/new", x.h("dangling")), "symlink")
	ok(x, os.Symlink("/proc/self/root", x.h("magic")), "symlink")
	for _, name := range []string{"dir", "file", "dangling", "magic"} {
		a := x.lookup(fsrpc.RootNode, name)
		if a.Mode&unix.S_IFMT != unix.S_IFLNK {
			x.Errorf("%s has mode %#o", name, a.Mode)
		}
		_, err := x.fs.Open(ctx, a.Node, unix.O_RDONLY)
		wantErr(x, err, "open "+name, unix.ELOOP)
		_, err = x.fs.Open(ctx, a.Node, unix.O_DIRECTORY)
		wantErr(x, err, "opendir "+name, unix.ELOOP, unix.ENOTDIR)
		_, _, err = x.fs.Create(ctx, fsrpc.RootNode, name, unix.O_RDWR, 0o644)
		wantErr(x, err, "create "+name, unix.ELOOP, unix.EEXIST)
		_, err = x.fs.Lookup(ctx, a.Node, "secret")
		wantErr(x, err, "lookup in "+name, unix.ENOTDIR)
		_, err = x.fs.Setattr(ctx, a.Node, fsrpc.NoHandle, fsrpc.SetAttr{Valid: fsrpc.SetSize})
		wantErr(x, err, "truncate "+name, unix.EINVAL, unix.ELOOP)
		_, err = x.fs.Setattr(ctx, a.Node, fsrpc.NoHandle, fsrpc.SetAttr{Valid: fsrpc.SetMode, Mode: 0o777})
		wantErr(x, err, "chmod "+name, unix.EOPNOTSUPP)
		_, err = x.fs.Setattr(ctx, a.Node, fsrpc.NoHandle, fsrpc.SetAttr{Valid: fsrpc.SetMtime, Mtime: 1})
		ok(x, err, "utimens of the link itself")
	}
	names, err := os.ReadDir(outside)
	if err != nil || len(names) != 1 {
		x.Errorf("outside there is %v, %v", names, err)
	}
	wantFile(x, outside+"/secret", []byte("secret"))
	if st := lstat(x, outside+"/secret"); st.Mtim.Nano() == 1 || st.Mode&0o777 != 0o644 {
		x.Error("the file outside was changed")
	}
}

func treeRemove(x tr) {
	ctx := x.ctx()
	f := x.write("f", []byte("x"))
	d := x.mkdir(fsrpc.RootNode, "d")
	x.mkdir(d, "sub")
	wantErr(x, x.fs.Unlink(ctx, fsrpc.RootNode, "d"), "unlink of a directory", unix.EISDIR)
	wantErr(x, x.fs.Rmdir(ctx, fsrpc.RootNode, "f"), "rmdir of a file", unix.ENOTDIR)
	wantErr(x, x.fs.Rmdir(ctx, fsrpc.RootNode, "d"), "rmdir of a full directory", unix.ENOTEMPTY, unix.EEXIST)
	wantErr(x, x.fs.Unlink(ctx, fsrpc.RootNode, "none"), "unlink of nothing", unix.ENOENT)
	wantErr(x, x.fs.Unlink(ctx, f, "x"), "unlink in a file", unix.ENOTDIR)
	h := x.open(f, unix.O_RDWR)
	ok(x, x.fs.Unlink(ctx, fsrpc.RootNode, "f"), "unlink")
	x.read(h, 0, 10, []byte("x"))
	a, err := x.fs.Getattr(ctx, f, h)
	if err != nil || a.Nlink != 0 {
		x.Errorf("removed file: %+v, %v", a, err)
	}
	// It can even be opened again, as long as it is referred to.
	x.release(x.open(f, unix.O_RDONLY))
	x.release(h)
	ok(x, x.fs.Rmdir(ctx, d, "sub"), "rmdir")
	ok(x, x.fs.Rmdir(ctx, fsrpc.RootNode, "d"), "rmdir")
	_, err = x.fs.Mkdir(ctx, d, "x", 0o755)
	wantErr(x, err, "mkdir in a removed directory", unix.ENOENT, unix.ESTALE)
	if names, _ := os.ReadDir(x.host); len(names) != 0 {
		x.Errorf("left: %v", names)
	}
}

func treeRename(x tr) {
	ctx, root := x.ctx(), fsrpc.RootNode
	a := x.write("a", []byte("a"))
	x.write("b", []byte("b"))
	d := x.mkdir(root, "d")
	ren := func(p fsrpc.NodeID, from string, q fsrpc.NodeID, to string, flags uint32) error {
		return x.fs.Rename(ctx, p, from, q, to, flags)
	}
	wantErr(x, ren(root, "a", root, "b", unix.RENAME_NOREPLACE), "NOREPLACE", unix.EEXIST)
	wantErr(x, ren(root, "a", root, "c", unix.RENAME_WHITEOUT), "WHITEOUT", unix.EINVAL)
	wantErr(x, ren(root, "a", root, "c", 1<<20), "unknown flag", unix.EINVAL)
	wantErr(x, ren(root, "a", root, "c", unix.RENAME_EXCHANGE), "EXCHANGE with nothing", unix.ENOENT)
	wantErr(x, ren(root, "d", d, "x", 0), "into itself", unix.EINVAL)
	wantErr(x, ren(root, "a", root, "d", 0), "file onto a directory", unix.EISDIR)
	wantErr(x, ren(root, "d", root, "a", 0), "directory onto a file", unix.ENOTDIR)
	wantErr(x, ren(a, "x", root, "c", 0), "from a file", unix.ENOTDIR)
	ok(x, ren(root, "a", d, "a2", 0), "rename")
	if got := x.lookup(d, "a2"); got.Node != a {
		x.Errorf("a renamed file is node %d, was %d", got.Node, a)
	}
	ok(x, ren(d, "a2", root, "b", unix.RENAME_EXCHANGE), "EXCHANGE")
	wantFile(x, x.h("b"), []byte("a"))
	wantFile(x, x.h("d/a2"), []byte("b"))
	ok(x, ren(d, "a2", root, "b", 0), "rename over a file")
	wantFile(x, x.h("b"), []byte("b"))
	got, err := x.fs.Getattr(ctx, a, fsrpc.NoHandle)
	if err != nil || got.Nlink != 0 {
		x.Errorf("the replaced file: %+v, %v", got, err)
	}
}

// FIFOs, sockets and devices can be seen and removed, but never opened.
func treeSpecialFiles(x tr) {
	ctx := x.ctx()
	ok(x, unix.Mkfifo(x.h("fifo"), 0o644), "mkfifo")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	ok(x, err, "socket")
	defer func() { _ = unix.Close(fd) }()
	names := map[string]uint32{"fifo": unix.S_IFIFO}
	if unix.Bind(fd, &unix.SockaddrUnix{Name: x.h("sock")}) == nil { // the path may be too long
		names["sock"] = unix.S_IFSOCK
	}
	if os.Geteuid() == 0 {
		ok(x, unix.Mknod(x.h("dev"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))), "mknod of /dev/zero")
		names["dev"] = unix.S_IFCHR
	}
	for name, kind := range names {
		a := x.lookup(fsrpc.RootNode, name)
		if a.Mode&unix.S_IFMT != kind || a.Rdev != 0 {
			x.Errorf("%s: %+v", name, a)
		}
		for _, flags := range []uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_TRUNC} {
			_, err := x.fs.Open(ctx, a.Node, flags)
			wantErr(x, err, "open "+name, unix.EPERM)
			_, _, err = x.fs.Create(ctx, fsrpc.RootNode, name, flags, 0o644)
			wantErr(x, err, "create "+name, unix.EPERM)
		}
		_, err := x.fs.Link(ctx, a.Node, fsrpc.RootNode, name+"2")
		wantErr(x, err, "link "+name, unix.EPERM)
		_, err = x.fs.Setattr(ctx, a.Node, fsrpc.NoHandle, fsrpc.SetAttr{Valid: fsrpc.SetMode, Mode: 0o666})
		wantErr(x, err, "chmod "+name, unix.EPERM)
		ok(x, x.fs.Rename(ctx, fsrpc.RootNode, name, fsrpc.RootNode, name+"3", 0), "rename %s", name)
		ok(x, x.fs.Unlink(ctx, fsrpc.RootNode, name+"3"), "unlink %s", name)
	}
}
