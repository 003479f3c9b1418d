package fsrpctest

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func mountRename(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("a"), []byte("a"), 0o644), "write")
	ok(t, os.Mkdir(m.p("d"), 0o755), "mkdir")
	before := lstat(t, m.p("a"))
	ok(t, os.Rename(m.p("a"), m.p("d/b")), "rename")
	if after := lstat(t, m.p("d/b")); after.Ino != before.Ino {
		t.Errorf("inode %d became %d", before.Ino, after.Ino)
	}
	_, err := os.Lstat(m.p("a"))
	wantErr(t, err, "the old name", unix.ENOENT)
	wantFile(t, m.h("d/b"), []byte("a"))
	ok(t, os.WriteFile(m.p("c"), []byte("c"), 0o644), "write")
	ok(t, os.Rename(m.p("d/b"), m.p("c")), "rename over a file")
	wantFile(t, m.p("c"), []byte("a"))
	ok(t, os.Rename(m.p("c"), m.p("c")), "rename to itself")
	ok(t, os.Rename(m.p("c"), m.p("C")), "rename to another case")
	wantErr(t, unix.Rename(m.p("none"), m.p("x")), "rename of nothing", unix.ENOENT)
	wantErr(t, unix.Rename(m.p("C"), m.p("none/x")), "rename into nothing", unix.ENOENT)
}

func mountRenameFlags(t *testing.T, m mnt) {
	ren := func(a, b string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, m.p(a), unix.AT_FDCWD, m.p(b), flags)
	}
	ok(t, os.WriteFile(m.p("a"), []byte("a"), 0o644), "write")
	ok(t, os.WriteFile(m.p("b"), []byte("b"), 0o644), "write")
	wantErr(t, ren("a", "b", unix.RENAME_NOREPLACE), "NOREPLACE onto a file", unix.EEXIST)
	wantFile(t, m.h("b"), []byte("b"))
	ok(t, ren("a", "n", unix.RENAME_NOREPLACE), "NOREPLACE onto nothing")
	wantFile(t, m.h("n"), []byte("a"))
	ok(t, os.Mkdir(m.p("d"), 0o755), "mkdir")
	ok(t, ren("b", "d", unix.RENAME_EXCHANGE), "EXCHANGE of a file and a directory")
	wantFile(t, m.h("d"), []byte("b"))
	if st := lstat(t, m.p("b")); st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("b has mode %#o", st.Mode)
	}
	wantErr(t, ren("n", "none", unix.RENAME_EXCHANGE), "EXCHANGE with nothing", unix.ENOENT)
	wantErr(t, ren("n", "d", unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE), "both flags", unix.EINVAL)
}

func mountRenameDirs(t *testing.T, m mnt) {
	for _, d := range []string{"empty", "full", "full/sub", "src", "src/x"} {
		ok(t, os.Mkdir(m.p(d), 0o755), "mkdir %s", d)
	}
	ok(t, os.WriteFile(m.p("src/f"), []byte("f"), 0o644), "write")
	ok(t, os.WriteFile(m.p("file"), nil, 0o644), "write")
	wantErr(t, unix.Rename(m.p("src"), m.p("full")), "onto a full directory", unix.ENOTEMPTY, unix.EEXIST)
	wantErr(t, unix.Rename(m.p("src"), m.p("src/x/y")), "into itself", unix.EINVAL)
	wantErr(t, unix.Rename(m.p("src"), m.p("file")), "directory onto a file", unix.ENOTDIR)
	wantErr(t, unix.Rename(m.p("file"), m.p("src")), "file onto a directory", unix.EISDIR)
	ok(t, unix.Rename(m.p("src"), m.p("empty")), "onto an empty directory")
	wantFile(t, m.p("empty/f"), []byte("f"))
	wantFile(t, m.h("empty/f"), []byte("f"))
	if st := lstat(t, m.h("empty")); st.Nlink != 3 && st.Nlink != 1 { // 1: btrfs
		t.Errorf("nlink %d", st.Nlink)
	}
}

