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
	// turnedAwayFor is for how long, and maxTurnedAway of how many names, it is remembered
	// that they were told ESTALE, at which the kernel asks again at once.
	turnedAwayFor = time.Second
	maxTurnedAway = 1 << 10
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
// and that needs no lock. So the second time is worth a wait; if that was in vain it is
// ENFILE, since an ESTALE would be the program's.
func (f *FS) room(s *session, parent uint64, name string, op func() error) error {
	err := op()
	tries, away := 0, false
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		tries = spaceTries
	case errors.Is(err, syscall.ENFILE):
		forgetting, already := f.full()
		switch {
		case !forgetting:
		case parent != fuse.FUSE_ROOT_ID:
			tries = nodeTries
		default:
			away, tries = f.turnAway(name), rootTries
			if away && !already {
				return syscall.ESTALE
			}
		}
	}
	for ; tries > 0 && err != nil; tries-- {
		if sleep(s.ctx, roomDelay) != nil {
			return err
		}
		f.forgets.flush()
		err = op()
	}
	if away && errors.Is(err, syscall.ENFILE) {
		return syscall.ESTALE
	}
	return err
}

// turnAway reports whether a request about a name in the root may be told ESTALE: not if that
// was done a moment ago, since the kernel asks again once only.
func (f *FS) turnAway(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if at, ok := f.turnedAway[name]; ok && now.Sub(at) < turnedAwayFor {
		delete(f.turnedAway, name) // who comes next is another one
		return false
	}
	if f.turnedAway == nil || len(f.turnedAway) >= maxTurnedAway {
		f.turnedAway = map[string]time.Time{}
	}
	f.turnedAway[name] = now
	return true
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
