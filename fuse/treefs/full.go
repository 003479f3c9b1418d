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
	// The last is for nodes, when it is a name in the root that is asked for.
	spaceTries, nodeTries, rootTries = 2, 20, 5
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
// a one returns ESTALE instead of waiting, at which the kernel walks the path again,
// once. By then at least one name has been forgotten, since who waits for the lock is
// served in turn; but what the kernel has to say of it may still be on its way here,
// and that needs no lock. So the second time is worth a wait.
func (f *FS) room(s *session, parent uint64, op func() error) error {
	err := op()
	tries, full, again := 0, false, false
	if errors.Is(err, syscall.ENFILE) {
		full, again = f.full()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		tries = spaceTries
	case !full:
	case parent == fuse.FUSE_ROOT_ID && !again:
		return syscall.ESTALE
	case parent == fuse.FUSE_ROOT_ID:
		tries = rootTries
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
	if full && parent == fuse.FUSE_ROOT_ID && errors.Is(err, syscall.ENFILE) {
		return syscall.ESTALE
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
// whether the kernel is being made to forget some, and whether it was already.
func (f *FS) full() (forgetting, already bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maxNodes = max(leastNodes, min(f.maxNodes, len(f.live)*3/4))
	already = f.reclaiming
	return f.reclaim(), already
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
