package virtioserial

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxWrite is what virtio_console takes in one write(2).
const maxWrite = 32 << 10

// ErrPeerGone says that the host closed its end of the port. A Port goes on
// after it: the next Read waits for the next host.
var ErrPeerGone = errors.New("the host has closed its end of the virtio-serial port")

// Port is the guest's end of a port.
type Port struct {
	path string
	file *os.File
	raw  syscall.RawConn

	// seen is whether a host was there when Read last looked.
	seen   atomic.Bool
	closed atomic.Bool

	// wmu keeps concurrent writes whole.
	wmu sync.Mutex
}

var _ io.ReadWriteCloser = (*Port)(nil)

// Open opens the device of a port, as returned by [Find] or [Wait].
func Open(path string) (*Port, error) {
	// O_NONBLOCK makes os.File use the netpoller, which is what gives deadlines.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EMFILE):
		return nil, fmt.Errorf("virtioserial: open port: %w: "+
			"another process has it open (only one may); end that one first", err)
	case err != nil:
		return nil, fmt.Errorf("virtioserial: open port: %w", err)
	}
	return newPort(f)
}

func newPort(f *os.File) (*Port, error) {
	// A file the netpoller doesn't take would block for ever in Read.
	if err := f.SetDeadline(time.Time{}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("virtioserial: %s can't be polled, so it is no port: %w", f.Name(), err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("virtioserial: open port: %w", err)
	}
	return &Port{path: f.Name(), file: f, raw: raw}, nil
}

// Read waits for bytes and returns up to a page of them. It returns
// [ErrPeerGone] once each time the host goes away, and then waits for the next.
func (p *Port) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	var n int
	var rerr error
	err := p.raw.Read(func(fd uintptr) (done bool) {
		n, rerr = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), b) })
		switch {
		case rerr == nil && n == 0: // no host
			if p.seen.Swap(false) {
				rerr = ErrPeerGone
				return true
			}
			return false
		case errors.Is(rerr, unix.EAGAIN): // a host, but no bytes
			p.seen.Store(true)
			return false
		case rerr == nil:
			p.seen.Store(true)
		}
		return true
	})
	if err == nil {
		err = rerr
	}
	return max(n, 0), p.wrap("read", err)
}

// Write writes all of b, waiting while the host is slow. Without a host it
// returns [ErrPeerGone]; part of b may have gone to a host that was there.
func (p *Port) Write(b []byte) (int, error) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	done := 0
	for done < len(b) {
		n, err := p.writeSome(b[done:min(len(b), done+maxWrite)])
		done += n
		if err != nil {
			return done, p.wrap("write", err)
		}
	}
	return done, nil
}

func (p *Port) writeSome(b []byte) (int, error) {
	var n int
	var werr error
	err := p.raw.Write(func(fd uintptr) (done bool) {
		n, werr = ignoringEINTR(func() (int, error) { return unix.Write(int(fd), b) })
		switch {
		case errors.Is(werr, unix.EAGAIN):
			if hungUp(fd) {
				werr = ErrPeerGone
				return true
			}
			return false
		case errors.Is(werr, unix.EPIPE):
			werr = fmt.Errorf("%w: %w", ErrPeerGone, werr)
		case werr == nil && n == 0:
			// The driver's queue was full after all; a completed write wakes us.
			return false
		}
		return true
	})
	if err == nil {
		err = werr
	}
	return max(n, 0), err
}

// HostConnected reports whether the host has its end open at this moment.
func (p *Port) HostConnected() (bool, error) {
	var up bool
	err := p.raw.Control(func(fd uintptr) { up = !hungUp(fd) })
	return up, p.wrap("poll", err)
}

// SetReadDeadline sets the time after which Read, also one that waits already,
// fails with os.ErrDeadlineExceeded; the zero time is never.
func (p *Port) SetReadDeadline(t time.Time) error {
	return p.wrap("set deadline", p.file.SetReadDeadline(t))
}

// SetWriteDeadline is SetReadDeadline for Write.
func (p *Port) SetWriteDeadline(t time.Time) error {
	return p.wrap("set deadline", p.file.SetWriteDeadline(t))
}

// Close closes the port; Reads and Writes that wait return os.ErrClosed.
func (p *Port) Close() error {
	if p.closed.Swap(true) {
		return p.wrap("close", os.ErrClosed)
	}
	return p.wrap("close", p.file.Close())
}

// Path returns the path of the device.
func (p *Port) Path() string { return p.path }

func (p *Port) wrap(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case p.closed.Load() && !errors.Is(err, ErrPeerGone):
		// The netpoller's own error for this has no exported name.
		err = os.ErrClosed
	}
	return fmt.Errorf("virtioserial: %s %s: %w", op, p.path, err)
}

func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := ignoringEINTR(func() (int, error) { return unix.Poll(fds, 0) })
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
