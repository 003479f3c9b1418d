package fsrpctest

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// open opens a file of the test's for as long as it runs.
func (m mnt) open(t *testing.T, name string, flags int) int {
	t.Helper()
	fd, err := unix.Open(m.p(name), flags|unix.O_CLOEXEC, 0o644)
	ok(t, err, "open %s with flags %#x", name, flags)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func mountOpenFlags(t *testing.T, m mnt) {
	data := randBytes(20000, 11)
	ok(t, os.WriteFile(m.p("f"), data, 0o644), "write")
	ok(t, os.Symlink("f", m.p("l")), "symlink")
	ok(t, os.Mkdir(m.p("d"), 0o755), "mkdir")
	for _, flags := range []int{unix.O_SYNC, unix.O_DSYNC, unix.O_NOATIME, unix.O_NONBLOCK, unix.O_NOCTTY} {
		fd := m.open(t, "f", unix.O_RDWR|flags)
		_, err := unix.Pwrite(fd, []byte{byte(flags), 1}, 100)
		ok(t, err, "write with flags %#x", flags)
		data[100], data[101] = byte(flags), 1
		wantFile(t, m.h("f"), data)
	}
	_, err := unix.Open(m.p("l"), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	wantErr(t, err, "O_NOFOLLOW on a link", unix.ELOOP)
	place := m.open(t, "l", unix.O_PATH|unix.O_NOFOLLOW)
	var st unix.Stat_t
	ok(t, unix.Fstat(place, &st), "fstat of O_PATH")
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("O_PATH|O_NOFOLLOW on a link: mode %#o", st.Mode)
	}
	_, err = unix.Read(place, make([]byte, 1))
	wantErr(t, err, "read from O_PATH", unix.EBADF)
	_, err = unix.Open(m.p("d"), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	wantErr(t, err, "O_CREAT on a directory", unix.EISDIR)
	_, err = unix.Open(m.p("l"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	wantErr(t, err, "O_EXCL on a link", unix.EEXIST)
	ro := m.open(t, "f", unix.O_RDONLY)
	wantErr(t, unix.Ftruncate(ro, 5), "ftruncate of what is open for reading", unix.EINVAL, unix.EBADF)
	mountDirect(t, m)
	// A file without a name: where it can't be made, a program takes another way.
	fd, err := unix.Open(m.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	} else {
		wantErr(t, err, "O_TMPFILE", unix.EOPNOTSUPP)
	}
}

// mountDirect: O_DIRECT goes past the cache, and others see what it wrote.
func mountDirect(t *testing.T, m mnt) {
	const block = 4096
	buf := make([]byte, 3*block)
	at := -int(uintptr(unsafe.Pointer(&buf[0]))) & (block - 1) // aligned in memory
	b := buf[at : at+block]
	ok(t, os.WriteFile(m.p("direct"), randBytes(4*block, 12), 0o644), "write")
	cached := m.open(t, "direct", unix.O_RDONLY)
	_, err := unix.Pread(cached, make([]byte, 4*block), 0)
	ok(t, err, "read into the cache")
	fd, err := unix.Open(m.p("direct"), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		wantErr(t, err, "O_DIRECT", unix.EINVAL) // not every file system has it
		return
	}
	defer func() { _ = unix.Close(fd) }()
	copy(b, randBytes(block, 13))
	_, err = unix.Pwrite(fd, b, block)
	ok(t, err, "write with O_DIRECT")
	got := make([]byte, block)
	_, err = unix.Pread(cached, got, block)
	ok(t, err, "read through the cache")
	wantBytes(t, got, b, "written with O_DIRECT, read through the cache")
	runtime.KeepAlive(buf)
}

// fcntl locks are a process's, OFD locks an open file's: the latter can be tried in one.
func mountLocks(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), make([]byte, 100), 0o644), "write")
	a, b := m.open(t, "f", unix.O_RDWR), m.open(t, "f", unix.O_RDWR)
	set := func(fd, cmd int, typ int16, start, n int64) error {
		return unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: typ, Start: start, Len: n})
	}
	ok(t, set(a, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 50), "OFD lock")
	wantErr(t, set(b, unix.F_OFD_SETLK, unix.F_RDLCK, 40, 5), "another's OFD lock within it", unix.EAGAIN)
	ok(t, set(b, unix.F_OFD_SETLK, unix.F_WRLCK, 50, 10), "another's OFD lock beside it")
	wantErr(t, set(b, unix.F_SETLK, unix.F_WRLCK, 0, 1), "a process's lock within it", unix.EAGAIN, unix.EACCES)
	asked := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 0}
	ok(t, unix.FcntlFlock(uintptr(b), unix.F_OFD_GETLK, &asked), "F_OFD_GETLK")
	if asked.Type != unix.F_WRLCK || asked.Start != 0 || asked.Len != 50 {
		t.Errorf("F_OFD_GETLK: %+v", asked)
	}
	ok(t, set(a, unix.F_OFD_SETLK, unix.F_UNLCK, 0, 0), "unlock")
	ok(t, set(b, unix.F_OFD_SETLK, unix.F_RDLCK, 40, 5), "OFD lock after unlock")
	ok(t, set(b, unix.F_SETLK, unix.F_WRLCK, 0, 1), "a process's lock")
	ok(t, set(b, unix.F_SETLK, unix.F_UNLCK, 0, 0), "unlock it")
}