func mountRenameOverOpen(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), []byte("old"), 0o644), "write")
	ok(t, os.WriteFile(m.p("g"), []byte("new"), 0o644), "write")
	f, err := os.OpenFile(m.p("f"), os.O_RDWR, 0)
	ok(t, err, "open")
	defer f.Close()
	ok(t, os.Rename(m.p("g"), m.p("f")), "rename over an open file")
	_, err = f.WriteAt([]byte("OLD+"), 0)
	ok(t, err, "write to the replaced file")
	buf := make([]byte, 8)
	if n, _ := f.ReadAt(buf, 0); string(buf[:n]) != "OLD+" {
		t.Errorf("replaced file reads %q", buf[:n])
	}
	wantFile(t, m.p("f"), []byte("new"))
	wantFile(t, m.h("f"), []byte("new"))
}

func mountUnlinkWhileOpen(t *testing.T, m mnt) {
	f, err := os.Create(m.p("f"))
	ok(t, err, "create")
	defer f.Close()
	ok(t, os.Remove(m.p("f")), "remove")
	_, err = os.Lstat(m.h("f"))
	wantErr(t, err, "the host's file", unix.ENOENT)
	data := randBytes(200<<10, 9)
	_, err = f.WriteAt(data, 0)
	ok(t, err, "write to a removed file")
	ok(t, f.Sync(), "fsync of a removed file")
	got := make([]byte, len(data))
	_, err = f.ReadAt(got, 0)
	ok(t, err, "read a removed file")
	wantBytes(t, got, data, "removed file")
	var st unix.Stat_t
	ok(t, unix.Fstat(int(f.Fd()), &st), "fstat of a removed file")
	if st.Nlink != 0 || st.Size != int64(len(data)) {
		t.Errorf("nlink %d size %d", st.Nlink, st.Size)
	}
	ok(t, f.Truncate(3), "ftruncate of a removed file")
	ok(t, f.Chmod(0o600), "fchmod of a removed file")
	// A new file of that name is another one.
	ok(t, os.WriteFile(m.p("f"), []byte("second"), 0o644), "create again")
	wantFile(t, m.p("f"), []byte("second"))
	d, err := os.Open(m.dir)
	ok(t, err, "open")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil || len(names) != 1 {
		t.Errorf("listing shows %q, %v", names, err)
	}
}

func mountLink(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("a"), []byte("first"), 0o644), "write")
	ok(t, os.Mkdir(m.p("d"), 0o755), "mkdir")
	ok(t, os.Link(m.p("a"), m.p("d/b")), "link")
	a, b := lstat(t, m.p("a")), lstat(t, m.p("d/b"))
	if a.Ino != b.Ino || a.Nlink != 2 || b.Nlink != 2 {
		t.Errorf("inodes %d %d, nlink %d %d", a.Ino, b.Ino, a.Nlink, b.Nlink)
	}
	ok(t, os.WriteFile(m.p("d/b"), []byte("second"), 0o644), "write through the link")
	wantFile(t, m.p("a"), []byte("second"))
	wantErr(t, os.Link(m.p("a"), m.p("d/b")), "link onto a file", unix.EEXIST)
	wantErr(t, os.Link(m.p("d"), m.p("dl")), "link to a directory", unix.EPERM)
	ok(t, os.Remove(m.p("a")), "remove")
	wantFile(t, m.p("d/b"), []byte("second"))
	if st := lstat(t, m.p("d/b")); st.Nlink != 1 {
		t.Errorf("nlink %d after removing one name", st.Nlink)
	}
	ok(t, os.Symlink("x", m.p("s")), "symlink")
	ok(t, unix.Linkat(unix.AT_FDCWD, m.p("s"), unix.AT_FDCWD, m.p("s2"), 0), "link to a symbolic link")
	if got, err := os.Readlink(m.h("s2")); got != "x" {
		t.Errorf("linked link reads %q, %v", got, err)
	}
}

