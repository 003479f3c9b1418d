package storefs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/hostagent/hostfs"
	"winvm/transport/fsrpc"
	"winvm/transport/fsrpc/fsrpctest"
	"winvm/transport/needs"
)

// Every way to change a store path is EROFS, with and without outputs.
func TestReadOnly(t *testing.T) {
	needs.Root(t) // others get EACCES from the modes
	dir := makeTree(t, "p/d/f", "content", "p/l", "->d", "q", "file")
	store := newStore(t, dir, "p", "q")
	outputs, _ := newOutputs(t, "out")
	matrix := map[string]func(p func(string) string) error{
		"write":                      func(p func(string) string) error { return os.WriteFile(p("p/d/f"), nil, 0o644) },
		"append":                     func(p func(string) string) error { return open(p("p/d/f"), unix.O_WRONLY|unix.O_APPEND) },
		"truncate":                   func(p func(string) string) error { return os.Truncate(p("p/d/f"), 0) },
		"create":                     func(p func(string) string) error { return os.WriteFile(p("p/d/new"), nil, 0o644) },
		"mkdir":                      func(p func(string) string) error { return unix.Mkdir(p("p/new"), 0o755) },
		"mknod":                      func(p func(string) string) error { return unix.Mknod(p("p/new"), unix.S_IFREG, 0) },
		"mkfifo":                     func(p func(string) string) error { return unix.Mkfifo(p("p/new"), 0o644) },
		"symlink":                    func(p func(string) string) error { return unix.Symlink("x", p("p/new")) },
		"link":                       func(p func(string) string) error { return unix.Link(p("p/d/f"), p("p/new")) },
		"unlink":                     func(p func(string) string) error { return unix.Unlink(p("p/d/f")) },
		"rmdir":                      func(p func(string) string) error { return unix.Rmdir(p("p/d")) },
		"rename":                     func(p func(string) string) error { return unix.Rename(p("p/d/f"), p("p/d/g")) },
		"chmod":                      func(p func(string) string) error { return unix.Chmod(p("p/d/f"), 0o777) },
		"chown":                      func(p func(string) string) error { return unix.Chown(p("p/d/f"), 1, 1) },
		"utimes":                     func(p func(string) string) error { return os.Chtimes(p("p/d/f"), time.Now(), time.Now()) },
		"root: unlink":               func(p func(string) string) error { return unix.Unlink(p("q")) },
		"root: truncate":             func(p func(string) string) error { return os.Truncate(p("q"), 0) },
		"root: rename":               func(p func(string) string) error { return unix.Rename(p("q"), p("r")) },
		"root: rmdir":                func(p func(string) string) error { return unix.Rmdir(p("p")) },
		"root: chmod":                func(p func(string) string) error { return unix.Chmod(p("."), 0o777) },
		"open to read and write":     func(p func(string) string) error { return open(p("p/d/f"), unix.O_RDWR) },
		"open to read, truncating":   func(p func(string) string) error { return open(p("p/d/f"), unix.O_RDONLY|unix.O_TRUNC) },
		"open or create":             func(p func(string) string) error { return open(p("p/d/f"), unix.O_WRONLY|unix.O_CREAT) },
		"open without a name":        func(p func(string) string) error { return notSupported(open(p("p/d"), unix.O_TMPFILE|unix.O_RDWR)) },
		"mknod of a device":          func(p func(string) string) error { return unix.Mknod(p("p/d/new"), unix.S_IFCHR, 0x103) },
		"mknod of a socket":          func(p func(string) string) error { return unix.Mknod(p("p/d/new"), unix.S_IFSOCK, 0) },
		"rename, not replacing":      func(p func(string) string) error { return rename2(p("p/d/f"), p("p/d/g"), unix.RENAME_NOREPLACE) },
		"rename, exchanging":         func(p func(string) string) error { return rename2(p("p/d"), p("p/l"), unix.RENAME_EXCHANGE) },
		"unlink of a link":           func(p func(string) string) error { return unix.Unlink(p("p/l")) },
		"chown of a link":            func(p func(string) string) error { return unix.Lchown(p("p/l"), 1, 1) },
		"times of a link":            func(p func(string) string) error { return unix.Lutimes(p("p/l"), make([]unix.Timeval, 2)) },
		"times of a directory":       func(p func(string) string) error { return os.Chtimes(p("p/d"), time.Now(), time.Now()) },
		"times: now":                 func(p func(string) string) error { return unix.UtimesNanoAt(unix.AT_FDCWD, p("p/d/f"), nil, 0) },
		"chmod of an open file":      onOpen(func(fd int) error { return unix.Fchmod(fd, 0o777) }),
		"chown of an open file":      onOpen(func(fd int) error { return unix.Fchown(fd, 1, 1) }),
		"times of an open file":      onOpen(func(fd int) error { return unix.Futimes(fd, make([]unix.Timeval, 2)) }),
		"xattr of an open file":      onOpen(func(fd int) error { return unix.Fsetxattr(fd, "user.x", []byte("v"), 0) }),
		"xattr":                      func(p func(string) string) error { return unix.Setxattr(p("p/d/f"), "user.x", []byte("v"), 0) },
		"xattr of a directory":       func(p func(string) string) error { return unix.Setxattr(p("p/d"), "user.x", []byte("v"), 0) },
		"xattr of a link":            func(p func(string) string) error { return unix.Lsetxattr(p("p/l"), "trusted.x", []byte("v"), 0) },
		"xattr removed":              func(p func(string) string) error { return unix.Removexattr(p("p/d/f"), "user.x") },
		"xattr of another kind":      func(p func(string) string) error { return unix.Setxattr(p("p/d/f"), "security.x", []byte("v"), 0) },
		"root: symlink over a path":  func(p func(string) string) error { return exists(unix.Symlink("x", p("q"))) },
		"root: rename, exchanging":   func(p func(string) string) error { return rename2(p("p"), p("q"), unix.RENAME_EXCHANGE) },
		"root: open to write a path": func(p func(string) string) error { return open(p("q"), unix.O_WRONLY) },
		"root: xattr":                func(p func(string) string) error { return unix.Setxattr(p("."), "user.x", []byte("v"), 0) },
	}
	for _, what := range []string{"outputs", "none", "mounted read-only"} {
		m := newMount(t, storefs.Config{ReadOnly: what == "mounted read-only"})
		if what == "outputs" {
			setSession(t, m, store, outputs)
		} else {
			setSession(t, m, store, nil)
			wantErr(t, unix.Mkdir(filepath.Join(m.Dir(), "out"), 0o755), what+": mkdir in the root", unix.EROFS)
			wantErr(t, open(filepath.Join(m.Dir(), "new"), unix.O_CREAT|unix.O_WRONLY), what+": create in the root", unix.EROFS)
		}
		for name, f := range matrix {
			wantErr(t, f(func(s string) string { return filepath.Join(m.Dir(), s) }), what+": "+name, unix.EROFS)
		}
		wantErr(t, unix.Mkdir(filepath.Join(m.Dir(), "p"), 0o755), what+": mkdir of a store path", unix.EEXIST)
		compare(t, filepath.Join(dir, "p"), filepath.Join(m.Dir(), "p"))
	}
}

