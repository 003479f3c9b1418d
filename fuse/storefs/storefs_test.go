package storefs_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/transport/needs"
)

// compare walks the source and the mount and finds them equal.
func compare(t *testing.T, source, mounted string) (entries int) {
	t.Helper()
	inodes := map[uint64]string{}
	err := filepath.WalkDir(source, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(source, path)
		got := filepath.Join(mounted, rel)
		entries++
		var a, b unix.Stat_t
		if err := unix.Lstat(path, &a); err != nil {
			return err
		}
		if err := unix.Lstat(got, &b); err != nil {
			return err
		}
		if other, ok := inodes[b.Ino]; ok {
			t.Errorf("%s and %s have inode %d", other, got, b.Ino)
		}
		inodes[b.Ino] = got
		mode := a.Mode & unix.S_IFMT
		switch {
		case mode == unix.S_IFLNK:
			mode |= 0o777
			want, _ := os.Readlink(path)
			if target, err := os.Readlink(got); err != nil || target != want {
				t.Errorf("%s -> %q, %v; want %q", got, target, err, want)
			}
		case mode == unix.S_IFDIR || a.Mode&0o100 != 0:
			mode |= 0o555
		default:
			mode |= 0o444
		}
		if b.Mode != mode || b.Nlink != 1 || b.Uid != 0 || b.Gid != 0 || b.Mtim.Sec != 1 {
			t.Errorf("%s: mode %#o (want %#o) nlink %d owner %d:%d mtime %d", got, b.Mode, mode, b.Nlink, b.Uid, b.Gid, b.Mtim.Sec)
		}
		if mode&unix.S_IFMT == unix.S_IFDIR {
			return sameNames(t, path, got)
		}
		if a.Size != b.Size || b.Blocks != (b.Size+511)/512 {
			t.Errorf("%s: size %d blocks %d, want size %d", got, b.Size, b.Blocks, a.Size)
		}
		if mode&unix.S_IFMT == unix.S_IFREG {
			return sameContent(t, path, got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return entries
}

func sameNames(t *testing.T, a, b string) error {
	want, err := os.ReadDir(a)
	if err != nil {
		return err
	}
	got, err := os.ReadDir(b)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d names, want %d", b, len(got), len(want))
		return nil
	}
	for i := range got {
		if got[i].Name() != want[i].Name() || got[i].Type() != want[i].Type() {
			t.Errorf("%s: %v, want %v", b, got[i], want[i])
		}
	}
	return nil
}

func sameContent(t *testing.T, a, b string) error {
	want, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: other content", b)
	}
	return nil
}

func TestTree(t *testing.T) {
	long := strings.Repeat("x", 255)
	big := make([]byte, 5<<20+123)
	for i := range big {
		big[i] = byte(rand.Uint32())
	}
	dir := makeTree(t,
		"aaa-dir/bin/prog", "#!/bin/sh\necho ran", "aaa-dir/empty/", "", "aaa-dir/empty-file", "",
		"aaa-dir/link", "->bin/prog", "aaa-dir/dangling", "->/nix/store/none", "aaa-dir/big", string(big),
		"aaa-dir/"+long, "long name", "aaa-dir/Grüße \xff\xfe", "bytes", "aaa-dir/longlink", "->"+strings.Repeat("y/", 2000),
		"bbb-file", "a file", "ccc-link", "->aaa-dir/bin", "ddd-"+strings.Repeat("n", 251), "255 bytes", "eee-empty/", "",
	)
	store := newStore(t, dir, "aaa-dir", "bbb-file", "ccc-link", "ddd-"+strings.Repeat("n", 251), "eee-empty")
	for _, ro := range []bool{false, true} {
		m := newMount(t, storefs.Config{ReadOnly: ro})
		setSession(t, m, store, nil)
		for _, s := range store.sections {
			compare(t, filepath.Join(dir, s.Name), filepath.Join(m.Dir(), s.Name))
		}
		// By a shell: between vfork and exec of our own child no garbage collection can
		// end, and the exec would wait for this process to serve the file.
		out, err := exec.Command("sh", "-c", `"$0"`, filepath.Join(m.Dir(), "ccc-link/prog")).Output()
		if err != nil || string(out) != "ran\n" {
			t.Errorf("program from the store: %q, %v", out, err)
		}
		root, err := os.Open(m.Dir())
		if err != nil {
			t.Fatal(err)
		}
		wantList(t, root, "aaa-dir bbb-file ccc-link ddd-"+strings.Repeat("n", 251)+" eee-empty")
		_ = root.Close()
		for _, name := range []string{"none", "aaa-dir/none", "aaa-dir/none/x", "aaa-di", "aaa-dir/.." + long[:3]} {
			_, err := os.Lstat(filepath.Join(m.Dir(), name))
			wantErr(t, err, name, unix.ENOENT)
		}
		_, err = os.Lstat(filepath.Join(m.Dir(), "bbb-file/x"))
		wantErr(t, err, "below a file", unix.ENOTDIR)
	}
}

// A real tree of thousands of files.
func TestRealTree(t *testing.T) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		needs.Missing(t, "no go command: %v", err)
	}
	src := filepath.Join(strings.TrimSpace(string(goroot)), "src")
	if _, err := os.Stat(filepath.Join(src, "net")); err != nil {
		needs.Missing(t, "no Go sources: %v", err)
	}
	store := newStore(t, src, "net", "os", "runtime")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	entries := 0
	for _, name := range []string{"net", "os", "runtime"} {
		entries += compare(t, filepath.Join(src, name), filepath.Join(m.Dir(), name))
	}
	if entries < 1000 {
		t.Errorf("only %d entries", entries)
	}
}