func mountSymlink(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), []byte("content"), 0o644), "write")
	targets := map[string]string{
		"rel": "f", "abs": "/nix/store/somewhere", "up": "../../..", "dangling": "no/such",
		"bytes": "a\xffb c\n", "long": strings.Repeat("0123456789/", 363),
	}
	for name, target := range targets {
		ok(t, os.Symlink(target, m.p(name)), "symlink %s", name)
		for _, p := range []string{m.p(name), m.h(name)} {
			if got, err := os.Readlink(p); got != target {
				t.Errorf("%s: %q, %v", p, got, err)
			}
		}
		if st := lstat(t, m.p(name)); st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size != int64(len(target)) {
			t.Errorf("%s: mode %#o size %d", name, st.Mode, st.Size)
		}
	}
	wantFile(t, m.p("rel"), []byte("content"))
	_, err := os.OpenFile(m.p("rel"), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	wantErr(t, err, "O_NOFOLLOW on a link", unix.ELOOP)
	ok(t, os.Symlink("made", m.p("tomake")), "symlink")
	ok(t, os.WriteFile(m.p("tomake"), []byte("x"), 0o644), "create through a dangling link")
	wantFile(t, m.h("made"), []byte("x"))
	ok(t, os.Symlink("loop", m.p("loop")), "symlink")
	_, err = os.Stat(m.p("loop"))
	wantErr(t, err, "a loop", unix.ELOOP)
	wantErr(t, os.Symlink("x", m.p("f")), "link onto a file", unix.EEXIST)
	_, err = unix.Readlink(m.p("f"), make([]byte, 10))
	wantErr(t, err, "readlink of a file", unix.EINVAL)
}

func mountNames(t *testing.T, m mnt) {
	want := map[string]bool{}
	for what, name := range strangeNames() {
		ok(t, os.WriteFile(m.p(name), []byte(what), 0o644), "create: %s", what)
		wantFile(t, m.h(name), []byte(what))
		wantFile(t, m.p(name), []byte(what))
		want[name] = true
	}
	d, err := os.Open(m.dir)
	ok(t, err, "open")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	ok(t, err, "list")
	for _, n := range names {
		if !want[n] {
			t.Errorf("listing shows %q", n)
		}
		delete(want, n)
	}
	for n := range want {
		t.Errorf("listing lacks %q", n)
	}
	// Two names that differ in case only are two files.
	ok(t, os.WriteFile(m.p("Case"), []byte("1"), 0o644), "create")
	ok(t, os.WriteFile(m.p("case"), []byte("2"), 0o644), "create")
	wantFile(t, m.p("Case"), []byte("1"))
}

func mountNameTooLong(t *testing.T, m mnt) {
	long := m.p(strings.Repeat("n", 256))
	wantErr(t, os.WriteFile(long, nil, 0o644), "create", unix.ENAMETOOLONG)
	wantErr(t, os.Mkdir(long, 0o755), "mkdir", unix.ENAMETOOLONG)
	wantErr(t, os.Symlink("x", long), "symlink", unix.ENAMETOOLONG)
	_, err := os.Lstat(long)
	wantErr(t, err, "lstat", unix.ENAMETOOLONG)
	ok(t, os.WriteFile(m.p("f"), nil, 0o644), "create")
	wantErr(t, unix.Rename(m.p("f"), long), "rename", unix.ENAMETOOLONG)
}

