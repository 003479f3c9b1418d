package fsrpctest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func mountCreateReadWrite(t *testing.T, m mnt) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 128<<10 + 1, 3<<20 + 7} {
		data := randBytes(size, uint64(size))
		name := fmt.Sprintf("f%d", size)
		ok(t, os.WriteFile(m.p(name), data, 0o644), "write %d bytes", size)
		wantFile(t, m.h(name), data)
		wantFile(t, m.p(name), data)
		if st := lstat(t, m.p(name)); st.Size != int64(size) || st.Mode != unix.S_IFREG|0o644 || st.Nlink != 1 {
			t.Errorf("%s: size %d mode %#o nlink %d", name, st.Size, st.Mode, st.Nlink)
		}
	}
	f, err := os.Open(m.p("f4097"))
	ok(t, err, "open")
	defer f.Close()
	buf := make([]byte, 10)
	if n, err := f.ReadAt(buf, 4090); n != 7 || err != io.EOF {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(buf, 1<<40); n != 0 || err != io.EOF {
		t.Errorf("read beyond the end: %d, %v", n, err)
	}
	_, err = f.Write([]byte("x"))
	wantErr(t, err, "write to a file opened for reading", unix.EBADF)
}

// A file may be created unwritable and still be written by its creator.
func mountCreateReadOnlyMode(t *testing.T, m mnt) {
	f, err := os.OpenFile(m.p("ro"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o444)
	ok(t, err, "create with mode 0444")
	_, err = f.WriteString("written")
	ok(t, err, "write")
	ok(t, f.Close(), "close")
	wantFile(t, m.h("ro"), []byte("written"))
	if st := lstat(t, m.h("ro")); st.Mode&0o7777 != 0o444 {
		t.Errorf("mode %#o", st.Mode)
	}
}

// Random reads, writes and truncations, against a buffer in memory.
func mountRandomWrites(t *testing.T, m mnt) {
	f, err := os.OpenFile(m.p("f"), os.O_CREATE|os.O_RDWR, 0o644)
	ok(t, err, "create")
	defer f.Close()
	r := rand.New(rand.NewPCG(1, 2))
	var model []byte
	for i := range 400 {
		off := r.IntN(600 << 10)
		n := r.IntN(1 << (2 + r.IntN(17)))
		switch r.IntN(8) {
		case 0:
			ok(t, f.Truncate(int64(off)), "truncate")
			model = append(model[:min(off, len(model))], make([]byte, max(0, off-len(model)))...)
		case 1, 2, 3:
			buf := make([]byte, n)
			got, err := f.ReadAt(buf, int64(off))
			if err != nil && err != io.EOF {
				t.Fatalf("read %d at %d: %v", n, off, err)
			}
			want := model[min(off, len(model)):min(off+n, len(model))]
			wantBytes(t, buf[:got], want, fmt.Sprintf("step %d: read %d at %d", i, n, off))
		default:
			data := randBytes(n, uint64(i))
			_, err := f.WriteAt(data, int64(off))
			ok(t, err, "write %d at %d", n, off)
			if off+n > len(model) && n > 0 {
				model = append(model, make([]byte, off+n-len(model))...)
			}
			copy(model[min(off, len(model)):], data)
		}
	}
	ok(t, f.Sync(), "fsync")
	wantFile(t, m.h("f"), model)
	wantFile(t, m.p("f"), model)
}

func mountAppend(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), []byte("one\n"), 0o644), "write")
	f, err := os.OpenFile(m.p("f"), os.O_APPEND|os.O_RDWR, 0)
	ok(t, err, "open")
	defer f.Close()
	_, err = f.WriteString("two\n")
	ok(t, err, "append")
	// An appender goes on where the file ends now, not where it was.
	ok(t, os.Truncate(m.p("f"), 4), "truncate")
	_, err = f.WriteString("three\n")
	ok(t, err, "append")
	ok(t, f.Sync(), "fsync")
	wantFile(t, m.h("f"), []byte("one\nthree\n"))
	wantFile(t, m.p("f"), []byte("one\nthree\n"))
}

