// Package touched notes which files of a mount are opened and read, by whoever: from what
// the kernel tells of them (fanotify), since the file system itself isn't asked for what the
// kernel has in its caches.
//
// A file counts as opened when any process but this one has opened it, be it only to look
// at its attributes (smbd opens so with O_PATH), and as read when a byte of it was read, or
// a directory was listed. How many bytes were read isn't known; a file that is mapped into
// memory without being read is opened and no more. A name that was only looked up, without
// an open, isn't noted, and neither are names that don't exist.
package touched

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxFiles bounds the files that are noted.
const maxFiles = 1 << 19

// A File is one that was touched. Path is relative to the mount.
type File struct {
	Path string
	Read bool
}

// A Watch notes files from [Start] to Close. Its methods may be called by any goroutine.
type Watch struct {
	dir  string
	file *os.File
	raw  syscall.RawConn
	done chan struct{}

	mu      sync.Mutex
	buf     [64 << 10]byte
	files   map[string]*File
	partial bool
}

// ErrUnsupported says that this kernel or user can't have it.
var ErrUnsupported = errors.New("the kernel doesn't tell which files are opened")

// Start begins to watch the mount that dir is the top of. It needs root.
func Start(dir string) (*Watch, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE,
		unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE|unix.O_NOATIME)
	if err != nil {
		return nil, fmt.Errorf("%w: fanotify: %w", ErrUnsupported, err)
	}
	file := os.NewFile(uintptr(fd), "fanotify")
	mask := uint64(unix.FAN_OPEN | unix.FAN_ACCESS | unix.FAN_ONDIR)
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, mask, unix.AT_FDCWD, dir); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%w: fanotify of %s: %w", ErrUnsupported, dir, err)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	w := &Watch{dir: dir, file: file, raw: raw, done: make(chan struct{}), files: map[string]*File{}}
	go w.run()
	return w, nil
}

// run takes events as they come, until Close.
func (w *Watch) run() {
	defer close(w.done)
	for {
		var last error
		if err := w.raw.Read(func(fd uintptr) bool {
			last = w.drain(int(fd))
			return !errors.Is(last, unix.EAGAIN)
		}); err != nil || last != nil {
			return
		}
	}
}

// drain takes what events there are, until an error, which is EAGAIN as a rule.
func (w *Watch) drain(fd int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		n, err := unix.Read(fd, w.buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		w.take(w.buf[:n])
	}
}

const eventSize = int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))

// take notes events. mu is held.
func (w *Watch) take(b []byte) {
	self := int32(os.Getpid())
	for len(b) >= eventSize {
		e := *(*unix.FanotifyEventMetadata)(unsafe.Pointer(&b[0])) // the kernel's own layout
		if int(e.Event_len) < eventSize || int(e.Event_len) > len(b) {
			return
		}
		b = b[e.Event_len:]
		if e.Mask&unix.FAN_Q_OVERFLOW != 0 {
			w.partial = true
		}
		if e.Fd < 0 {
			continue
		}
		if e.Pid != self {
			w.note(&e)
		}
		_ = unix.Close(int(e.Fd))
	}
}

func (w *Watch) note(e *unix.FanotifyEventMetadata) {
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(e.Fd)))
	if err != nil {
		return
	}
	path, err := filepath.Rel(w.dir, strings.TrimSuffix(target, " (deleted)"))
	if err != nil || strings.HasPrefix(path, "..") {
		return
	}
	f := w.files[path]
	if f == nil {
		if len(w.files) >= maxFiles {
			w.partial = true
			return
		}
		f = &File{Path: path}
		w.files[path] = f
	}
	if e.Mask&unix.FAN_ACCESS != 0 {
		f.Read = true
	}
}

// Files returns what has been touched until now, by path, and whether some of it is
// missing.
func (w *Watch) Files() (list []File, partial bool) {
	_ = w.raw.Control(func(fd uintptr) { _ = w.drain(int(fd)) })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.files {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return list, w.partial
}

// Close ends the watch.
func (w *Watch) Close() error {
	err := w.file.Close()
	<-w.done
	return err
}
