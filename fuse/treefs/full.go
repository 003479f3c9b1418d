package treefs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	// roomDelay is how long a request that finds no room on the host waits
	// until it tries again.
	roomDelay = 10 * time.Millisecond
	// How often it tries again: for space that a removed file had, and for
	// nodes that the kernel has been made to forget.
	spaceTries, nodeTries = 2, 20
	// leastNodes is the lowest limit of nodes that is learned from the host.
	leastNodes = 16
)

// room runs op, again if there is no room on the host and may be some soon.
//
// No space: the kernel forgets a removed file, and closes it, without waiting for
// us, so the host may hold it for a moment after the program that removed it was told
// so. A local file system has no such moment.
//
// No nodes: the host holds something (a descriptor) for every file that the kernel
// remembers, and has its limit; the kernel has none, so it is made to forget. That
// needs the lock of the root's inode, which a request about a name there holds: such
// a one returns ESTALE instead of waiting, at which the kernel walks the path again.
func (f *FS) room(s *session, parent uint64, op func() error) error {
	err := op()
	tries := 0
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		tries = spaceTries
	case !errors.Is(err, syscall.ENFILE) || !f.full():
	case parent == fuse.FUSE_ROOT_ID:
		return syscall.ESTALE
	default:
		tries = nodeTries
	}
	for ; tries > 0 && err != nil; tries-- {
		if sleep(s.ctx, roomDelay) != nil {
			return err
		}
		f.forgets.flush()
		err = op()
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// full learns from the host's refusal how many nodes it can hold, and reports
// whether the kernel is being made to forget some.
func (f *FS) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maxNodes = max(leastNodes, min(f.maxNodes, len(f.live)*3/4))
	return f.reclaim()
}

// reclaim begins to make the kernel forget all names in the root, and so all that
// is below them and not in use. It reports false if that was done with as good as
// nothing looked up since: what there is is in use. A goroutine of its own does it, since
// it waits for requests about the root, perhaps the one that asks for it. The
// caller holds f.mu.
func (f *FS) reclaim() bool {
	if f.reclaiming {
		return true
	}
	if f.server == nil || f.looked <= f.maxNodes/8 {
		return false
	}
	f.cfg.Logger.Debug("treefs: many nodes, making the kernel forget", "nodes", len(f.live), "names", len(f.shown))
	names, server := f.takeShown(), f.server
	f.reclaiming, f.looked = true, 0
	f.work.Go(func() {
		for _, name := range names {
			server.EntryNotify(fuse.FUSE_ROOT_ID, name)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reclaiming = false
	})
	return true
}
