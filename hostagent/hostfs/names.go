package hostfs

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// createTries is how often Create looks again at a name that comes and goes.
const createTries = 16

// Lookup implements fsrpc.Tree.
func (fs *FS) Lookup(ctx context.Context, parent fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	if err := ctx.Err(); err != nil {
		return fsrpc.Attr{}, err
	}
	p, err := fs.dir(parent, name, false)
	if err != nil {
		return fsrpc.Attr{}, err
	}
	defer fs.unpin(p)
	_, a, err := fs.find(p.fd, name)
	return a, err
}

// Forget implements fsrpc.Tree. All of f is worked off; the first mistake in it
// is the error.
func (fs *FS) Forget(_ context.Context, f []fsrpc.Forget) error {
	var first error
	for _, one := range f {
		if err := fs.forget(one.Node, one.Count); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Mkdir implements fsrpc.Tree.
func (fs *FS) Mkdir(ctx context.Context, parent fsrpc.NodeID, name string, mode uint32) (fsrpc.Attr, error) {
	return fs.makeIn(ctx, parent, name, func(p *node) (fsrpc.Attr, error) {
		if err := unix.Mkdirat(p.fd, name, mode&0o777); err != nil {
			return fsrpc.Attr{}, err
		}
		n, a, err := fs.find(p.fd, name)
		if err == nil && n.isDir() {
			fs.exactMode(n, &a, mode)
		}
		return a, err
	})
}

// exactMode undoes what this process's umask took off a new file: the umask of
// the program that made it was applied in the guest. A file system that has no
// modes leaves it at that.
func (fs *FS) exactMode(n *node, a *fsrpc.Attr, mode uint32) {
	if a.Mode&0o777 == mode&0o777 || unix.Fchmodat(unix.AT_FDCWD, procPath(n.fd), mode&0o777, 0) != nil {
		return
	}
	if now, err := fs.statNode(n); err == nil {
		*a = now
	}
}

// Symlink implements fsrpc.Tree.
func (fs *FS) Symlink(ctx context.Context, parent fsrpc.NodeID, name, target string) (fsrpc.Attr, error) {
	switch {
	case target == "":
		return fsrpc.Attr{}, unix.ENOENT
	case len(target) > fsrpc.MaxTarget:
		return fsrpc.Attr{}, unix.ENAMETOOLONG
	case strings.IndexByte(target, 0) >= 0:
		return fsrpc.Attr{}, unix.EINVAL
	}
	return fs.makeIn(ctx, parent, name, func(p *node) (fsrpc.Attr, error) {
		if err := unix.Symlinkat(target, p.fd, name); err != nil {
			return fsrpc.Attr{}, err
		}
		_, a, err := fs.find(p.fd, name)
		return a, err
	})
}

// Link implements fsrpc.Tree.
func (fs *FS) Link(ctx context.Context, id, parent fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	return fs.makeIn(ctx, parent, name, func(p *node) (fsrpc.Attr, error) {
		n, err := fs.pin(id)
		if err != nil {
			return fsrpc.Attr{}, err
		}
		defer fs.unpin(n)
		if !n.isFile() && !n.isSymlink() {
			return fsrpc.Attr{}, unix.EPERM
		}
		// Our own magic link leads to the inode itself, a symbolic link too.
		if err := unix.Linkat(unix.AT_FDCWD, procPath(n.fd), p.fd, name, unix.AT_SYMLINK_FOLLOW); err != nil {
			return fsrpc.Attr{}, err
		}
		_, a, err := fs.find(p.fd, name)
		return a, err
	})
}

// makeIn runs op, which makes name in parent.
func (fs *FS) makeIn(ctx context.Context, parent fsrpc.NodeID, name string, op func(*node) (fsrpc.Attr, error)) (fsrpc.Attr, error) {
	if err := ctx.Err(); err != nil {
		return fsrpc.Attr{}, err
	}
	p, err := fs.dir(parent, name, true)
	if err != nil {
		return fsrpc.Attr{}, err
	}
	defer fs.unpin(p)
	if err := fs.room(); err != nil {
		return fsrpc.Attr{}, err
	}
	a, err := op(p)
	if err == nil {
		fs.fold.changed(p.id, name)
	}
	return a, err
}

// Create implements fsrpc.Tree.
func (fs *FS) Create(ctx context.Context, parent fsrpc.NodeID, name string, flags, mode uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	if err := fs.checkFlags(flags); err != nil {
		return fsrpc.Attr{}, 0, err
	}
	if flags&unix.O_DIRECTORY != 0 {
		return fsrpc.Attr{}, 0, unix.EINVAL
	}
	var h fsrpc.HandleID
	a, err := fs.makeIn(ctx, parent, name, func(p *node) (a fsrpc.Attr, err error) {
		for range createTries {
			if a, h, err = fs.createNew(p, name, flags, mode); !errors.Is(err, unix.EEXIST) || flags&unix.O_EXCL != 0 {
				return a, err
			}
			if a, h, err = fs.openOld(p, name, flags); !errors.Is(err, unix.ENOENT) {
				return a, err
			}
		}
		return a, err
	})
	return a, h, err
}

// createNew makes a file that isn't there, so the open can't meet a device.
func (fs *FS) createNew(p *node, name string, flags, mode uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	if err := fs.reserve(); err != nil {
		return fsrpc.Attr{}, 0, err
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOCTTY),
		Mode:    uint64(mode & 0o777),
		Resolve: resolve,
	}
	fd, err := openat2(p.fd, name, &how)
	if err != nil {
		fs.unreserve()
		return fsrpc.Attr{}, 0, err
	}
	n, a, err := fs.adoptOpen(fd)
	if err != nil {
		fs.unreserve()
		_ = unix.Close(fd)
		return fsrpc.Attr{}, 0, err
	}
	fs.exactMode(n, &a, mode)
	return a, fs.install(n, fd), nil
}

// adoptOpen takes a lookup reference to the file open as fd.
func (fs *FS) adoptOpen(fd int) (*node, fsrpc.Attr, error) {
	var st unix.Stat_t
	path, err := unix.Open(procPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fsrpc.Attr{}, err
	}
	if err := unix.Fstat(path, &st); err != nil {
		_ = unix.Close(path)
		return nil, fsrpc.Attr{}, err
	}
	n, err := fs.adopt(path, &st)
	if err != nil {
		fs.tooManyNodes()
		return nil, fsrpc.Attr{}, err
	}
	return n, fs.attr(n.id, &st), nil
}

// openOld opens a file that Create found there.
func (fs *FS) openOld(p *node, name string, flags uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	n, a, err := fs.find(p.fd, name)
	if err != nil {
		return fsrpc.Attr{}, 0, err
	}
	if n.isDir() {
		err = unix.EISDIR
	}
	var h fsrpc.HandleID
	if err == nil {
		h, err = fs.openNode(n, flags)
	}
	if err == nil && flags&unix.O_TRUNC != 0 {
		a, err = fs.statNode(n)
		if err != nil {
			_ = fs.release(h)
		}
	}
	if err != nil {
		_ = fs.forget(n.id, 1)
		return fsrpc.Attr{}, 0, err
	}
	return a, h, nil
}

// Unlink implements fsrpc.Tree.
func (fs *FS) Unlink(ctx context.Context, parent fsrpc.NodeID, name string) error {
	return fs.remove(ctx, parent, name, 0)
}

// Rmdir implements fsrpc.Tree.
func (fs *FS) Rmdir(ctx context.Context, parent fsrpc.NodeID, name string) error {
	return fs.remove(ctx, parent, name, unix.AT_REMOVEDIR)
}

func (fs *FS) remove(ctx context.Context, parent fsrpc.NodeID, name string, flags int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := fs.dir(parent, name, true)
	if err != nil {
		return err
	}
	defer fs.unpin(p)
	if err := unix.Unlinkat(p.fd, name, flags); err != nil {
		return err
	}
	fs.fold.changed(p.id, "")
	return nil
}

// Rename implements fsrpc.Tree.
func (fs *FS) Rename(ctx context.Context, parent fsrpc.NodeID, name string, newParent fsrpc.NodeID, newName string, flags uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if flags&^uint32(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	p, err := fs.dir(parent, name, true)
	if err != nil {
		return err
	}
	defer fs.unpin(p)
	q, err := fs.dir(newParent, newName, true)
	if err != nil {
		return err
	}
	defer fs.unpin(q)
	if err := unix.Renameat2(p.fd, name, q.fd, newName, uint(flags)); err != nil {
		return err
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		fs.fold.changed(p.id, name)
	} else {
		fs.fold.changed(p.id, "")
	}
	fs.fold.changed(q.id, newName)
	return nil
}

// Readlink implements fsrpc.Tree.
func (fs *FS) Readlink(ctx context.Context, id fsrpc.NodeID) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	n, err := fs.pin(id)
	if err != nil {
		return "", err
	}
	defer fs.unpin(n)
	if !n.isSymlink() {
		return "", unix.EINVAL
	}
	buf := make([]byte, fsrpc.MaxTarget+1)
	l, err := unix.Readlinkat(n.fd, "", buf)
	if err != nil {
		return "", err
	}
	if l > fsrpc.MaxTarget {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:l]), nil
}
