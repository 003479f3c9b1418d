package fsrpc

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"winvm/transport/rpc"
)

func toErrno(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.Is(err, rpc.ErrClosed), errors.Is(err, rpc.ErrProtocol):
		return syscall.EIO // whatever errno the link's end had
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, fs.ErrPermission):
		return syscall.EACCES
	default:
		return syscall.EIO
	}
}