func rename2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

// onOpen makes a change through a descriptor that is open for reading.
func onOpen(change func(fd int) error) func(p func(string) string) error {
	return func(p func(string) string) error {
		fd, err := unix.Open(p("p/d/f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return change(fd)
	}
}

// notSupported: where the kernel refuses before it looks at the file system.
func notSupported(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return unix.EROFS
	}
	return err
}

// exists: where the name that is there is the first objection.
func exists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return unix.EROFS
	}
	return err
}

// open opens a file, and writes if it is open for that: root may open what is
// EROFS only then.
func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		_, err = unix.Write(fd, []byte("x"))
	}
	return err
}

// The outputs that the host allows can be made, each as any kind of file; others not.
func TestOutputs(t *testing.T) {
	dir := makeTree(t, "mmm-input/f", "input", "mmm-input2", "file")
	store := newStore(t, dir, "mmm-input", "mmm-input2")
	outputs, host := newOutputs(t, "aaa-out", "zzz-doc", "fff-file", "lll-link", "aaa-out.tmp")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, outputs)
	p := func(name string) string { return filepath.Join(m.Dir(), name) }

	if err := os.MkdirAll(p("aaa-out/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p("aaa-out/bin/prog"), []byte("built"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p("fff-file"), []byte("single"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("mmm-input/f", p("lll-link")); err != nil {
		t.Fatal(err)
	}
	wantRead(t, p("lll-link"), "input")
	wantRead(t, filepath.Join(host, "aaa-out/bin/prog"), "built")
	if err := os.Rename(p("aaa-out"), p("aaa-out.tmp")); err != nil {
		t.Error(err)
	}
	if err := os.Rename(p("aaa-out.tmp"), p("aaa-out")); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		os.Mkdir(p("other"), 0o755), os.WriteFile(p("other"), nil, 0o644), os.Symlink("x", p("other")),
		os.Rename(p("fff-file"), p("other")),
	} {
		if err == nil {
			t.Error("made a name that isn't an output's")
		}
	}
	wantErr(t, os.Rename(p("fff-file"), p("mmm-input/g")), "rename into a store path", unix.EROFS)
	wantErr(t, os.Rename(p("mmm-input/f"), p("aaa-out/f")), "rename out of a store path", unix.EROFS)
	wantErr(t, os.Rename(p("fff-file"), p("mmm-input2")), "rename onto a store path", unix.EROFS)
	wantErr(t, os.Link(p("mmm-input/f"), p("aaa-out/f")), "link to a store path", unix.EXDEV)
	if err := os.Link(p("fff-file"), p("aaa-out/hard")); err != nil {
		t.Errorf("link between outputs: %v", err)
	}

	root, err := os.Open(m.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	names, err := root.Readdirnames(-1)
	if err != nil || len(names) != 5 || names[0] != "mmm-input" {
		t.Errorf("listed %q, %v", names, err)
	}
	// A store path goes before an output of that name.
	if err := os.Mkdir(filepath.Join(host, "zzz-doc"), 0o755); err != nil {
		t.Fatal(err)
	}
	var in, out unix.Stat_t
	_ = unix.Stat(p("mmm-input/f"), &in)
	if err := unix.Stat(p("aaa-out/bin/prog"), &out); err != nil || out.Ino&(1<<62) == 0 || in.Ino&(1<<62) != 0 {
		t.Errorf("inode numbers %#x and %#x, %v", in.Ino, out.Ino, err)
	}
	if err := os.RemoveAll(p("aaa-out")); err != nil {
		t.Error(err)
	}
}

