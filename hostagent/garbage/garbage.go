// Package garbage describes what nobody uses any more, and removes it. What that is
// is known by the packages whose files they are: each lists its own as Items. An Item
// is removed by its own function, which takes the lock that makes sure of it once more:
// between the listing and the removal somebody may have begun to use it.
package garbage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kinds of Items.
const (
	KindRun   = "run"   // the directory of a run that was killed
	KindKept  = "kept"  // what --keep-failed kept
	KindLogs  = "logs"  // of a run that is over
	KindImage = "image" // an image, or a state, that was never finished or is removed
	KindRoot  = "root"  // a root file system in the cache
)

// ErrInUse is returned by Item.Remove when somebody has begun to use it.
var ErrInUse = errors.New("in use")

// An Item can be removed.
type Item struct {
	Kind  string `json:"kind"`
	Path  string `json:"path"`
	Why   string `json:"why"`
	Bytes int64  `json:"bytes"` // on the disk

	Remove func() error `json:"-"`
}

// Collect finds out the Items' sizes and, unless dry is set, removes them. It returns
// those that are (would be) gone. What can't be removed is in the error, and the others
// go nevertheless.
func Collect(ctx context.Context, items []Item, dry bool) ([]Item, error) {
	gone := []Item{} // in JSON none is [], not null
	var errs []error
	for _, i := range items {
		if ctx.Err() != nil {
			return gone, errors.Join(append(errs, context.Cause(ctx))...)
		}
		i.Bytes = Size(i.Path)
		if !dry {
			if err := i.Remove(); errors.Is(err, ErrInUse) {
				continue
			} else if err != nil {
				errs = append(errs, fmt.Errorf("remove %s: %w", i.Path, err))
				continue
			}
		}
		gone = append(gone, i)
	}
	return gone, errors.Join(errs...)
}

// Size is what a tree takes on the disk. Files that have other names elsewhere count
// once.
func Size(path string) (sum int64) {
	seen := map[[2]uint64]bool{}
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what can't be read counts as nothing
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if id := [2]uint64{st.Dev, st.Ino}; ok && !seen[id] {
			seen[id] = true
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

// TryLock takes the flock(2) lock of a file that exists, or says ErrInUse.
func TryLock(path string) (unlock func(), err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	unlock = func() { _ = unix.Close(fd) }
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unlock()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, err
	}
	return unlock, nil
}
