package virtioserial

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// sockBuf is asked for as the size of a socket's buffers, in bytes. It keeps
// QEMU, which takes 4 KiB a turn, busy for some dozens of turns, and is small
// enough that a small request doesn't wait long behind bulk data in it.
const sockBuf = 256 << 10

// ErrInUse says that something already listens on a socket's path.
var ErrInUse = errors.New("another process listens there")

// Socketpair returns the two ends of a connected pair of stream sockets: host to
// keep, peer to hand to QEMU (exec.Cmd.ExtraFiles). Close peer once QEMU has
// been started, else the end of QEMU is never seen on host.
func Socketpair() (host *net.UnixConn, peer *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("virtioserial: make a socket pair: %w", err)
	}
	for _, fd := range fds {
		// The kernel silently takes less if its limit is lower; any size works.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sockBuf)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sockBuf)
	}
	mine := os.NewFile(uintptr(fds[0]), "virtioserial-host")
	peer = os.NewFile(uintptr(fds[1]), "virtioserial-peer")
	c, err := net.FileConn(mine) // duplicates the descriptor
	_ = mine.Close()
	if err != nil {
		_ = peer.Close()
		return nil, nil, fmt.Errorf("virtioserial: make a socket pair: %w", err)
	}
	return c.(*net.UnixConn), peer, nil
}

// Listener is a listening socket in the file system. Close removes its path if
// it still is this socket's.
type Listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

// Listen makes a socket at path that only the owner may connect to (mode 0600)
// from the first moment on. A socket nobody listens on any more is replaced; one
// that is in use, or anything that is no socket, is left alone and an error.
//
// path may be longer than the 107 bytes of a socket address, but whoever
// connects then needs a trick of their own.
func Listen(path string) (*Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("virtioserial: listen on %s: %w", path, err)
	}
	defer dir.Close()
	// Between finding a stale socket and replacing it nobody else may do the same.
	if _, err := ignoringEINTR(func() (int, error) { return 0, unix.Flock(int(dir.Fd()), unix.LOCK_EX) }); err != nil {
		return nil, fmt.Errorf("virtioserial: listen on %s: lock the directory: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("virtioserial: listen on %s: %w", path, err)
	}
	l, err := listenInPlace(path)
	if err != nil {
		return nil, fmt.Errorf("virtioserial: listen on %s: %w", path, err)
	}
	return l, nil
}

// listenInPlace binds in a directory of our own, where nobody can connect while
// the mode isn't set, and links the socket to where it belongs.
func listenInPlace(path string) (*Listener, error) {
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".sock-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	d, err := os.Open(tmp)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	ul, err := net.ListenUnix("unix", sockAddr(d, "s"))
	if err != nil {
		return nil, err
	}
	ul.SetUnlinkOnClose(false)
	l := &Listener{UnixListener: ul, path: path}
	bound := filepath.Join(tmp, "s")
	if err = os.Chmod(bound, 0o600); err == nil {
		if l.info, err = os.Lstat(bound); err == nil {
			err = os.Link(bound, path) // fails if there is something by now
		}
	}
	if err != nil {
		_ = ul.Close()
		return nil, err
	}
	return l, nil
}

// Path returns the path given to [Listen].
func (l *Listener) Path() string { return l.path }

// Close stops listening and removes the socket.
func (l *Listener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) && now.ModTime().Equal(l.info.ModTime()) {
			_ = os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}

func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("there is something that is no socket (%v): give another path or remove it", fi.Mode().Type())
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	c, err := net.DialUnix("unix", nil, sockAddr(d, filepath.Base(path)))
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("%w: end it or give another path", ErrInUse)
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, unix.EAGAIN): // its backlog is full: somebody is there
		return fmt.Errorf("%w: end it or give another path", ErrInUse)
	}
	return fmt.Errorf("find out whether the socket is in use: %w", err)
}

// sockAddr names a file in dir without the length limit of socket addresses.
func sockAddr(dir *os.File, name string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), name)}
}