// Walking asks the host for nothing.
func TestWalkStaysLocal(t *testing.T) {
	const files, dirs = 100_000, 50
	dir := makeTree(t, "flat/", "", "deep/", "")
	for i := range files {
		d := "flat"
		if i%2 == 1 {
			d = fmt.Sprintf("deep/%02d", i%dirs)
			if i < dirs {
				if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, d, fmt.Sprintf("file-%06d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	store := newStore(t, dir, "flat", "deep")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	lists, fetches := store.lists.Load(), store.fetches.Load()
	if fetches > 8 {
		t.Errorf("%d requests for metadata", fetches)
	}
	got := 0
	for range 2 {
		err := filepath.WalkDir(m.Dir(), func(_ string, d fs.DirEntry, err error) error {
			if err == nil {
				got++
				_, err = d.Info()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := 2 * (files + dirs/2 + 3); got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
	for _, name := range []string{"FILE-000000", "none"} {
		_, _ = unix.Getxattr(filepath.Join(m.Dir(), "flat"), "glusterfs.get_real_filename:"+name, make([]byte, 256))
	}
	if store.lists.Load() != lists || store.fetches.Load() != fetches || store.reads.Load() != 0 {
		t.Errorf("asked the host: %d lists, %d fetches, %d reads", store.lists.Load()-lists, store.fetches.Load()-fetches, store.reads.Load())
	}
}

func TestRealName(t *testing.T) {
	dir := makeTree(t, "Path-A/Sub/Grüße.TXT", "", "Path-A/Sub/two", "", "Path-A/Sub/TWO", "", "zzz", "file")
	store := newStore(t, dir, "Path-A", "zzz")
	outputs, host := newOutputs(t, "New-Out")
	if err := os.Mkdir(filepath.Join(host, "New-Out"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, outputs)
	for _, c := range []struct{ dir, ask, want string }{
		{"", "PATH-a", "Path-A"},
		{"", "zZZ", "zzz"},
		{"", "new-out", "New-Out"},
		{"", "none", ""},
		{"Path-A", "SUB", "Sub"},
		{"Path-A", "su", ""},
		{"Path-A/Sub", "GRÜßE.txt", "Grüße.TXT"},
		{"Path-A/Sub", "two", "two"},
		{"Path-A/Sub", "TWO", "TWO"},
		{"Path-A/Sub", "tWO", "TWO"},
		{"zzz", "x", ""},
		{"Path-A/Sub", strings.Repeat("q", 227), ""},
	} {
		buf := make([]byte, 256)
		n, err := unix.Getxattr(filepath.Join(m.Dir(), c.dir), "glusterfs.get_real_filename:"+c.ask, buf)
		if c.want == "" {
			wantErr(t, err, c.ask, unix.ENOENT)
		} else if err != nil || string(buf[:n]) != c.want+"\x00" {
			t.Errorf("%s/%s: %q, %v; want %q", c.dir, c.ask, buf[:max(n, 0)], err, c.want)
		}
	}
	_, err := unix.Getxattr(m.Dir(), "user.x", nil)
	wantErr(t, err, "another attribute", unix.ENODATA)
}

func TestChangedUnderneath(t *testing.T) {
	dir := makeTree(t, "p/gone", "content", "p/short", strings.Repeat("long", 5000), "p/fine", "fine")
	store := newStore(t, dir, "p")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	if err := os.Remove(filepath.Join(dir, "p/gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "p/short"), []byte("short"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gone", "short"} {
		got, err := os.ReadFile(filepath.Join(m.Dir(), "p", name))
		if err == nil {
			t.Errorf("%s: read %d bytes", name, len(got))
		}
	}
	_, err := os.ReadFile(filepath.Join(m.Dir(), "p/short"))
	wantErr(t, err, "short", unix.EIO)
	wantRead(t, filepath.Join(m.Dir(), "p/fine"), "fine")
}
