package hostfs

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// Getattr implements fsrpc.Tree.
func (fs *FS) Getattr(ctx context.Context, id fsrpc.NodeID, hid fsrpc.HandleID) (fsrpc.Attr, error) {
	if err := ctx.Err(); err != nil {
		return fsrpc.Attr{}, err
	}
	if hid != fsrpc.NoHandle {
		h, err := fs.handle(hid)
		if err != nil {
			return fsrpc.Attr{}, err
		}
		defer h.mu.RUnlock()
		var st unix.Stat_t
		if err := unix.Fstat(h.fd, &st); err != nil {
			return fsrpc.Attr{}, err
		}
		return fs.attr(h.node, &st), nil
	}
	n, err := fs.pin(id)
	if err != nil {
		return fsrpc.Attr{}, err
	}
	defer fs.unpin(n)
	return fs.statNode(n)
}

// Setattr implements fsrpc.Tree.
func (fs *FS) Setattr(ctx context.Context, id fsrpc.NodeID, hid fsrpc.HandleID, s fsrpc.SetAttr) (fsrpc.Attr, error) {
	const known = fsrpc.SetMode | fsrpc.SetSize | fsrpc.SetAtime | fsrpc.SetMtime | fsrpc.SetAtimeNow | fsrpc.SetMtimeNow
	switch {
	case ctx.Err() != nil:
		return fsrpc.Attr{}, ctx.Err()
	case s.Valid&^known != 0:
		return fsrpc.Attr{}, unix.EINVAL
	case fs.cfg.ReadOnly && s.Valid != 0:
		return fsrpc.Attr{}, unix.EROFS
	}
	n, err := fs.pin(id)
	if err != nil {
		return fsrpc.Attr{}, err
	}
	defer fs.unpin(n)
	if n.isSpecial() && s.Valid != 0 {
		return fsrpc.Attr{}, unix.EPERM
	}
	if s.Valid&fsrpc.SetSize != 0 {
		if err := fs.setSize(n, hid, s.Size); err != nil {
			return fsrpc.Attr{}, err
		}
	}
	if s.Valid&fsrpc.SetMode != 0 {
		if n.isSymlink() {
			return fsrpc.Attr{}, unix.EOPNOTSUPP
		}
		if err := unix.Fchmodat(unix.AT_FDCWD, procPath(n.fd), s.Mode&0o777, 0); err != nil {
			return fsrpc.Attr{}, err
		}
	}
	if err := setTimes(n, s); err != nil {
		return fsrpc.Attr{}, err
	}
	return fs.statNode(n)
}

// setSize truncates through the open file if it can: its opener may write,
// even if the mode has forbidden it since.
func (fs *FS) setSize(n *node, hid fsrpc.HandleID, size uint64) error {
	switch {
	case size > math.MaxInt64:
		return unix.EFBIG
	case n.isDir():
		return unix.EISDIR
	case !n.isFile():
		return unix.EINVAL
	}
	if hid != fsrpc.NoHandle {
		h, err := fs.handle(hid)
		if err != nil {
			return err
		}
		defer h.mu.RUnlock()
		if h.node != n.id {
			return unix.EINVAL
		}
		// EINVAL: opened for reading.
		if err := unix.Ftruncate(h.fd, int64(size)); err != unix.EINVAL {
			return err
		}
	}
	return unix.Truncate(procPath(n.fd), int64(size))
}

func setTimes(n *node, s fsrpc.SetAttr) error {
	const times = fsrpc.SetAtime | fsrpc.SetMtime | fsrpc.SetAtimeNow | fsrpc.SetMtimeNow
	if s.Valid&times == 0 {
		return nil
	}
	pick := func(set, now fsrpc.SetMask, ns int64) unix.Timespec {
		switch {
		case s.Valid&now != 0:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		case s.Valid&set != 0:
			return unix.NsecToTimespec(ns)
		default:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		}
	}
	ts := []unix.Timespec{
		pick(fsrpc.SetAtime, fsrpc.SetAtimeNow, s.Atime),
		pick(fsrpc.SetMtime, fsrpc.SetMtimeNow, s.Mtime),
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(n.fd), ts, 0)
}
