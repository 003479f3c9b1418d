package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// failingTree fails every write and fsync with err.
type failingTree struct {
	fsrpc.Tree
	err error
}

func (t failingTree) Write(context.Context, fsrpc.HandleID, uint64, []byte) (int, error) {
	return 0, t.err
}

func (t failingTree) Fsync(context.Context, fsrpc.HandleID, bool) error { return t.err }

func TestWriteErrors(t *testing.T) {
	for _, c := range []struct {
		err   error
		noted bool
	}{
		{nil, false},
		{unix.EBADF, false}, // the guest's mistake
		{context.Canceled, false},
		{unix.ENOSPC, true},
		{fmt.Errorf("somewhere: %w", unix.EIO), true},
		{unix.EDQUOT, true},
	} {
		for _, op := range []string{"write", "fsync"} {
			var w writeErrors
			tree := w.watch(failingTree{err: c.err}, "/some/dir")
			var err error
			if op == "write" {
				_, err = tree.Write(t.Context(), 1, 0, []byte("x"))
			} else {
				err = tree.Fsync(t.Context(), 1, false)
			}
			if !errors.Is(err, c.err) {
				t.Errorf("%s: the error became %v instead of %v", op, err, c.err)
			}
			if got := w.err(); (got != nil) != c.noted || c.noted && (!errors.Is(got, c.err) || !strings.Contains(got.Error(), "/some/dir")) {
				t.Errorf("%s failed with %v, and noted is %v", op, c.err, got)
			}
		}
	}
}

// The first error is the one that is told.
func TestWriteErrorsKeepsTheFirst(t *testing.T) {
	var w writeErrors
	_ = w.watch(failingTree{err: unix.EIO}, "a").Fsync(t.Context(), 1, false)
	_ = w.watch(failingTree{err: unix.ENOSPC}, "b").Fsync(t.Context(), 1, false)
	if !errors.Is(w.err(), unix.EIO) {
		t.Errorf("noted: %v", w.err())
	}
}