// Within an output the share is as good a file system as xchg: mappings too, for which
// another process has to serve the mount.
func TestOutputsSuite(t *testing.T) {
	needs.FUSE(t)
	host, dir := t.TempDir(), t.TempDir()
	cmd := exec.Command("/proc/self/exe", outputsArg, dir, host)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process that serves the mount: %v", err)
		}
		wantNoMount(t, dir)
	})
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatalf("no mount: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	fsrpctest.TestMount(t, filepath.Join(dir, "out"), filepath.Join(host, "out"))
}

// outputsArg makes the test binary the process that serves TestOutputsSuite's mount:
// arguments where, and the outputs' directory on the host.
const outputsArg = "outputs-mount"

func outputsMount(dir, host string) error {
	ctx := context.Background()
	m, err := storefs.Mount(dir, storefs.Config{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	if err != nil {
		return err
	}
	tree, err := hostfs.New(hostfs.Config{Root: host, Names: []string{"out"}})
	if err == nil {
		err = m.SetSession(ctx, &dirStore{}, tree)
	}
	if err == nil {
		fmt.Println("mounted")
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return errors.Join(err, m.Close(ctx))
}

// The kernel doesn't say when it opens outputs' files: what a descriptor allows, it
// allows to its end.
func TestOutputsOpen(t *testing.T) {
	dir := makeTree(t, "input", "x")
	tree, host := newOutputs(t, "out")
	outputs := &countingTree{Tree: tree}
	m := newMount(t, storefs.Config{})
	setSession(t, m, newStore(t, dir, "input"), outputs)
	p := func(name string) string { return filepath.Join(m.Dir(), "out", name) }
	if err := os.Mkdir(p(""), 0o755); err != nil {
		t.Fatal(err)
	}
	wantRead(t, filepath.Join(m.Dir(), "input"), "x") // the kernel asks to open no more

	// More files at once than are kept open.
	const n = 300
	var files []*os.File
	for i := range n {
		f, err := os.OpenFile(p(fmt.Sprint(i)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	for round := range 3 {
		for i, f := range files {
			if _, err := fmt.Fprintf(f, "%d in round %d\n", i, round); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, f := range files {
		want := fmt.Sprintf("%d in round 0\n%d in round 1\n%d in round 2\n", i, i, i)
		wantRead(t, filepath.Join(host, "out", fmt.Sprint(i)), want)
		buf := make([]byte, 100)
		if n, err := f.ReadAt(buf, 0); string(buf[:n]) != want {
			t.Errorf("%d: read %q, %v", i, buf[:n], err)
		}
	}
	// Appending by two, whose ends move.
	a, err := os.OpenFile(p("0"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := files[0].WriteAt([]byte("longer than it was: forty characters and more"), 0); err != nil {
		t.Error(err)
	}
	if _, err := a.WriteString("END"); err != nil {
		t.Error(err)
	}
	wantRead(t, filepath.Join(host, "out", "0"), "longer than it was: forty characters and moreEND")
	// Truncated by its open, and by a descriptor.
	if err := os.WriteFile(p("0"), []byte("new"), 0o644); err != nil {
		t.Error(err)
	}
	if err := files[1].Truncate(3); err != nil {
		t.Error(err)
	}
	wantRead(t, filepath.Join(host, "out", "0"), "new")
	wantRead(t, filepath.Join(host, "out", "1"), "1 i")
	// Removed and renamed over while open.
	if err := errors.Join(os.Remove(p("2")), os.Rename(p("4"), p("3"))); err != nil {
		t.Error(err)
	}
	for _, f := range files[2:5] {
		if _, err := f.WriteAt([]byte("still"), 0); err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
		buf := make([]byte, 5)
		if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "still" {
			t.Errorf("%s: %q, %v", f.Name(), buf, err)
		}
	}
	for _, f := range files {
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Error(err)
		}
	}
	m.CloseOutputs()
	if n := outputs.open.Load(); n != 0 {
		t.Errorf("%d files are open on the host after all were closed", n)
	}
	if n := outputs.most.Load(); n > 140 {
		t.Errorf("%d files were open on the host at once", n)
	}
}

// A countingTree counts open files.
type countingTree struct {
	fsrpc.Tree
	open, most atomic.Int64
}

func (c *countingTree) count() {
	if n := c.open.Add(1); n > c.most.Load() {
		c.most.Store(n)
	}
}

func (c *countingTree) Open(ctx context.Context, n fsrpc.NodeID, flags uint32) (fsrpc.HandleID, error) {
	h, err := c.Tree.Open(ctx, n, flags)
	if err == nil {
		c.count()
	}
	return h, err
}

func (c *countingTree) Create(ctx context.Context, p fsrpc.NodeID, name string, flags, mode uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	a, h, err := c.Tree.Create(ctx, p, name, flags, mode)
	if err == nil {
		c.count()
	}
	return a, h, err
}

func (c *countingTree) Release(ctx context.Context, h fsrpc.HandleID) error {
	c.open.Add(-1)
	return c.Tree.Release(ctx, h)
}