func mountTwoAppenders(t *testing.T, m mnt) {
	const lines = 300
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	for w := range 2 {
		wg.Go(func() {
			f, err := os.OpenFile(m.p("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			for i := 0; i < lines && err == nil; i++ {
				line := fmt.Sprintf("%d %d %s\n", w, i, bytes.Repeat([]byte{'a' + byte(w)}, i%97))
				_, err = f.WriteString(line)
			}
			if err == nil {
				err = f.Close()
			}
			errs <- err
		})
	}
	wg.Wait()
	for range 2 {
		ok(t, <-errs, "appender")
	}
	got, err := os.ReadFile(m.h("log"))
	ok(t, err, "read")
	next := [2]int{}
	for line := range bytes.Lines(got) {
		var w, i int
		var pad string
		if _, err := fmt.Sscanf(string(line), "%d %d %s", &w, &i, &pad); err != nil && i%97 != 0 || w > 1 {
			t.Fatalf("broken line %q: %v", line, err)
		}
		if i != next[w] || len(pad) != i%97 {
			t.Fatalf("writer %d: line %q where %d is next", w, line, next[w])
		}
		next[w]++
	}
	if next != [2]int{lines, lines} {
		t.Errorf("lines %v, want %d each", next, lines)
	}
}

func mountTruncate(t *testing.T, m mnt) {
	data := randBytes(10000, 3)
	ok(t, os.WriteFile(m.p("f"), data, 0o644), "write")
	ok(t, os.Truncate(m.p("f"), 5000), "shrink")
	wantFile(t, m.h("f"), data[:5000])
	ok(t, os.Truncate(m.p("f"), 9000), "grow")
	want := append(append([]byte{}, data[:5000]...), make([]byte, 4000)...)
	wantFile(t, m.p("f"), want)
	wantFile(t, m.h("f"), want)

	f, err := os.OpenFile(m.p("f"), os.O_RDWR, 0)
	ok(t, err, "open")
	defer f.Close()
	ok(t, f.Truncate(10), "ftruncate")
	if st, err := f.Stat(); err != nil || st.Size() != 10 {
		t.Errorf("after ftruncate: %v, %v", st, err)
	}
	g, err := os.OpenFile(m.p("f"), os.O_WRONLY|os.O_TRUNC, 0)
	ok(t, err, "open with O_TRUNC")
	ok(t, g.Close(), "close")
	if n, err := f.ReadAt(make([]byte, 1), 0); n != 0 || err != io.EOF {
		t.Errorf("read after O_TRUNC through another descriptor: %d, %v", n, err)
	}
	wantErr(t, os.Truncate(m.p("f"), -1), "truncate to -1", unix.EINVAL)
	ok(t, os.Truncate(m.p("f"), 5<<30), "grow over 4 GiB")
	if st := lstat(t, m.h("f")); st.Size != 5<<30 {
		t.Errorf("size %d", st.Size)
	}
	_, err = f.WriteAt([]byte("far"), 5<<30)
	ok(t, err, "write over 4 GiB")
	buf := make([]byte, 4)
	if n, err := f.ReadAt(buf, 5<<30); n != 3 || string(buf[:3]) != "far" {
		t.Errorf("read over 4 GiB: %q, %v", buf[:n], err)
	}
}

func mountExclusive(t *testing.T, m mnt) {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			var f *os.File
			f, errs[i] = os.OpenFile(m.p("lock"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if errs[i] == nil {
				errs[i] = f.Close()
			}
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantErr(t, err, "O_EXCL", unix.EEXIST)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d got the lock file", won, len(errs))
	}
}

func mountMmap(t *testing.T, m mnt) {
	if m.lim.NoMmap {
		t.Skip("this process serves the mount itself")
	}
	data := randBytes(3*4096+5, 4)
	ok(t, os.WriteFile(m.p("f"), data, 0o644), "write")
	f, err := os.OpenFile(m.p("f"), os.O_RDWR, 0)
	ok(t, err, "open")
	defer f.Close()
	ro, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ, unix.MAP_PRIVATE)
	ok(t, err, "mmap for reading")
	wantBytes(t, ro, data, "mapped")
	ok(t, unix.Munmap(ro), "munmap")
	rw, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err, "mmap for writing")
	copy(rw[4090:], "through the mapping")
	copy(data[4090:], "through the mapping")
	ok(t, unix.Msync(rw, unix.MS_SYNC), "msync")
	wantFile(t, m.h("f"), data)
	ok(t, unix.Munmap(rw), "munmap")
}

func mountCopy(t *testing.T, m mnt) {
	data := randBytes(2<<20+11, 5)
	ok(t, os.WriteFile(m.p("src"), data, 0o644), "write")
	src, err := os.Open(m.p("src"))
	ok(t, err, "open")
	defer src.Close()
	dst, err := os.Create(m.p("dst"))
	ok(t, err, "create")
	_, err = io.Copy(dst, src) // copy_file_range, with its fallbacks
	ok(t, err, "copy")
	ok(t, dst.Close(), "close")
	wantFile(t, m.h("dst"), data)
}

