package fsrpctest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mountTimes(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), nil, 0o644), "create")
	ok(t, os.Mkdir(m.p("d"), 0o755), "mkdir")
	ok(t, os.Symlink("f", m.p("l")), "symlink")
	a := unix.Timespec{Sec: 1234567890, Nsec: 123456789}
	b := unix.Timespec{Sec: 987654321, Nsec: 987654321}
	for _, name := range []string{"f", "d", "l"} {
		ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, m.p(name), []unix.Timespec{a, b}, unix.AT_SYMLINK_NOFOLLOW), "utimensat %s", name)
		for _, p := range []string{m.p(name), m.h(name)} {
			if st := lstat(t, p); st.Atim != a || st.Mtim != b {
				t.Errorf("%s: %v %v", p, st.Atim, st.Mtim)
			}
		}
	}
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, m.p("f"), []unix.Timespec{omit, now}, 0), "UTIME_NOW")
	st := lstat(t, m.p("f"))
	if st.Atim != a {
		t.Errorf("UTIME_OMIT changed atime to %v", st.Atim)
	}
	if d := time.Since(time.Unix(st.Mtim.Unix())); d < -time.Minute || d > time.Minute {
		t.Errorf("UTIME_NOW set mtime %v from now", d)
	}
	old := unix.Timespec{Sec: -300000000, Nsec: 5}
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, m.p("f"), []unix.Timespec{omit, old}, 0), "before 1970")
	if st := lstat(t, m.h("f")); st.Mtim != old {
		t.Errorf("before 1970: %v, want %v", st.Mtim, old)
	}
	f, err := os.OpenFile(m.p("f"), os.O_RDWR, 0)
	ok(t, err, "open")
	_, err = f.WriteString("x")
	ok(t, err, "write")
	ok(t, f.Close(), "close")
	if st := lstat(t, m.p("f")); st.Mtim == old {
		t.Error("a write left mtime as it was")
	}
	dir := lstat(t, m.p("d"))
	ok(t, os.WriteFile(m.p("d/new"), nil, 0o644), "create")
	if st := lstat(t, m.p("d")); st.Mtim == dir.Mtim {
		t.Error("a new file left the directory's mtime as it was")
	}
}

func mountModes(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), nil, 0o640), "create")
	ok(t, os.Mkdir(m.p("d"), 0o777), "mkdir")
	mode := func(p string) uint32 { st := lstat(t, p); return st.Mode & 0o7777 }
	for p, want := range map[string]uint32{m.p("f"): 0o640, m.h("f"): 0o640, m.p("d"): 0o777, m.h("d"): 0o777} {
		if got := mode(p); got != want {
			t.Errorf("%s has mode %#o, want %#o", p, got, want)
		}
	}
	for _, want := range []uint32{0o700, 0o555, 0o644, 0o777} {
		for _, name := range []string{"f", "d"} {
			ok(t, unix.Chmod(m.p(name), want), "chmod %#o", want)
			if got, host := mode(m.p(name)), mode(m.h(name)); got != want || host != want {
				t.Errorf("%s: chmod %#o gave %#o, on the host %#o", name, want, got, host)
			}
		}
	}
	if m.lim.Plain {
		return
	}
	// Whether it is refused or stripped, no such bit gets to the host.
	_ = unix.Chmod(m.p("f"), 0o6755)
	_ = unix.Chmod(m.p("d"), 0o7777)
	_ = unix.Mkdir(m.p("sticky"), 0o1777)
	if fd, err := unix.Open(m.p("suid"), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o4755); err == nil {
		_ = unix.Close(fd)
	}
	for _, name := range []string{"f", "d", "sticky", "suid"} {
		if _, err := os.Lstat(m.h(name)); err == nil && mode(m.h(name))&0o7000 != 0 {
			t.Errorf("%s has mode %#o on the host", name, mode(m.h(name)))
		}
	}
}

