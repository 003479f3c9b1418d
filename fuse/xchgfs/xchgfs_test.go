package xchgfs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/xchgfs"
	"winvm/hostagent/hostfs"
	"winvm/transport/fsrpc"
	"winvm/transport/fsrpc/fsrpctest"
	"winvm/transport/needs"
)

func TestMountSuite(t *testing.T) {
	host := t.TempDir()
	fsrpctest.TestMount(t, startChild(t, host, ""), host)
}

func TestFullDisk(t *testing.T) {
	for _, mode := range []string{"", "writeback"} {
		host := fsrpctest.SmallTmpfs(t, 8<<20)
		fsrpctest.TestMountFull(t, startChild(t, host, mode), host)
	}
}

// wantNoMount checks that nothing is mounted on dir.
func wantNoMount(t testing.TB, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), " "+dir+" ") {
		t.Errorf("%s is still mounted", dir)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

// newTree serves a new host directory that holds the files given as name, content.
func newTree(t testing.TB, files ...string) (*hostfs.FS, string) {
	t.Helper()
	host := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(host, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := hostfs.New(hostfs.Config{Root: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	return tree, host
}

// newMount mounts on a new directory and unmounts at the end, if the test doesn't.
func newMount(t testing.TB, cfg xchgfs.Config) *xchgfs.FS {
	t.Helper()
	needs.FUSE(t)
	cfg.UID, cfg.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	fs, err := xchgfs.Mount(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closeFS(t, fs)
		wantNoMount(t, fs.Dir())
	})
	return fs
}

func closeFS(t testing.TB, fs *xchgfs.FS) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := fs.Close(ctx); err != nil {
		t.Error(err)
	}
}

func wantErr(t testing.TB, err error, what string, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func wantRead(t testing.TB, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", path, got, err, want)
	}
}

// A program has the root as its working directory and as an open listing, and
// files of the session open, while one session follows the other.
func TestSessionReplaced(t *testing.T) {
	one, _ := newTree(t, "only-one", "1", "both", "first", "d/deep", "x")
	two, _ := newTree(t, "only-two", "2", "both", "second")
	fs := newMount(t, xchgfs.Config{EntryTimeout: time.Hour, AttrTimeout: time.Hour, NegativeTimeout: time.Hour})
	fs.SetTree(one)
	dir := fs.Dir()

	sh := startShell(t, dir)
	sh.want("cat both only-one; echo; cat only-two 2>/dev/null || echo none", "first1\nnone")
	list, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	wantNames(t, list, "both", "d", "only-one")
	file, err := os.OpenFile(filepath.Join(dir, "both"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	deep, err := unix.Open(filepath.Join(dir, "d"), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(deep)

	fs.ClearTree()
	_, err = file.WriteAt([]byte("x"), 0)
	wantErr(t, err, "write after the session", unix.EIO)
	fs.SetTree(two)

	sh.want("cat both; cat only-one 2>/dev/null || echo none; cat only-two; echo; ls; pwd -P", "secondnone\n2\nboth\nonly-two\n"+dir)
	if _, err := list.Seek(0, 0); err != nil {
		t.Error(err)
	}
	wantNames(t, list, "both", "only-two")
	_, err = file.ReadAt(make([]byte, 1), 0)
	if err == nil {
		t.Error("a file of the former session can be read")
	}
	var st unix.Stat_t
	wantErr(t, unix.Fstat(int(file.Fd()), &st), "fstat of the former session's file", unix.ESTALE)
	wantErr(t, unix.Fstatat(deep, "deep", &st, 0), "below the former session's directory", unix.ESTALE)
	sh.want("echo new >made; cat made; rm made", "new")
}

// Without a Tree requests wait, and go on when there is one; old nodes fail at once.
func TestNoTree(t *testing.T) {
	tree, _ := newTree(t, "f", "content")
	fs := newMount(t, xchgfs.Config{Grace: 300 * time.Millisecond, EntryTimeout: time.Hour})
	start := time.Now()
	_, err := os.ReadFile(filepath.Join(fs.Dir(), "f"))
	wantErr(t, err, "without a tree", unix.EIO)
	if d := time.Since(start); d < 250*time.Millisecond || d > 5*time.Second {
		t.Errorf("failed after %v", d)
	}
	if st, err := os.Stat(fs.Dir()); err != nil || !st.IsDir() {
		t.Errorf("the root without a tree: %v, %v", st, err)
	}
	var sf unix.Statfs_t
	if err := unix.Statfs(fs.Dir(), &sf); err != nil {
		t.Error(err)
	}

	for range 20 {
		read := make(chan error, 1)
		go func() {
			_, err := os.ReadFile(filepath.Join(fs.Dir(), "f"))
			read <- err
		}()
		fs.SetTree(tree)
		if err := <-read; err != nil {
			t.Errorf("read that waited: %v", err)
		}
		fs.ClearTree()
	}
}

// hung is a Tree whose requests end only with their context.
type hung struct {
	fsrpc.Tree
	entered chan struct{}
}

func (h *hung) Lookup(ctx context.Context, _ fsrpc.NodeID, _ string) (fsrpc.Attr, error) {
	h.entered <- struct{}{}
	<-ctx.Done()
	return fsrpc.Attr{}, ctx.Err()
}

func TestCloseWithHungTree(t *testing.T) {
	tree, _ := newTree(t)
	fs := newMount(t, xchgfs.Config{})
	h := &hung{tree, make(chan struct{}, 1)}
	fs.SetTree(h)
	failed := make(chan error, 1)
	go func() {
		_, err := os.Stat(filepath.Join(fs.Dir(), "f"))
		failed <- err
	}()
	<-h.entered
	start := time.Now()
	closeFS(t, fs)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if err := <-failed; err == nil {
		t.Error("a request on a hung tree succeeded")
	}
	wantNoMount(t, fs.Dir())
}

// A tree that hangs is replaced.
func TestReplaceHungTree(t *testing.T) {
	tree, _ := newTree(t, "f", "content")
	fs := newMount(t, xchgfs.Config{})
	h := &hung{tree, make(chan struct{}, 1)}
	fs.SetTree(h)
	failed := make(chan error, 1)
	go func() {
		_, err := os.Stat(filepath.Join(fs.Dir(), "f"))
		failed <- err
	}()
	<-h.entered
	fs.SetTree(tree)
	wantErr(t, <-failed, "request on the hung tree", unix.EIO)
	wantRead(t, filepath.Join(fs.Dir(), "f"), "content")
}

func TestCloseWhileBusy(t *testing.T) {
	tree, _ := newTree(t, "f", "content")
	fs := newMount(t, xchgfs.Config{})
	fs.SetTree(tree)
	f, err := os.Open(filepath.Join(fs.Dir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	closeFS(t, fs)
	wantNoMount(t, fs.Dir())
	<-fs.Done()
}

func TestUnmountedByOthers(t *testing.T) {
	fs := newMount(t, xchgfs.Config{})
	needs.Root(t)
	if err := unix.Unmount(fs.Dir(), 0); err != nil {
		t.Fatal(err)
	}
	<-fs.Done()
}

func TestTwoMounts(t *testing.T) {
	one, _ := newTree(t, "f", "one")
	two, _ := newTree(t, "f", "two")
	a, b := newMount(t, xchgfs.Config{}), newMount(t, xchgfs.Config{})
	a.SetTree(one)
	b.SetTree(two)
	wantRead(t, filepath.Join(a.Dir(), "f"), "one")
	wantRead(t, filepath.Join(b.Dir(), "f"), "two")
	wantErr(t, os.Rename(filepath.Join(a.Dir(), "f"), filepath.Join(b.Dir(), "g")), "rename between them", unix.EXDEV)
}

func TestRealName(t *testing.T) {
	tree, _ := newTree(t, "Grüße.TXT", "", "d/File", "")
	fs := newMount(t, xchgfs.Config{})
	fs.SetTree(tree)
	get := func(path, name string, size int) (string, error) {
		buf := make([]byte, size)
		n, err := unix.Getxattr(filepath.Join(fs.Dir(), path), "glusterfs.get_real_filename:"+name, buf)
		return string(buf[:max(n, 0)]), err
	}
	for _, c := range []struct{ dir, ask, want string }{
		{"", "grÜSSe.txt", ""}, {"", "GRÜßE.txt", "Grüße.TXT\x00"}, {"d", "fILE", "File\x00"}, {"d", "File", "File\x00"},
	} {
		got, err := get(c.dir, c.ask, 256)
		if c.want == "" {
			wantErr(t, err, c.ask, unix.ENOENT)
		} else if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.ask, got, err, c.want)
		}
	}
	_, err := get("d", "FILE", 4)
	wantErr(t, err, "small buffer", unix.ERANGE)
	_, err = get("d", "..", 256)
	wantErr(t, err, "no name", unix.ENOENT)
	if n, err := unix.Getxattr(fs.Dir(), "glusterfs.get_real_filename:D", nil); err != nil || n != 2 {
		t.Errorf("size of the value: %d, %v", n, err)
	}
	_, err = unix.Getxattr(fs.Dir(), "user.x", nil)
	wantErr(t, err, "another attribute", unix.ENODATA)
	wantErr(t, unix.Setxattr(fs.Dir(), "user.x", []byte("v"), 0), "set one", unix.EOPNOTSUPP)
	if n, err := unix.Listxattr(fs.Dir(), nil); err != nil || n != 0 {
		t.Errorf("list: %d, %v", n, err)
	}
}

func TestOwners(t *testing.T) {
	needs.Root(t)
	tree, host := newTree(t, "mine", "", "foreign", "")
	if err := os.Chown(filepath.Join(host, "foreign"), 1234, 1234); err != nil {
		t.Fatal(err)
	}
	needs.FUSE(t)
	fs, err := xchgfs.Mount(t.TempDir(), xchgfs.Config{UID: 1000, GID: 1001})
	if err != nil {
		t.Fatal(err)
	}
	defer closeFS(t, fs)
	fs.SetTree(tree)
	var st unix.Stat_t
	for name, want := range map[string][2]uint32{"mine": {1000, 1001}, "foreign": {65534, 65534}} {
		if err := unix.Stat(filepath.Join(fs.Dir(), name), &st); err != nil || st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s: %d:%d, %v", name, st.Uid, st.Gid, err)
		}
	}
	mine := filepath.Join(fs.Dir(), "mine")
	if err := os.Chown(mine, 1000, 1001); err != nil {
		t.Errorf("chown to the same: %v", err)
	}
	if err := os.Chown(mine, -1, 1001); err != nil {
		t.Errorf("chgrp to the same: %v", err)
	}
	wantErr(t, os.Chown(mine, 0, -1), "chown to another", unix.EPERM)
	wantErr(t, unix.Mkfifo(filepath.Join(fs.Dir(), "fifo"), 0o644), "mkfifo", unix.EPERM)
	if err := unix.Mknod(filepath.Join(fs.Dir(), "file"), unix.S_IFREG|0o600, 0); err != nil {
		t.Errorf("mknod of a regular file: %v", err)
	}
}

// The host can hold fewer nodes than there are files; all can be used nevertheless.
func TestFewNodes(t *testing.T) {
	const dirs, files = 12, 50
	tree, host := newTree(t)
	_ = tree.Close()
	for i := range dirs * files {
		for _, name := range []string{fmt.Sprintf("d%02d/f%04d", i/files, i), fmt.Sprintf("flat%04d", i)} {
			path := filepath.Join(host, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	few, err := hostfs.New(hostfs.Config{Root: host, MaxNodes: 400})
	if err != nil {
		t.Fatal(err)
	}
	defer few.Close()
	m := newMount(t, xchgfs.Config{})
	m.SetTree(few)
	n, full := 0, 0
	err = filepath.WalkDir(m.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		rel, _ := filepath.Rel(m.Dir(), path)
		// docs/semantics.md: at the host's limit a name in the share's top directory may
		// have to be asked for more than once.
		for range 100 {
			_, err := os.Stat(path)
			if errors.Is(err, unix.ESTALE) {
				t.Errorf("%s: %v", rel, err)
			}
			if !errors.Is(err, unix.ENFILE) {
				break
			}
			full++
		}
		wantRead(t, path, rel)
		return nil
	})
	if err != nil || n != 2*dirs*files {
		t.Errorf("%d files, %v", n, err)
	}
	t.Logf("ENFILE %d times", full)
}

// What the host holds is in use, so nothing can be forgotten: the error says so, also for names
// in the root, and it passes.
func TestNoNodesLeft(t *testing.T) {
	const files = 60
	tree, host := newTree(t)
	_ = tree.Close()
	name := func(i int) string { return fmt.Sprintf("f%02d", i) }
	for i := range files {
		if err := os.WriteFile(filepath.Join(host, name(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	few, err := hostfs.New(hostfs.Config{Root: host, MaxNodes: files / 2})
	if err != nil {
		t.Fatal(err)
	}
	defer few.Close()
	m := newMount(t, xchgfs.Config{})
	m.SetTree(few)
	var open []*os.File
	for i := range files {
		f, err := os.Open(filepath.Join(m.Dir(), name(i)))
		if err == nil {
			open = append(open, f)
		} else {
			wantErr(t, err, "open of "+name(i), unix.ENFILE)
		}
	}
	if len(open) < files/3 || len(open) >= files/2 {
		t.Errorf("%d of %d files could be opened", len(open), files)
	}
	for _, f := range open {
		_ = f.Close()
	}
	for i := range files {
		for deadline := time.Now().Add(5 * time.Second); ; {
			_, err := os.Stat(filepath.Join(m.Dir(), name(i)))
			if err == nil {
				break
			}
			wantErr(t, err, "stat of "+name(i), unix.ENFILE)
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v for 5 s", name(i), err)
			}
		}
	}
}

func TestMountErrors(t *testing.T) {
	needs.FUSE(t)
	_, err := xchgfs.Mount(filepath.Join(t.TempDir(), "none"), xchgfs.Config{})
	wantErr(t, err, "no mount point", unix.ENOENT)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = xchgfs.Mount(file, xchgfs.Config{})
	wantErr(t, err, "mount point is a file", unix.ENOTDIR)
}

// The descriptor of /dev/fuse stays in the process that serves: a child that had it
// would keep the mount alive beyond it.
func TestDescriptorNotInherited(t *testing.T) {
	newMount(t, xchgfs.Config{})
	out, err := exec.Command("sh", "-c", "ls -l /proc/self/fd").Output()
	if err != nil || strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("%v\n%s", err, out)
	}
}

func wantNames(t testing.TB, d *os.File, want ...string) {
	t.Helper()
	names, err := d.Readdirnames(-1)
	got := map[string]bool{}
	for _, n := range names {
		got[n] = true
	}
	for _, n := range want {
		if !got[n] {
			t.Errorf("%s isn't listed", n)
		}
	}
	if len(names) != len(want) || err != nil {
		t.Errorf("listed %q, %v; want %q", names, err, want)
	}
}