func mountFsync(t *testing.T, m mnt) {
	f, err := os.Create(m.p("f"))
	ok(t, err, "create")
	defer f.Close()
	data := randBytes(300<<10, 6)
	_, err = f.Write(data)
	ok(t, err, "write")
	ok(t, f.Sync(), "fsync")
	wantFile(t, m.h("f"), data)
	_, err = f.WriteAt([]byte("zz"), 7)
	ok(t, err, "write")
	ok(t, unix.Fdatasync(int(f.Fd())), "fdatasync")
	copy(data[7:], "zz")
	wantFile(t, m.h("f"), data)
	d, err := os.Open(m.dir)
	ok(t, err, "open directory")
	defer d.Close()
	ok(t, d.Sync(), "fsync of a directory")
	ok(t, unix.Syncfs(int(d.Fd())), "syncfs")
	s, err := os.OpenFile(m.p("s"), os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o644)
	ok(t, err, "open with O_SYNC")
	_, err = s.WriteString("synchronous")
	ok(t, err, "write")
	wantFile(t, m.h("s"), []byte("synchronous"))
	ok(t, s.Close(), "close")
}

// seeks lists where data and holes are, as lseek tells it.
func seeks(t *testing.T, path string) []int64 {
	t.Helper()
	f, err := os.Open(path)
	ok(t, err, "open")
	defer f.Close()
	var at []int64
	for off := int64(0); len(at) < 100; {
		for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
			off, err = unix.Seek(int(f.Fd()), off, whence)
			if err != nil {
				wantErr(t, err, "lseek", unix.ENXIO)
				return at
			}
			at = append(at, off)
		}
	}
	return at
}

func mountHoles(t *testing.T, m mnt) {
	f, err := os.Create(m.p("f"))
	ok(t, err, "create")
	for _, off := range []int64{0, 1 << 20, 3 << 20} {
		_, err := f.WriteAt(randBytes(4096, 7), off)
		ok(t, err, "write")
	}
	ok(t, f.Truncate(8<<20), "truncate")
	ok(t, f.Sync(), "fsync")
	ok(t, f.Close(), "close")
	if got, want := fmt.Sprint(seeks(t, m.p("f"))), fmt.Sprint(seeks(t, m.h("f"))); got != want {
		t.Errorf("data and holes at %s, on the host %s", got, want)
	}
}

func mountFallocate(t *testing.T, m mnt) {
	data := randBytes(64<<10, 8)
	modes := []struct {
		name string
		mode uint32
		off  int64
		n    int64
	}{
		{"grow", 0, 32 << 10, 64 << 10},
		{"keep size", unix.FALLOC_FL_KEEP_SIZE, 32 << 10, 256 << 10},
		{"punch hole", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 4096, 8192},
		{"zero range", unix.FALLOC_FL_ZERO_RANGE, 4096, 8192},
		{"bad range", 0, -1, 10},
		{"empty range", 0, 0, 0},
	}
	// What the host's file system does is what the mount must do.
	run := func(path string, mode uint32, off, n int64) ([]byte, error) {
		ok(t, os.WriteFile(path, data, 0o644), "write")
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		ok(t, err, "open")
		defer f.Close()
		err = unix.Fallocate(int(f.Fd()), mode, off, n)
		got, rerr := io.ReadAll(f)
		ok(t, rerr, "read")
		return got, err
	}
	for _, c := range modes {
		want, werr := run(m.h("h"), c.mode, c.off, c.n)
		got, gerr := run(m.p("m"), c.mode, c.off, c.n)
		if !errors.Is(gerr, werr) && !errors.Is(gerr, unix.EOPNOTSUPP) {
			t.Errorf("%s: %v, on the host %v", c.name, gerr, werr)
		}
		if gerr == nil {
			wantBytes(t, got, want, c.name)
			wantFile(t, m.h("m"), want)
		} else if werr == nil {
			t.Errorf("%s: %v, on the host it works", c.name, gerr)
		}
	}
}

func mountFlock(t *testing.T, m mnt) {
	if m.lim.NoFlock {
		t.Skip("no flock here")
	}
	ok(t, os.WriteFile(m.p("f"), nil, 0o644), "create")
	a, err := os.Open(m.p("f"))
	ok(t, err, "open")
	defer a.Close()
	b, err := os.Open(m.p("f"))
	ok(t, err, "open")
	defer b.Close()
	ok(t, unix.Flock(int(a.Fd()), unix.LOCK_EX|unix.LOCK_NB), "flock")
	wantErr(t, unix.Flock(int(b.Fd()), unix.LOCK_SH|unix.LOCK_NB), "second flock", unix.EWOULDBLOCK)
	ok(t, unix.Flock(int(a.Fd()), unix.LOCK_UN), "unlock")
	ok(t, unix.Flock(int(b.Fd()), unix.LOCK_SH|unix.LOCK_NB), "flock after unlock")
}
