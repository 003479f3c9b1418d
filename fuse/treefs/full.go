package treefs

import (
	"context"
	"syscall"
	"time"

	"winvm/transport/fsrpc"
)

// roomDelay is how long a request on a full disk waits for what was removed just
// before.
const roomDelay = 20 * time.Millisecond

// room runs op, again if there is no room on the host and may be some soon. For
// the kernel forgets a removed file, and closes it, without waiting for us: the
// host may hold it, and the space it takes, for a moment after the program that
// removed it was told so. A local file system has no such moment.
func (f *FS) room(s *session, op func() error) error {
	err := op()
	for range 2 {
		if errno := fsrpc.ToErrno(err); errno != syscall.ENOSPC && errno != syscall.EDQUOT && errno != syscall.ENFILE {
			return err
		}
		f.forgets.flush()
		if wait(s.ctx, roomDelay/2) != nil {
			return err
		}
		err = op()
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
