package hostfs

import (
	"sync"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// openFlags are the flags of an open that the guest may choose.
const openFlags = unix.O_ACCMODE | unix.O_APPEND | unix.O_TRUNC | unix.O_EXCL | unix.O_SYNC | unix.O_DSYNC | unix.O_DIRECTORY

// A handle is an open file or directory.
type handle struct {
	node fsrpc.NodeID
	fd   int
	dir  bool

	mu     sync.RWMutex // held for reading while fd is used
	closed bool

	seek sync.Mutex // directories: one lseek and getdents at a time
	pos  int64      // directories: where fd stands; -1: unknown
}

// close waits for the operations on h to end.
func (h *handle) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return unix.EBADF
	}
	h.closed = true
	return unix.Close(h.fd)
}

// handle finds an open file; the caller ends with h.mu.RUnlock.
func (fs *FS) handle(id fsrpc.HandleID) (*handle, error) {
	fs.hmu.RLock()
	h := fs.handles[id]
	fs.hmu.RUnlock()
	if h == nil {
		return nil, unix.EBADF
	}
	h.mu.RLock()
	if h.closed {
		h.mu.RUnlock()
		return nil, unix.EBADF
	}
	return h, nil
}

// reserve takes the room for one handle; install or unreserve must follow.
func (fs *FS) reserve() error {
	fs.hmu.Lock()
	defer fs.hmu.Unlock()
	if fs.handles == nil {
		return unix.EBADF
	}
	if len(fs.handles)+fs.reserved >= fs.cfg.MaxHandles {
		if fs.openFull.due() {
			fs.log.Warn("the guest has more files of a share open than are allowed: it gets ENFILE",
				"share", fs.cfg.Root, "limit", fs.cfg.MaxHandles)
		}
		return unix.ENFILE
	}
	fs.reserved++
	return nil
}

func (fs *FS) unreserve() {
	fs.hmu.Lock()
	defer fs.hmu.Unlock()
	fs.reserved--
}

func (fs *FS) install(n *node, fd int) fsrpc.HandleID {
	fs.hmu.Lock()
	defer fs.hmu.Unlock()
	fs.reserved--
	fs.lastHandle++
	if fs.handles == nil { // closed meanwhile
		_ = unix.Close(fd)
		return fs.lastHandle
	}
	fs.handles[fs.lastHandle] = &handle{node: n.id, fd: fd, dir: n.isDir(), pos: -1}
	return fs.lastHandle
}

// checkFlags lets pass what the guest may ask for.
func (fs *FS) checkFlags(flags uint32) error {
	if flags&^uint32(openFlags) != 0 || flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return unix.EINVAL
	}
	if fs.cfg.ReadOnly && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0) {
		return unix.EROFS
	}
	return nil
}

// reopen opens a node for reading or writing. Only regular files and
// directories ever come to the open.
func (fs *FS) reopen(n *node, flags uint32) (int, error) {
	switch {
	case n.isSymlink():
		return -1, unix.ELOOP
	case n.isSpecial():
		return -1, unix.EPERM
	case n.isDir() && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0):
		return -1, unix.EISDIR
	case n.isFile() && flags&unix.O_DIRECTORY != 0:
		return -1, unix.ENOTDIR
	}
	for {
		fd, err := unix.Open(procPath(n.fd), int(flags&^unix.O_EXCL)|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openNode opens a node and makes a handle for it.
func (fs *FS) openNode(n *node, flags uint32) (fsrpc.HandleID, error) {
	if err := fs.reserve(); err != nil {
		return 0, err
	}
	fd, err := fs.reopen(n, flags)
	if err != nil {
		fs.unreserve()
		return 0, err
	}
	return fs.install(n, fd), nil
}
