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
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxWrite is what virtio_console takes in one write(2).
	maxWrite = 32 << 10
	// page is what it gives in one read(2), at most.
	page = 4 << 10
)

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

// Read waits for bytes and returns what is there: virtio_console hands out a page at
// most at a time, so it asks again while pages come whole. It returns [ErrPeerGone]
// once each time the host goes away, and then waits for the next.
func (p *Port) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	done := 0
	var rerr error
	err := p.raw.Read(func(fd uintptr) bool {
		for done < len(b) {
			n, err := readNow(fd, b[done:])
			switch {
			case err == nil && n > 0:
				p.seen.Store(true)
				if done += n; n < page {
					return true // there is hardly more
				}
				continue
			case done > 0: // the next Read will find it again
				return true
			case err == nil: // no host
				if !p.seen.Swap(false) {
					return false
				}
				rerr = ErrPeerGone
			case errors.Is(err, unix.EAGAIN): // a host, but no bytes
				p.seen.Store(true)
				return false
			default:
				rerr = err
			}
			return true
		}
		return true
	})
	if err == nil {
		err = rerr
	}
	return done, p.wrap("read", err)
}

// Write writes all of b, waiting while the host is slow. Without a host it
// returns [ErrPeerGone]; part of b may have gone to a host that was there.
func (p *Port) Write(b []byte) (int, error) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	done := 0
	var werr error
	err := p.raw.Write(func(fd uintptr) bool {
		for done < len(b) && werr == nil {
			n, err := writeNow(fd, b[done:min(len(b), done+maxWrite)])
			switch {
			case errors.Is(err, unix.EAGAIN):
				if !hungUp(fd) {
					return false
				}
				werr = ErrPeerGone
			case errors.Is(err, unix.EPIPE):
				werr = fmt.Errorf("%w: %w", ErrPeerGone, err)
			case err != nil:
				werr = err
			case n == 0:
				// The driver's queue was full after all; a completed write wakes us.
				return false
			}
			done += n
		}
		return true
	})
	if err == nil {
		err = werr
	}
	return done, p.wrap("write", err)
}

// WaitHost waits until the host has its end open, as far as the driver knows. That lags
// behind: a host's first bytes can be read before the driver has been told of the host,
// and until then Write returns [ErrPeerGone]. The write deadline breaks it.
func (p *Port) WaitHost() error {
	return p.wrap("wait for the host", p.raw.Write(func(fd uintptr) bool { return !hungUp(fd) }))
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

// readNow reads without waiting. The descriptor doesn't block, so the scheduler needn't
// be told: under emulation that costs as much as the system call.
func readNow(fd uintptr, b []byte) (int, error) {
	return ignoringEINTR(func() (int, error) {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		return result(n, errno)
	})
}

// writeNow writes without waiting; b isn't empty.
func writeNow(fd uintptr, b []byte) (int, error) {
	return ignoringEINTR(func() (int, error) {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		return result(n, errno)
	})
}

func result(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
