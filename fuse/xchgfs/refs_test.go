package xchgfs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"winvm/fuse/xchgfs"
	"winvm/transport/fsrpc"
)

// counted is a Tree that counts lookup references and handles that are out.
type counted struct {
	fsrpc.Tree
	refs, open, forgets atomic.Int64
}

func (c *counted) ref(a fsrpc.Attr, err error) (fsrpc.Attr, error) {
	if err == nil {
		c.refs.Add(1)
	}
	return a, err
}

func (c *counted) Lookup(ctx context.Context, p fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	return c.ref(c.Tree.Lookup(ctx, p, name))
}

func (c *counted) Mkdir(ctx context.Context, p fsrpc.NodeID, name string, mode uint32) (fsrpc.Attr, error) {
	return c.ref(c.Tree.Mkdir(ctx, p, name, mode))
}

func (c *counted) Symlink(ctx context.Context, p fsrpc.NodeID, name, target string) (fsrpc.Attr, error) {
	return c.ref(c.Tree.Symlink(ctx, p, name, target))
}

func (c *counted) Link(ctx context.Context, n, p fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	return c.ref(c.Tree.Link(ctx, n, p, name))
}

func (c *counted) Create(ctx context.Context, p fsrpc.NodeID, name string, flags, mode uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	a, h, err := c.Tree.Create(ctx, p, name, flags, mode)
	if err == nil {
		c.refs.Add(1)
		c.open.Add(1)
	}
	return a, h, err
}

func (c *counted) Open(ctx context.Context, n fsrpc.NodeID, flags uint32) (fsrpc.HandleID, error) {
	h, err := c.Tree.Open(ctx, n, flags)
	if err == nil {
		c.open.Add(1)
	}
	return h, err
}

func (c *counted) Release(ctx context.Context, h fsrpc.HandleID) error {
	c.open.Add(-1)
	return c.Tree.Release(ctx, h)
}

func (c *counted) Readdir(ctx context.Context, h fsrpc.HandleID, off uint64, limit int, attrs bool) ([]fsrpc.DirEntry, error) {
	list, err := c.Tree.Readdir(ctx, h, off, limit, attrs)
	for _, e := range list {
		if e.Attr.Node != 0 {
			c.refs.Add(1)
		}
	}
	return list, err
}

func (c *counted) Forget(ctx context.Context, f []fsrpc.Forget) error {
	c.forgets.Add(1)
	for _, x := range f {
		c.refs.Add(-int64(x.Count))
	}
	return c.Tree.Forget(ctx, f)
}

// Every lookup reference and handle is given back, also those of listings that were
// broken off.
func TestReferencesGivenBack(t *testing.T) {
	tree, host := newTree(t)
	const files = 3000
	for i := range files {
		if err := os.WriteFile(filepath.Join(host, fmt.Sprintf("f%04d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &counted{Tree: tree}
	m := newMount(t, xchgfs.Config{})
	m.SetTree(c)
	for _, n := range []int{5, 700, -1} {
		d, err := os.Open(m.Dir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Readdir(n); err != nil {
			t.Error(err)
		}
		_ = d.Close()
	}
	_ = os.Symlink("x", filepath.Join(m.Dir(), "s"))
	_ = os.Link(filepath.Join(m.Dir(), "f0000"), filepath.Join(m.Dir(), "l"))
	_ = os.MkdirAll(filepath.Join(m.Dir(), "a/b"), 0o755)
	_ = os.WriteFile(filepath.Join(m.Dir(), "a/b/c"), []byte("x"), 0o644)
	if c.refs.Load() < files {
		t.Errorf("only %d references taken", c.refs.Load())
	}
	entries, err := os.ReadDir(m.Dir())
	if err != nil || len(entries) != files+3 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(m.Dir(), e.Name())); err != nil {
			t.Error(err)
		}
	}
	end := time.Now().Add(5 * time.Second)
	for (c.refs.Load() != 0 || c.open.Load() != 0) && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	if c.refs.Load() != 0 || c.open.Load() != 0 {
		t.Errorf("%d references and %d handles are left", c.refs.Load(), c.open.Load())
	}
	t.Logf("%d forget requests", c.forgets.Load())
}