// Paths are as deep as the program can go, beyond PATH_MAX too.
func mountDeepPath(t *testing.T, m mnt) {
	const depth = 40
	name := strings.Repeat("d", 200)
	fd, err := unix.Open(m.dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	ok(t, err, "open")
	for i := range depth {
		ok(t, unix.Mkdirat(fd, name, 0o755), "mkdir at depth %d", i)
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		ok(t, err, "open at depth %d", i)
		_ = unix.Close(fd)
		fd = next
	}
	f, err := unix.Openat(fd, "leaf", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	ok(t, err, "create at depth %d", depth)
	_, err = unix.Write(f, []byte("deep"))
	ok(t, err, "write")
	ok(t, unix.Close(f), "close")
	_ = unix.Close(fd)
	// And up again from the host's side, where the same is found.
	fd, err = unix.Open(m.host, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	ok(t, err, "open")
	for i := range depth {
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		ok(t, err, "open on the host at depth %d", i)
		_ = unix.Close(fd)
		fd = next
	}
	var st unix.Stat_t
	ok(t, unix.Fstatat(fd, "leaf", &st, 0), "stat on the host")
	_ = unix.Close(fd)
	if st.Size != 4 {
		t.Errorf("size %d", st.Size)
	}
}

func mountReaddir(t *testing.T, m mnt) {
	const n = 5000
	for i := range n {
		ok(t, os.WriteFile(m.h(fmt.Sprintf("file-%05d", i)), nil, 0o644), "create on the host")
	}
	ok(t, os.Mkdir(m.h("dir"), 0o755), "mkdir")
	ok(t, os.Symlink("x", m.h("link")), "symlink")
	var got []os.DirEntry
	eventually(t, settle, func() string {
		var err error
		if got, err = os.ReadDir(m.dir); err != nil || len(got) != n+2 {
			return fmt.Sprintf("%d names, %v; want %d", len(got), err, n+2)
		}
		return ""
	})
	for _, e := range got {
		if (e.Name() == "dir") != e.IsDir() || (e.Name() == "link") != (e.Type() == os.ModeSymlink) {
			t.Errorf("%s has type %v", e.Name(), e.Type())
		}
	}
	d, err := os.Open(m.dir)
	ok(t, err, "open")
	defer d.Close()
	infos, err := d.Readdir(-1) // lstat of each
	if err != nil || len(infos) != n+2 {
		t.Errorf("%d entries with attributes, %v", len(infos), err)
	}
	ok(t, os.RemoveAll(m.dir), "remove them all")
	_, err = os.Lstat(m.host)
	wantErr(t, err, "the host's directory", unix.ENOENT)
}

// What is neither made nor removed while a directory is listed is listed
// exactly once.
func mountReaddirWhileChanging(t *testing.T, m mnt) {
	const n = 5000
	for i := range n {
		ok(t, os.WriteFile(m.h(fmt.Sprintf("stay-%05d", i)), nil, 0o644), "create on the host")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				dir := m.dir
				if w == 1 {
					dir = m.host
				}
				p := filepath.Join(dir, fmt.Sprintf("go-%d-%d", w, i%64))
				_ = os.WriteFile(p, nil, 0o644)
				if i%3 == 0 {
					_ = os.Rename(p, p+"-renamed")
					_ = os.Remove(p + "-renamed")
				} else {
					_ = os.Remove(p)
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for round := range 3 {
		d, err := os.Open(m.dir)
		ok(t, err, "open")
		seen := map[string]int{}
		for {
			names, err := d.Readdirnames(100)
			if err != nil {
				break
			}
			for _, name := range names {
				seen[name]++
			}
		}
		_ = d.Close()
		for i := range n {
			if c := seen[fmt.Sprintf("stay-%05d", i)]; c != 1 {
				t.Fatalf("round %d: stay-%05d listed %d times", round, i, c)
			}
		}
	}
}

// getdents reads all names with their offsets.
func getdents(t *testing.T, fd int) (names []string, offs []int64) {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		n, err := unix.Getdents(fd, buf)
		ok(t, err, "getdents")
		if n == 0 {
			return names, offs
		}
		for b := buf[:n]; len(b) > 0; {
			d := direntAt(b)
			names, offs = append(names, d.name), append(offs, d.next)
			b = b[d.len:]
		}
	}
}

// A listing goes on after any entry, by the offset that came with it.
func mountSeekDir(t *testing.T, m mnt) {
	for i := range 500 {
		ok(t, os.WriteFile(m.p(fmt.Sprintf("f%03d", i)), nil, 0o644), "create")
	}
	fd, err := unix.Open(m.dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	ok(t, err, "open")
	defer func() { _ = unix.Close(fd) }()
	names, offs := getdents(t, fd)
	if len(names) != 502 {
		t.Fatalf("%d names with . and ..", len(names))
	}
	for _, i := range []int{0, 1, 7, 250, 499, 500} {
		_, err := unix.Seek(fd, offs[i], unix.SEEK_SET)
		ok(t, err, "seek")
		rest, _ := getdents(t, fd)
		if strings.Join(rest, " ") != strings.Join(names[i+1:], " ") {
			t.Errorf("after entry %d: %d names, want %d", i, len(rest), len(names)-i-1)
		}
	}
	_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	ok(t, err, "rewind")
	again, _ := getdents(t, fd)
	sort.Strings(again)
	sort.Strings(names)
	if strings.Join(again, " ") != strings.Join(names, " ") {
		t.Errorf("after a rewind: %d names, want %d", len(again), len(names))
	}
}