func mountErrors(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), nil, 0o644), "create")
	ok(t, os.MkdirAll(m.p("d/sub"), 0o755), "mkdir")
	open := func(name string, flags int) error {
		fd, err := unix.Open(m.p(name), flags|unix.O_CLOEXEC, 0o644)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
	wantErr(t, open("none", unix.O_RDONLY), "open nothing", unix.ENOENT)
	wantErr(t, open("none/x", unix.O_RDONLY|unix.O_CREAT), "create below nothing", unix.ENOENT)
	wantErr(t, open("f/x", unix.O_RDONLY), "open below a file", unix.ENOTDIR)
	wantErr(t, open("f/x", unix.O_CREAT|unix.O_WRONLY), "create below a file", unix.ENOTDIR)
	wantErr(t, open("d", unix.O_WRONLY), "write a directory", unix.EISDIR)
	wantErr(t, open("f", unix.O_RDONLY|unix.O_DIRECTORY), "list a file", unix.ENOTDIR)
	wantErr(t, open("f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), "create again", unix.EEXIST)
	wantErr(t, unix.Mkdir(m.p("d"), 0o755), "mkdir again", unix.EEXIST)
	wantErr(t, unix.Mkdir(m.p("f/x"), 0o755), "mkdir below a file", unix.ENOTDIR)
	wantErr(t, unix.Unlink(m.p("none")), "unlink nothing", unix.ENOENT)
	wantErr(t, unix.Unlink(m.p("d")), "unlink a directory", unix.EISDIR)
	wantErr(t, unix.Rmdir(m.p("d")), "rmdir of a full directory", unix.ENOTEMPTY, unix.EEXIST)
	wantErr(t, unix.Rmdir(m.p("f")), "rmdir of a file", unix.ENOTDIR)
	wantErr(t, unix.Rmdir(m.p("none")), "rmdir of nothing", unix.ENOENT)
	wantErr(t, unix.Truncate(m.p("d"), 0), "truncate a directory", unix.EISDIR)
	wantErr(t, unix.Chmod(m.p("none"), 0o644), "chmod nothing", unix.ENOENT)
	d, err := os.Open(m.p("d/sub"))
	ok(t, err, "open")
	defer d.Close()
	ok(t, os.Remove(m.p("d/sub")), "rmdir of an open directory")
	wantErr(t, unix.Mkdirat(int(d.Fd()), "x", 0o755), "mkdir in a removed directory", unix.ENOENT, unix.ESTALE)
	if m.lim.Plain {
		return
	}
	wantErr(t, unix.Setxattr(m.p("f"), "user.x", []byte("y"), 0), "setxattr", unix.ENOTSUP, unix.EPERM)
}

func mountSpecialFiles(t *testing.T, m mnt) {
	if !m.lim.Plain {
		wantErr(t, unix.Mkfifo(m.p("fifo"), 0o644), "mkfifo", unix.EPERM)
		if os.Geteuid() == 0 {
			wantErr(t, unix.Mknod(m.p("dev"), unix.S_IFCHR|0o644, 0x103), "mknod of a device", unix.EPERM)
		}
	}
	// What the host put there can be seen and removed.
	ok(t, unix.Mkfifo(m.h("hostfifo"), 0o644), "mkfifo on the host")
	eventually(t, settle, func() string {
		var st unix.Stat_t
		if err := unix.Lstat(m.p("hostfifo"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			return fmt.Sprintf("mode %#o, %v", st.Mode, err)
		}
		return ""
	})
	ok(t, os.Remove(m.p("hostfifo")), "remove")
}

func mountCrossDevice(t *testing.T, m mnt) {
	var here, there unix.Stat_t
	other := t.TempDir()
	ok(t, unix.Stat(m.dir, &here), "stat")
	ok(t, unix.Stat(other, &there), "stat")
	if here.Dev == there.Dev {
		t.Skip("the temporary directory is on the same device")
	}
	ok(t, os.WriteFile(m.p("f"), nil, 0o644), "create")
	wantErr(t, unix.Rename(m.p("f"), filepath.Join(other, "f")), "rename out", unix.EXDEV)
	wantErr(t, unix.Link(m.p("f"), filepath.Join(other, "f")), "link out", unix.EXDEV)
}

func mountStatfs(t *testing.T, m mnt) {
	var a, b unix.Statfs_t
	ok(t, unix.Statfs(m.dir, &a), "statfs")
	ok(t, unix.Statfs(m.host, &b), "statfs")
	if int64(a.Blocks)*a.Frsize != int64(b.Blocks)*b.Frsize && int64(a.Blocks)*a.Bsize != int64(b.Blocks)*b.Bsize {
		t.Errorf("%d blocks of %d, on the host %d of %d", a.Blocks, a.Bsize, b.Blocks, b.Bsize)
	}
	if a.Namelen != 255 {
		t.Errorf("names of %d bytes", a.Namelen)
	}
}

// What changes on the host is seen soon.
func mountHostChanges(t *testing.T, m mnt) {
	expect := func(name, want string) {
		t.Helper()
		eventually(t, settle, func() string {
			got, err := os.ReadFile(m.p(name))
			if string(got) != want {
				return fmt.Sprintf("%s reads %q, %v; want %q", name, got, err, want)
			}
			return ""
		})
	}
	gone := func(name string) {
		t.Helper()
		eventually(t, settle, func() string {
			if _, err := os.Lstat(m.p(name)); !os.IsNotExist(err) {
				return fmt.Sprintf("%s: %v, want ENOENT", name, err)
			}
			return ""
		})
	}
	gone("f") // so that the answer "no such file" can be cached
	ok(t, os.WriteFile(m.h("f"), []byte("one"), 0o644), "write on the host")
	expect("f", "one")
	ok(t, os.WriteFile(m.h("f"), []byte("two, longer"), 0o644), "write on the host")
	expect("f", "two, longer")
	ok(t, os.WriteFile(m.h("f.tmp"), []byte("three"), 0o644), "write on the host")
	ok(t, os.Rename(m.h("f.tmp"), m.h("f")), "replace on the host")
	expect("f", "three")
	ok(t, os.Rename(m.h("f"), m.h("g")), "rename on the host")
	expect("g", "three")
	gone("f")
	ok(t, os.Remove(m.h("g")), "remove on the host")
	gone("g")
}

// Many goroutines work in directories of their own and in one they share.
func mountParallel(t *testing.T, m mnt) {
	const workers, steps = 8, 150
	ok(t, os.Mkdir(m.p("shared"), 0o755), "mkdir")
	var wg sync.WaitGroup
	errs := make([]error, workers)
	files := make([]map[string][]byte, workers)
	for w := range workers {
		files[w] = map[string][]byte{}
		wg.Go(func() { errs[w] = parallelWorker(m, w, steps, files[w]) })
	}
	wg.Wait()
	total := 0
	for w := range workers {
		ok(t, errs[w], "worker %d", w)
		for name, data := range files[w] {
			wantFile(t, m.h(name), data)
			total++
		}
	}
	got := 0
	ok(t, filepath.WalkDir(m.dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got++
		}
		return err
	}), "walk")
	if got != total {
		t.Errorf("%d files, want %d", got, total)
	}
}

func parallelWorker(m mnt, w, steps int, files map[string][]byte) error {
	r := rand.New(rand.NewPCG(uint64(w), 1))
	own := fmt.Sprintf("w%d", w)
	if err := os.Mkdir(m.p(own), 0o755); err != nil {
		return err
	}
	name := func() string {
		dir := own
		if r.IntN(2) == 0 {
			dir = "shared"
		}
		return fmt.Sprintf("%s/%d-%d", dir, w, r.IntN(20))
	}
	for i := range steps {
		a, b := name(), name()
		data, have := files[a]
		var err error
		switch r.IntN(4) {
		case 0:
			if have {
				err = os.Rename(m.p(a), m.p(b))
				delete(files, a)
				files[b] = data
			}
		case 1:
			if have {
				err = os.Remove(m.p(a))
				delete(files, a)
			}
		default:
			data = randBytes(r.IntN(20000), uint64(i*8+w))
			err = os.WriteFile(m.p(a), data, 0o644)
			files[a] = data
		}
		if err != nil {
			return fmt.Errorf("step %d on %s: %w", i, a, err)
		}
	}
	return nil
}
