package build

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// A sealedTree is a Tree in which, from some moment on, nothing changes any more. The
// outputs are one: a program that the command has left running in the guest may still
// write, to a file that it has open too, when they are moved to their place.
type sealedTree struct {
	fsrpc.Tree

	mu     sync.RWMutex // held for reading by what changes something
	sealed bool
}

// seal waits for what changes something at the moment, and refuses all further.
func (t *sealedTree) seal() { t.set(true) }

// unseal undoes it: for who looks at a kept pair.
func (t *sealedTree) unseal() { t.set(false) }

func (t *sealedTree) set(sealed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sealed = sealed
}

// change does what changes something, if that may be.
func change[T any](t *sealedTree, do func() (T, error)) (T, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.sealed {
		var none T
		return none, unix.EROFS
	}
	return do()
}

func (t *sealedTree) change(do func() error) error {
	_, err := change(t, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// Setattr implements fsrpc.Tree.
func (t *sealedTree) Setattr(ctx context.Context, n fsrpc.NodeID, h fsrpc.HandleID, s fsrpc.SetAttr) (fsrpc.Attr, error) {
	return change(t, func() (fsrpc.Attr, error) { return t.Tree.Setattr(ctx, n, h, s) })
}

// Mkdir implements fsrpc.Tree.
func (t *sealedTree) Mkdir(ctx context.Context, parent fsrpc.NodeID, name string, mode uint32) (fsrpc.Attr, error) {
	return change(t, func() (fsrpc.Attr, error) { return t.Tree.Mkdir(ctx, parent, name, mode) })
}

// Symlink implements fsrpc.Tree.
func (t *sealedTree) Symlink(ctx context.Context, parent fsrpc.NodeID, name, target string) (fsrpc.Attr, error) {
	return change(t, func() (fsrpc.Attr, error) { return t.Tree.Symlink(ctx, parent, name, target) })
}

// Link implements fsrpc.Tree.
func (t *sealedTree) Link(ctx context.Context, n, parent fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	return change(t, func() (fsrpc.Attr, error) { return t.Tree.Link(ctx, n, parent, name) })
}

// Create implements fsrpc.Tree.
func (t *sealedTree) Create(ctx context.Context, parent fsrpc.NodeID, name string, flags, mode uint32) (a fsrpc.Attr, h fsrpc.HandleID, err error) {
	err = t.change(func() (err error) {
		a, h, err = t.Tree.Create(ctx, parent, name, flags, mode)
		return err
	})
	return a, h, err
}

// Unlink implements fsrpc.Tree.
func (t *sealedTree) Unlink(ctx context.Context, parent fsrpc.NodeID, name string) error {
	return t.change(func() error { return t.Tree.Unlink(ctx, parent, name) })
}

// Rmdir implements fsrpc.Tree.
func (t *sealedTree) Rmdir(ctx context.Context, parent fsrpc.NodeID, name string) error {
	return t.change(func() error { return t.Tree.Rmdir(ctx, parent, name) })
}

// Rename implements fsrpc.Tree.
func (t *sealedTree) Rename(ctx context.Context, parent fsrpc.NodeID, name string, newParent fsrpc.NodeID, newName string, flags uint32) error {
	return t.change(func() error { return t.Tree.Rename(ctx, parent, name, newParent, newName, flags) })
}

// Open implements fsrpc.Tree. It can truncate.
func (t *sealedTree) Open(ctx context.Context, n fsrpc.NodeID, flags uint32) (fsrpc.HandleID, error) {
	if flags&unix.O_TRUNC == 0 {
		return t.Tree.Open(ctx, n, flags)
	}
	return change(t, func() (fsrpc.HandleID, error) { return t.Tree.Open(ctx, n, flags) })
}

// Write implements fsrpc.Tree.
func (t *sealedTree) Write(ctx context.Context, h fsrpc.HandleID, off uint64, data []byte) (int, error) {
	return change(t, func() (int, error) { return t.Tree.Write(ctx, h, off, data) })
}

// Fallocate implements fsrpc.Tree.
func (t *sealedTree) Fallocate(ctx context.Context, h fsrpc.HandleID, mode uint32, off, length uint64) error {
	return t.change(func() error { return t.Tree.Fallocate(ctx, h, mode, off, length) })
}
