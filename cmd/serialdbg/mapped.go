package main

import (
	"context"
	"errors"

	"winvm/transport/fsrpc"
)

// errUnknownID says that a request names a node or handle that nobody has given out: the
// capture lacks the response.
var errUnknownID = errors.New("a node or handle that the capture doesn't say of what")

// A mappedTree is a share that is asked with the nodes and handles of another session.
type mappedTree struct {
	*fsrpc.TreeClient
	nodes   map[fsrpc.NodeID]fsrpc.NodeID
	handles map[fsrpc.HandleID]fsrpc.HandleID
}

var _ fsrpc.Tree = (*mappedTree)(nil)

func newMappedTree(c *fsrpc.TreeClient) *mappedTree {
	return &mappedTree{
		TreeClient: c,
		nodes:      map[fsrpc.NodeID]fsrpc.NodeID{fsrpc.RootNode: fsrpc.RootNode},
		handles:    map[fsrpc.HandleID]fsrpc.HandleID{fsrpc.NoHandle: fsrpc.NoHandle},
	}
}

// learn takes notice of what was given out then and now.
func (t *mappedTree) learn(op uint16, then, now []byte) error {
	n, h, err := fsrpc.Given(op, then)
	if err != nil {
		return nil //nolint:nilerr // what can't be understood gives nothing out
	}
	newN, newH, err := fsrpc.Given(op, now)
	if err != nil {
		return err
	}
	if n != 0 {
		t.nodes[n] = newN
	}
	if h != 0 {
		t.handles[h] = newH
	}
	list, err := fsrpc.GivenEntries(op, then)
	if err != nil || len(list) == 0 {
		return nil //nolint:nilerr // the same
	}
	newList, err := fsrpc.GivenEntries(op, now)
	if err != nil {
		return err
	}
	byName := map[string]fsrpc.NodeID{}
	for _, e := range newList {
		byName[e.Name] = e.Attr.Node
	}
	for _, e := range list {
		if id := byName[e.Name]; id != 0 && e.Attr.Node != 0 {
			t.nodes[e.Attr.Node] = id
		}
	}
	return nil
}

func (t *mappedTree) node(n *fsrpc.NodeID) error {
	id, ok := t.nodes[*n]
	if !ok {
		return errUnknownID
	}
	*n = id
	return nil
}

func (t *mappedTree) handle(h *fsrpc.HandleID) error {
	id, ok := t.handles[*h]
	if !ok {
		return errUnknownID
	}
	*h = id
	return nil
}

// Lookup implements fsrpc.Tree.
func (t *mappedTree) Lookup(ctx context.Context, p fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	if err := t.node(&p); err != nil {
		return fsrpc.Attr{}, err
	}
	return t.TreeClient.Lookup(ctx, p, name)
}

// RealName implements fsrpc.Tree.
func (t *mappedTree) RealName(ctx context.Context, p fsrpc.NodeID, name string) (string, error) {
	if err := t.node(&p); err != nil {
		return "", err
	}
	return t.TreeClient.RealName(ctx, p, name)
}

// Forget implements fsrpc.Tree.
func (t *mappedTree) Forget(ctx context.Context, list []fsrpc.Forget) error {
	for i := range list {
		if err := t.node(&list[i].Node); err != nil {
			return err
		}
	}
	return t.TreeClient.Forget(ctx, list)
}

// Getattr implements fsrpc.Tree.
func (t *mappedTree) Getattr(ctx context.Context, n fsrpc.NodeID, h fsrpc.HandleID) (fsrpc.Attr, error) {
	if err := errors.Join(t.node(&n), t.handle(&h)); err != nil {
		return fsrpc.Attr{}, err
	}
	return t.TreeClient.Getattr(ctx, n, h)
}

// Setattr implements fsrpc.Tree.
func (t *mappedTree) Setattr(ctx context.Context, n fsrpc.NodeID, h fsrpc.HandleID, s fsrpc.SetAttr) (fsrpc.Attr, error) {
	if err := errors.Join(t.node(&n), t.handle(&h)); err != nil {
		return fsrpc.Attr{}, err
	}
	return t.TreeClient.Setattr(ctx, n, h, s)
}

// Readlink implements fsrpc.Tree.
func (t *mappedTree) Readlink(ctx context.Context, n fsrpc.NodeID) (string, error) {
	if err := t.node(&n); err != nil {
		return "", err
	}
	return t.TreeClient.Readlink(ctx, n)
}

