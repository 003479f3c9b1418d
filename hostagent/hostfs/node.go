package hostfs

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// resolve is how every name is looked up; see the package doc.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// inode is what makes a file the same as another.
type inode struct{ dev, ino uint64 }

func keyOf(st *unix.Stat_t) inode { return inode{st.Dev, st.Ino} }

// A node is an inode that the mount side knows.
type node struct {
	id   fsrpc.NodeID
	key  inode
	fd   int    // O_PATH
	kind uint32 // S_IFMT part of the mode; an inode's never changes

	// Guarded by FS.mu. At 0 and 0 the node goes away.
	refs uint64 // lookup references
	pins int    // operations that use fd
}

func (n *node) isDir() bool     { return n.kind == unix.S_IFDIR }
func (n *node) isFile() bool    { return n.kind == unix.S_IFREG }
func (n *node) isSymlink() bool { return n.kind == unix.S_IFLNK }

// isSpecial: FIFO, socket or device.
func (n *node) isSpecial() bool { return !n.isDir() && !n.isFile() && !n.isSymlink() }

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openat2 is openat2(2), again if a signal or a rename elsewhere got in its way.
func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(dir, name, how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// openPath opens name in dir as a place, not as a file: a symbolic link is opened
// itself, and a FIFO doesn't block.
func openPath(dir int, name string) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve}
	fd, err := openat2(dir, name, &how)
	if err != nil {
		return -1, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// pin finds a node and keeps its descriptor open until unpin.
func (fs *FS) pin(id fsrpc.NodeID) (*node, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.nodes[id]
	if n == nil || fs.closed {
		return nil, unix.ESTALE
	}
	n.pins++
	return n, nil
}

func (fs *FS) unpin(n *node) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n.pins--
	fs.reap(n)
}

// reap closes a node nobody needs. FS.mu is held.
func (fs *FS) reap(n *node) {
	if n.refs > 0 || n.pins > 0 || fs.nodes[n.id] != n {
		return
	}
	delete(fs.nodes, n.id)
	delete(fs.byKey, n.key)
	fs.fold.drop(n.id)
	_ = unix.Close(n.fd)
}

// adopt turns the O_PATH descriptor fd into a lookup reference: to the node that
// is known already, or to a new one. It owns fd from now on, also if it fails.
func (fs *FS) adopt(fd int, st *unix.Stat_t) (*node, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	key := keyOf(st)
	if n := fs.byKey[key]; n != nil {
		_ = unix.Close(fd)
		n.refs++
		return n, nil
	}
	if fs.closed || len(fs.nodes) >= fs.cfg.MaxNodes {
		_ = unix.Close(fd)
		return nil, unix.ENFILE
	}
	fs.lastID++
	n := &node{id: fs.lastID, key: key, fd: fd, kind: st.Mode & unix.S_IFMT, refs: 1}
	fs.nodes[n.id], fs.byKey[key] = n, n
	return n, nil
}

// find looks name up in the directory that fd is, and takes a reference.
func (fs *FS) find(dir int, name string) (*node, fsrpc.Attr, error) {
	fd, st, err := openPath(dir, name)
	if err == nil {
		var n *node
		if n, err = fs.adopt(fd, &st); err == nil {
			return n, fs.attr(n.id, &st), nil
		}
	}
	if errors.Is(err, unix.ENFILE) || errors.Is(err, unix.EMFILE) {
		fs.tooManyNodes()
		err = unix.ENFILE
	}
	return nil, fsrpc.Attr{}, err
}

// room is asked before a file is made: it would be a pity to make it and then
// have no node for it.
func (fs *FS) room() error {
	fs.mu.Lock()
	full := len(fs.nodes) >= fs.cfg.MaxNodes
	fs.mu.Unlock()
	if full {
		fs.tooManyNodes()
		return unix.ENFILE
	}
	return nil
}

func (fs *FS) tooManyNodes() {
	if fs.nodeFull.due() {
		fs.log.Warn("the guest holds more files of a share than can be kept open: it gets ENFILE; raise the limit of open files (ulimit -n)",
			"share", fs.cfg.Root, "limit", fs.cfg.MaxNodes)
	}
}

// forget returns count references to a node. More than there are is the mount
// side's mistake: EINVAL, and the node goes.
func (fs *FS) forget(id fsrpc.NodeID, count uint64) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.nodes[id]
	if n == nil {
		return unix.ESTALE
	}
	if id == fsrpc.RootNode {
		return nil
	}
	var err error
	if count > n.refs {
		count, err = n.refs, unix.EINVAL
	}
	n.refs -= count
	fs.reap(n)
	return err
}

// dir pins the directory that an operation on one of its names is about, and
// checks the name. change says that the operation changes the directory.
func (fs *FS) dir(id fsrpc.NodeID, name string, change bool) (*node, error) {
	if len(name) > fsrpc.MaxName {
		return nil, unix.ENAMETOOLONG
	}
	if !wire.ValidName(name) {
		return nil, unix.EINVAL
	}
	if change && fs.cfg.ReadOnly {
		return nil, unix.EROFS
	}
	n, err := fs.pin(id)
	if err != nil {
		return nil, err
	}
	switch {
	case !n.isDir():
		err = unix.ENOTDIR
	case fs.allowed(n, name):
	case change:
		err = unix.EPERM
	default:
		err = unix.ENOENT
	}
	if err != nil {
		fs.unpin(n)
		return nil, err
	}
	return n, nil
}

// allowed tells whether name may exist in dir (Config.Names).
func (fs *FS) allowed(dir *node, name string) bool {
	return fs.names == nil || dir.id != fsrpc.RootNode || fs.names[name]
}

func (fs *FS) attr(id fsrpc.NodeID, st *unix.Stat_t) fsrpc.Attr {
	return fsrpc.Attr{
		Node:    id,
		Ino:     st.Ino,
		Mode:    st.Mode &^ 0o7000,
		Nlink:   uint32(min(st.Nlink, 1<<32-1)),
		Size:    uint64(max(st.Size, 0)),
		Blocks:  uint64(max(st.Blocks, 0)),
		Blksize: uint32(max(st.Blksize, 0)),
		Atime:   st.Atim.Nano(),
		Mtime:   st.Mtim.Nano(),
		Ctime:   st.Ctim.Nano(),
		Foreign: st.Uid != fs.uid,
	}
}

func (fs *FS) statNode(n *node) (fsrpc.Attr, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return fsrpc.Attr{}, err
	}
	return fs.attr(n.id, &st), nil
}
