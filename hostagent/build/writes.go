package build

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// writeErrors keeps the first error that the host's file system had for something
// that the guest wrote. It is needed because nobody else tells of it: the guest's
// SMB client writes behind, so the error finds no write that waits for it; what is
// left is the close, whose result Windows programs don't look at, or can't.
type writeErrors struct {
	mu    sync.Mutex
	first error
}

// watch returns tree with its failing writes noted. dir is for people.
func (w *writeErrors) watch(tree fsrpc.Tree, dir string) fsrpc.Tree {
	return &watchedTree{Tree: tree, dir: dir, errs: w}
}

func (w *writeErrors) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first
}

// A watchedTree is a Tree that notes errors.
type watchedTree struct {
	fsrpc.Tree
	dir  string
	errs *writeErrors
}

// Write implements fsrpc.Tree.
func (t *watchedTree) Write(ctx context.Context, h fsrpc.HandleID, off uint64, data []byte) (int, error) {
	n, err := t.Tree.Write(ctx, h, off, data)
	t.note(err)
	return n, err
}

// Fsync implements fsrpc.Tree.
func (t *watchedTree) Fsync(ctx context.Context, h fsrpc.HandleID, dataOnly bool) error {
	err := t.Tree.Fsync(ctx, h, dataOnly)
	t.note(err)
	return err
}

// note keeps what is the disk's fault; a bad handle, say, is the caller's.
func (t *watchedTree) note(err error) {
	for _, fault := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EFBIG, unix.EROFS} {
		if errors.Is(err, fault) {
			t.errs.mu.Lock()
			if t.errs.first == nil {
				t.errs.first = fmt.Errorf("writing below %s: %w", t.dir, err)
			}
			t.errs.mu.Unlock()
			return
		}
	}
}