func mountCopyFileRange(t *testing.T, m mnt) {
	data := randBytes(300<<10, 14)
	ok(t, os.WriteFile(m.p("src"), data, 0o644), "write")
	src, dst := m.open(t, "src", unix.O_RDONLY), m.open(t, "dst", unix.O_RDWR|unix.O_CREAT)
	want := make([]byte, 1000)
	off, to := int64(1234), int64(1000)
	for left := 200 << 10; left > 0; {
		n, err := unix.CopyFileRange(src, &off, dst, &to, left, 0)
		ok(t, err, "copy_file_range")
		if n == 0 {
			t.Fatalf("copy_file_range ended with %d bytes left", left)
		}
		left -= n
	}
	want = append(want, data[1234:1234+200<<10]...)
	ok(t, unix.Fsync(dst), "fsync")
	wantFile(t, m.h("dst"), want)
	wantFile(t, m.p("dst"), want)
}

func mountXattrs(t *testing.T, m mnt) {
	ok(t, os.WriteFile(m.p("f"), nil, 0o644), "create")
	if m.lim.Plain {
		return
	}
	_, err := unix.Getxattr(m.p("f"), "user.none", make([]byte, 10))
	wantErr(t, err, "getxattr", unix.ENODATA)
	if n, err := unix.Listxattr(m.p("f"), make([]byte, 10)); n != 0 || err != nil {
		t.Errorf("listxattr: %d, %v", n, err)
	}
	wantErr(t, unix.Setxattr(m.p("f"), "user.x", []byte("y"), 0), "setxattr", unix.EOPNOTSUPP)
	wantErr(t, unix.Removexattr(m.p("f"), "user.x"), "removexattr", unix.EOPNOTSUPP, unix.ENODATA)
}

// inotify tells of what is done through the mount.
func mountInotify(t *testing.T, m mnt) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	ok(t, err, "inotify_init")
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.InotifyAddWatch(fd, m.dir, unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_DELETE)
	ok(t, err, "inotify_add_watch")
	ok(t, os.WriteFile(m.p("a"), []byte("x"), 0o644), "write")
	ok(t, os.Rename(m.p("a"), m.p("b")), "rename")
	ok(t, os.Remove(m.p("b")), "remove")
	var seen uint32
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	ok(t, err, "read events")
	for off := 0; off+unix.SizeofInotifyEvent <= n; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&buf[off]))
		seen |= e.Mask
		off += unix.SizeofInotifyEvent + int(e.Len)
	}
	if want := uint32(unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_DELETE); seen&want != want {
		t.Errorf("events %#x, want %#x", seen, want)
	}
}

// What one program maps, another writes to with write(2), and the other way round.
func mountMmapAndWrite(t *testing.T, m mnt) {
	if m.lim.NoMmap {
		t.Skip("this process serves the mount itself")
	}
	data := randBytes(5*4096+77, 15)
	ok(t, os.WriteFile(m.p("f"), data, 0o644), "write")
	mapped, other := m.open(t, "f", unix.O_RDWR), m.open(t, "f", unix.O_RDWR)
	mem, err := unix.Mmap(mapped, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err, "mmap")
	defer func() { _ = unix.Munmap(mem) }()
	wantBytes(t, mem, data, "mapped")
	for i := range 50 {
		off := i * 401
		text := fmt.Appendf(nil, "write %d", i)
		copy(data[off:], text)
		if i%2 == 0 {
			_, err := unix.Pwrite(other, text, int64(off))
			ok(t, err, "write")
			wantBytes(t, mem, data, "mapped, after a write")
		} else {
			copy(mem[off:], text)
			got := make([]byte, len(text))
			_, err := unix.Pread(other, got, int64(off))
			ok(t, err, "read")
			wantBytes(t, got, text, "read, after a change of the mapping")
		}
	}
	ok(t, unix.Msync(mem, unix.MS_SYNC), "msync")
	wantFile(t, m.h("f"), data)

	// What is open for appending, too, where it can be mapped at all.
	end := m.open(t, "f", unix.O_RDWR|unix.O_APPEND)
	tail, err := unix.Mmap(end, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		wantErr(t, err, "mmap of what is open for appending", unix.ENODEV)
		return
	}
	defer func() { _ = unix.Munmap(tail) }()
	copy(tail[5000:], "not at the end")
	copy(data[5000:], "not at the end")
	ok(t, unix.Msync(tail, unix.MS_SYNC), "msync")
	wantFile(t, m.h("f"), data)
}

// What is closed is on the host, all of it, whoever wrote it and however.
func mountOnHostAfterClose(t *testing.T, m mnt) {
	for i := range 60 {
		name := fmt.Sprintf("f%d", i)
		f, err := os.OpenFile(m.p(name), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644)
		ok(t, err, "create")
		var want []byte
		for j := range 40 {
			piece := randBytes(1+(i*j*97)%3000, uint64(i*100+j))
			switch j % 8 {
			case 6: // over what was written
				off := len(want) / 2
				_, err = f.WriteAt(piece, int64(off))
				want = append(want, make([]byte, max(0, off+len(piece)-len(want)))...)
				copy(want[off:], piece)
			case 7:
				err = f.Truncate(int64(len(want) / 2))
				want = want[:len(want)/2]
			default:
				_, err = f.WriteAt(piece, int64(len(want)))
				want = append(want, piece...)
			}
			ok(t, err, "step %d", j)
		}
		ok(t, f.Close(), "close")
		got, err := os.ReadFile(m.h(name))
		ok(t, err, "read on the host")
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: on the host %d bytes, want %d", name, len(got), len(want))
		}
	}
}
