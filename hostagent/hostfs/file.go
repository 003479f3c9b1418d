package hostfs

import (
	"context"
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// fallocateModes are the modes of fallocate(2) that pass.
const fallocateModes = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE

// Open implements fsrpc.Tree.
func (fs *FS) Open(ctx context.Context, id fsrpc.NodeID, flags uint32) (fsrpc.HandleID, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := fs.checkFlags(flags); err != nil {
		return 0, err
	}
	n, err := fs.pin(id)
	if err != nil {
		return 0, err
	}
	defer fs.unpin(n)
	return fs.openNode(n, flags)
}

// Release implements fsrpc.Tree. The error is also kept for Sync: the kernel of
// the mount side tells nobody what a release returned.
func (fs *FS) Release(_ context.Context, id fsrpc.HandleID) error { return fs.release(id) }

func (fs *FS) release(id fsrpc.HandleID) error {
	fs.hmu.Lock()
	h := fs.handles[id]
	delete(fs.handles, id)
	fs.hmu.Unlock()
	if h == nil {
		return unix.EBADF
	}
	err := h.close()
	if err != nil {
		fs.lost.keep(err)
	}
	return err
}

// file is handle, for an operation at an offset of length bytes.
func (fs *FS) file(ctx context.Context, id fsrpc.HandleID, off uint64, length int) (*handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if length > fsrpc.MaxData {
		return nil, unix.EINVAL
	}
	if off > math.MaxInt64-uint64(length) {
		return nil, unix.EINVAL
	}
	h, err := fs.handle(id)
	if err != nil {
		return nil, err
	}
	if h.dir {
		h.mu.RUnlock()
		return nil, unix.EISDIR
	}
	return h, nil
}

// Read implements fsrpc.Tree.
func (fs *FS) Read(ctx context.Context, id fsrpc.HandleID, off uint64, buf []byte) (int, error) {
	h, err := fs.file(ctx, id, off, len(buf))
	if err != nil {
		return 0, err
	}
	defer h.mu.RUnlock()
	done := 0
	for done < len(buf) {
		n, err := unix.Pread(h.fd, buf[done:], int64(off)+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, err
		case n == 0:
			return done, nil
		default:
			done += n
		}
	}
	return done, nil
}

// Write implements fsrpc.Tree.
func (fs *FS) Write(ctx context.Context, id fsrpc.HandleID, off uint64, data []byte) (int, error) {
	h, err := fs.file(ctx, id, off, len(data))
	if err != nil {
		return 0, err
	}
	defer h.mu.RUnlock()
	done := 0
	for done < len(data) {
		n, err := unix.Pwrite(h.fd, data[done:], int64(off)+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			fs.tell(ctx, err)
			return done, err
		}
		done += n
	}
	return done, nil
}

// tell keeps the error of a write if nobody waits for its answer any more.
func (fs *FS) tell(ctx context.Context, err error) {
	if ctx.Err() != nil {
		fs.lost.keep(err)
	}
}

// Fsync implements fsrpc.Tree.
func (fs *FS) Fsync(ctx context.Context, id fsrpc.HandleID, dataOnly bool) error {
	h, err := fs.handle(id)
	if err != nil {
		return err
	}
	defer h.mu.RUnlock()
	for {
		sync := unix.Fsync
		if dataOnly {
			sync = unix.Fdatasync
		}
		err := sync(h.fd)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			fs.tell(ctx, err)
		}
		return err
	}
}

// Fallocate implements fsrpc.Tree.
func (fs *FS) Fallocate(ctx context.Context, id fsrpc.HandleID, mode uint32, off, length uint64) error {
	if off > math.MaxInt64 || length > math.MaxInt64-off {
		return unix.EFBIG
	}
	if mode&^uint32(fallocateModes) != 0 {
		return unix.EOPNOTSUPP
	}
	h, err := fs.file(ctx, id, off, 0)
	if err != nil {
		return err
	}
	defer h.mu.RUnlock()
	for {
		if err := unix.Fallocate(h.fd, mode, int64(off), int64(length)); err != unix.EINTR {
			return err
		}
	}
}

// Lseek implements fsrpc.Tree. It moves the descriptor, which matters to
// nothing: reads and writes say where.
func (fs *FS) Lseek(ctx context.Context, id fsrpc.HandleID, off uint64, whence uint32) (uint64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	h, err := fs.file(ctx, id, off, 0)
	if err != nil {
		return 0, err
	}
	defer h.mu.RUnlock()
	at, err := unix.Seek(h.fd, int64(off), int(whence))
	if err != nil {
		return 0, err
	}
	return uint64(at), nil
}

// Statfs implements fsrpc.Tree.
func (fs *FS) Statfs(ctx context.Context) (fsrpc.Statfs, error) {
	var st unix.Statfs_t
	if err := ctx.Err(); err != nil {
		return fsrpc.Statfs{}, err
	}
	if err := fs.withRoot(func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return fsrpc.Statfs{}, err
	}
	return fsrpc.Statfs{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: uint32(min(st.Namelen, fsrpc.MaxName)),
	}, nil
}

// Sync implements fsrpc.Tree. Every write has reached the host's file system when
// it was answered, and its error went to the writer; what is left is the errors of
// closes, which the mount side's kernel drops. It does not wait for the host's
// disk: that is what Fsync is for, and syncfs(2) would also wait for everything that
// others have written there.
func (fs *FS) Sync(_ context.Context) error { return fs.lost.take() }