// Mkdir implements fsrpc.Tree.
func (t *mappedTree) Mkdir(ctx context.Context, p fsrpc.NodeID, name string, mode uint32) (fsrpc.Attr, error) {
	if err := t.node(&p); err != nil {
		return fsrpc.Attr{}, err
	}
	return t.TreeClient.Mkdir(ctx, p, name, mode)
}

// Symlink implements fsrpc.Tree.
func (t *mappedTree) Symlink(ctx context.Context, p fsrpc.NodeID, name, target string) (fsrpc.Attr, error) {
	if err := t.node(&p); err != nil {
		return fsrpc.Attr{}, err
	}
	return t.TreeClient.Symlink(ctx, p, name, target)
}

// Link implements fsrpc.Tree.
func (t *mappedTree) Link(ctx context.Context, n, p fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	if err := errors.Join(t.node(&n), t.node(&p)); err != nil {
		return fsrpc.Attr{}, err
	}
	return t.TreeClient.Link(ctx, n, p, name)
}

// Create implements fsrpc.Tree.
func (t *mappedTree) Create(ctx context.Context, p fsrpc.NodeID, name string, flags, mode uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	if err := t.node(&p); err != nil {
		return fsrpc.Attr{}, 0, err
	}
	return t.TreeClient.Create(ctx, p, name, flags, mode)
}

// Unlink implements fsrpc.Tree.
func (t *mappedTree) Unlink(ctx context.Context, p fsrpc.NodeID, name string) error {
	if err := t.node(&p); err != nil {
		return err
	}
	return t.TreeClient.Unlink(ctx, p, name)
}

// Rmdir implements fsrpc.Tree.
func (t *mappedTree) Rmdir(ctx context.Context, p fsrpc.NodeID, name string) error {
	if err := t.node(&p); err != nil {
		return err
	}
	return t.TreeClient.Rmdir(ctx, p, name)
}

// Rename implements fsrpc.Tree.
func (t *mappedTree) Rename(ctx context.Context, p fsrpc.NodeID, name string, to fsrpc.NodeID, toName string, flags uint32) error {
	if err := errors.Join(t.node(&p), t.node(&to)); err != nil {
		return err
	}
	return t.TreeClient.Rename(ctx, p, name, to, toName, flags)
}

// Open implements fsrpc.Tree.
func (t *mappedTree) Open(ctx context.Context, n fsrpc.NodeID, flags uint32) (fsrpc.HandleID, error) {
	if err := t.node(&n); err != nil {
		return 0, err
	}
	return t.TreeClient.Open(ctx, n, flags)
}

// Read implements fsrpc.Tree.
func (t *mappedTree) Read(ctx context.Context, h fsrpc.HandleID, off uint64, buf []byte) (int, error) {
	if err := t.handle(&h); err != nil {
		return 0, err
	}
	return t.TreeClient.Read(ctx, h, off, buf)
}

// Write implements fsrpc.Tree.
func (t *mappedTree) Write(ctx context.Context, h fsrpc.HandleID, off uint64, data []byte) (int, error) {
	if err := t.handle(&h); err != nil {
		return 0, err
	}
	return t.TreeClient.Write(ctx, h, off, data)
}

// Readdir implements fsrpc.Tree.
func (t *mappedTree) Readdir(ctx context.Context, h fsrpc.HandleID, off uint64, room int, attrs bool) ([]fsrpc.DirEntry, error) {
	if err := t.handle(&h); err != nil {
		return nil, err
	}
	return t.TreeClient.Readdir(ctx, h, off, room, attrs)
}

// Fsync implements fsrpc.Tree.
func (t *mappedTree) Fsync(ctx context.Context, h fsrpc.HandleID, dataOnly bool) error {
	if err := t.handle(&h); err != nil {
		return err
	}
	return t.TreeClient.Fsync(ctx, h, dataOnly)
}

// Fallocate implements fsrpc.Tree.
func (t *mappedTree) Fallocate(ctx context.Context, h fsrpc.HandleID, mode uint32, off, length uint64) error {
	if err := t.handle(&h); err != nil {
		return err
	}
	return t.TreeClient.Fallocate(ctx, h, mode, off, length)
}

// Lseek implements fsrpc.Tree.
func (t *mappedTree) Lseek(ctx context.Context, h fsrpc.HandleID, off uint64, whence uint32) (uint64, error) {
	if err := t.handle(&h); err != nil {
		return 0, err
	}
	return t.TreeClient.Lseek(ctx, h, off, whence)
}

// Release implements fsrpc.Tree.
func (t *mappedTree) Release(ctx context.Context, h fsrpc.HandleID) error {
	if err := t.handle(&h); err != nil {
		return err
	}
	return t.TreeClient.Release(ctx, h)
}
