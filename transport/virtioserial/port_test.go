package virtioserial

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

// fifoPort is a Port on the reading end of a FIFO, whose read(2) and poll(2)
// behave as a port's: 0 bytes and POLLHUP without a writer, EAGAIN with one.
func fifoPort(t *testing.T) (p *Port, connect func() *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = newPort(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, func() *os.File {
		t.Helper()
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
}

// socketPort is a Port on one end of a socket pair, for what a FIFO can't do.
func socketPort(t *testing.T) (*Port, *net.UnixConn) {
	t.Helper()
	host, peer, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(peer.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = peer.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	p, err := newPort(os.NewFile(uintptr(fd), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(); _ = host.Close() })
	return p, host
}

type readResult struct {
	b   []byte
	err error
}

func readAsync(p *Port) <-chan readResult {
	c := make(chan readResult, 1)
	go func() {
		b := make([]byte, 8192)
		n, err := p.Read(b)
		c <- readResult{b[:n], err}
	}()
	return c
}

func TestReadWaitsForAPeer(t *testing.T) {
	p, connect := fifoPort(t)
	c := readAsync(p)
	select {
	case r := <-c:
		t.Fatalf("Read without a peer returned %q, %v", r.b, r.err)
	case <-time.After(30 * time.Millisecond):
	}
	w := connect()
	defer w.Close()
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if r := <-c; r.err != nil || string(r.b) != "hello" {
		t.Fatalf("Read = %q, %v", r.b, r.err)
	}
}

// TestPeerGoneOncePerTransition replaces the peer hundreds of times. Each time
// the bytes come first, then ErrPeerGone once, then Read waits.
func TestPeerGoneOncePerTransition(t *testing.T) {
	p, connect := fifoPort(t)
	for i := range 300 {
		w := connect()
		if _, err := w.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		if up, err := p.HostConnected(); err != nil || !up {
			t.Fatalf("%d: HostConnected = %v, %v", i, up, err)
		}
		if r := <-readAsync(p); r.err != nil || string(r.b) != "x" {
			t.Fatalf("%d: Read = %q, %v", i, r.b, r.err)
		}
		c := readAsync(p)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if r := <-c; !errors.Is(r.err, ErrPeerGone) {
			t.Fatalf("%d: Read after the peer went = %q, %v", i, r.b, r.err)
		}
		if up, err := p.HostConnected(); err != nil || up {
			t.Fatalf("%d: HostConnected = %v, %v", i, up, err)
		}
	}
	if err := p.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if r := <-readAsync(p); !errors.Is(r.err, os.ErrDeadlineExceeded) {
		t.Fatalf("second Read after the peer went = %q, %v", r.b, r.err)
	}
}

// TestNoBusyLoop checks that waiting without a peer, when poll(2) says POLLHUP
// all the time, costs no processor time.
func TestNoBusyLoop(t *testing.T) {
	p, connect := fifoPort(t)
	_ = connect().Close() // from now on POLLHUP
	c := readAsync(p)
	before := cpu(t)
	<-time.After(300 * time.Millisecond)
	if used := cpu(t) - before; used > 150*time.Millisecond {
		t.Errorf("waiting 300ms took %v of processor time", used)
	}
	_ = p.Close()
	if r := <-c; !errors.Is(r.err, os.ErrClosed) {
		t.Fatalf("Read of a closed port: %v", r.err)
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func TestDeadlinesAndClose(t *testing.T) {
	p, _ := socketPort(t)
	c := readAsync(p)
	if err := p.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if r := <-c; !errors.Is(r.err, os.ErrDeadlineExceeded) {
		t.Fatalf("waiting Read after its deadline was moved to the past: %v", r.err)
	}
	big := make([]byte, 8<<20)
	if err := p.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := p.Write(big)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(big) {
		t.Fatalf("Write to a peer that doesn't read = %d, %v", n, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("second Close: %v", err)
	}
	if _, err := p.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("Write after Close: %v", err)
	}
	if n, err := p.Read(nil); n != 0 || err != nil {
		t.Fatalf("Read(nil) = %d, %v", n, err)
	}
}

func TestBulkBothWays(t *testing.T) {
	p, host := socketPort(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	errs := make(chan error, 2)
	go func() { _, err := p.Write(want); errs <- err }()
	go func() { _, err := host.Write(want); errs <- err }()
	fromPort := make(chan []byte, 1)
	go func() {
		b := make([]byte, len(want))
		_, err := io.ReadFull(host, b)
		errs <- err
		fromPort <- b
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("host to guest: %v", err)
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(<-fromPort, want) {
		t.Fatal("guest to host: other bytes")
	}
}

func TestWriteWithoutPeer(t *testing.T) {
	p, host := socketPort(t)
	_ = host.Close()
	if _, err := p.Write([]byte("x")); !errors.Is(err, ErrPeerGone) {
		t.Fatalf("Write = %v", err)
	}
	// A pipe whose buffer is full and whose reader goes while a Write waits.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	wp, err := newPort(w)
	if err != nil {
		t.Fatal(err)
	}
	defer wp.Close()
	c := make(chan error, 1)
	go func() { _, err := wp.Write(make([]byte, 1<<20)); c <- err }()
	<-time.After(10 * time.Millisecond)
	_ = r.Close()
	if err := <-c; !errors.Is(err, ErrPeerGone) {
		t.Fatalf("waiting Write = %v", err)
	}
}

func TestWaitHost(t *testing.T) {
	p, _ := socketPort(t)
	if err := p.WaitHost(); err != nil {
		t.Fatal(err)
	}
	p, connect := fifoPort(t)
	_ = connect().Close() // from now on POLLHUP
	_ = p.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if err := p.WaitHost(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("without a host: %v", err)
	}
	_ = p.SetWriteDeadline(time.Time{})
	c := make(chan error, 1)
	go func() { c <- p.WaitHost() }()
	<-time.After(10 * time.Millisecond)
	_ = p.Close()
	if err := <-c; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("closed while it waits: %v", err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("Open of nothing: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Fatal("Open took a regular file")
	}
	// A pseudo-terminal is a character device, as a port is.
	master, slave := openPTY(t)
	defer master.Close()
	p, err := Open(slave)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Write([]byte("up")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(master, b); err != nil || string(b) != "up" {
		t.Fatalf("from the port: %q, %v", b, err)
	}
	if _, err := master.WriteString("down\n"); err != nil {
		t.Fatal(err)
	}
	if r := <-readAsync(p); r.err != nil || string(r.b) != "down\n" {
		t.Fatalf("to the port: %q, %v", r.b, r.err)
	}
}

func openPTY(t *testing.T) (*os.File, string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		needs.Missing(t, "no pseudo-terminals: %v", err)
	}
	var unlock int32
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, int(unlock)); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), filepath.Join("/dev/pts", strconv.Itoa(n))
}

func TestListen(t *testing.T) {
	// Longer than a socket address may be.
	dir := filepath.Join(t.TempDir(), "a-rather-long-directory-name-to-make-the-path-exceed-the-limit-of-one-hundred-and-seven-bytes")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", fi.Mode(), err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Fatalf("second Listen: %v", err)
	}
	// A stale one: the listener ends without removing its path.
	_ = l.UnixListener.Close()
	l2, err := Listen(path)
	if err != nil {
		t.Fatalf("Listen over a stale socket: %v", err)
	}
	_ = l.Close() // must leave the new one's path alone
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	_ = l2.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("after Close: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Fatal("Listen replaced a file")
	}
}

// TestListenRace lets many fight for one stale path: one wins.
func TestListenRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	won := make(chan *Listener, 8)
	for range 8 {
		go func() {
			l, err := Listen(path)
			if err != nil && !errors.Is(err, ErrInUse) {
				t.Error(err)
			}
			won <- l
		}()
	}
	var l *Listener
	for range 8 {
		if got := <-won; got != nil {
			if l != nil {
				t.Error("two listen on one path")
			}
			l = got
		}
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = l.Close()
}
