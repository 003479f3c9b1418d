package storefs_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
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
		"write":          func(p func(string) string) error { return os.WriteFile(p("p/d/f"), nil, 0o644) },
		"append":         func(p func(string) string) error { return open(p("p/d/f"), unix.O_WRONLY|unix.O_APPEND) },
		"truncate":       func(p func(string) string) error { return os.Truncate(p("p/d/f"), 0) },
		"create":         func(p func(string) string) error { return os.WriteFile(p("p/d/new"), nil, 0o644) },
		"mkdir":          func(p func(string) string) error { return unix.Mkdir(p("p/new"), 0o755) },
		"mknod":          func(p func(string) string) error { return unix.Mknod(p("p/new"), unix.S_IFREG, 0) },
		"mkfifo":         func(p func(string) string) error { return unix.Mkfifo(p("p/new"), 0o644) },
		"symlink":        func(p func(string) string) error { return unix.Symlink("x", p("p/new")) },
		"link":           func(p func(string) string) error { return unix.Link(p("p/d/f"), p("p/new")) },
		"unlink":         func(p func(string) string) error { return unix.Unlink(p("p/d/f")) },
		"rmdir":          func(p func(string) string) error { return unix.Rmdir(p("p/d")) },
		"rename":         func(p func(string) string) error { return unix.Rename(p("p/d/f"), p("p/d/g")) },
		"chmod":          func(p func(string) string) error { return unix.Chmod(p("p/d/f"), 0o777) },
		"chown":          func(p func(string) string) error { return unix.Chown(p("p/d/f"), 1, 1) },
		"utimes":         func(p func(string) string) error { return os.Chtimes(p("p/d/f"), time.Now(), time.Now()) },
		"root: unlink":   func(p func(string) string) error { return unix.Unlink(p("q")) },
		"root: truncate": func(p func(string) string) error { return os.Truncate(p("q"), 0) },
		"root: rename":   func(p func(string) string) error { return unix.Rename(p("q"), p("r")) },
		"root: rmdir":    func(p func(string) string) error { return unix.Rmdir(p("p")) },
		"root: chmod":    func(p func(string) string) error { return unix.Chmod(p("."), 0o777) },
		"xattr": func(p func(string) string) error {
			if err := unix.Setxattr(p("p/d/f"), "user.x", []byte("v"), 0); err != unix.EOPNOTSUPP {
				return err
			}
			return unix.EROFS
		},
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

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		_ = unix.Close(fd)
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

// Within an output the share is as good a file system as xchg.
func TestOutputsSuite(t *testing.T) {
	dir := makeTree(t, "input", "")
	outputs, host := newOutputs(t, "out")
	m := newMount(t, storefs.Config{})
	setSession(t, m, newStore(t, dir, "input"), outputs)
	if err := os.Mkdir(filepath.Join(m.Dir(), "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	// A process that maps files of its own mount can hang; xchgfs tests that.
	fsrpctest.TestMountLimits(t, filepath.Join(m.Dir(), "out"), filepath.Join(host, "out"), fsrpctest.Limits{NoMmap: true})
}
