package fsrpc

import (
	"context"
	"io"
	"syscall"

	"winvm/transport/wire"
)

var _ Tree = (*TreeClient)(nil)

// A TreeClient is the mount side of a share of KindTree.
type TreeClient struct{ client }

// AttachTree starts a client on a tree share's stream, which it owns from now
// on, also if it fails.
func AttachTree(ctx context.Context, conn io.ReadWriteCloser) (*TreeClient, error) {
	c, err := attach(ctx, conn, KindTree)
	if err != nil {
		return nil, err
	}
	return &TreeClient{c}, nil
}

func named(n NodeID, name string) *request {
	e := sized(64)
	e.U64(uint64(n))
	e.name(name)
	return e
}

// sized returns a request with room for n bytes.
func sized(n int) *request { return &request{Encoder: *wire.NewEncoder(make([]byte, 0, n))} }

// Lookup implements Tree.
func (c *TreeClient) Lookup(ctx context.Context, parent NodeID, name string) (Attr, error) {
	return c.attr(ctx, opLookup, named(parent, name))
}

// RealName implements Tree.
func (c *TreeClient) RealName(ctx context.Context, parent NodeID, name string) (string, error) {
	d, err := c.call(ctx, opRealName, named(parent, name))
	if err != nil {
		return "", err
	}
	s := getName(d)
	return s, d.Close()
}

// Forget implements Tree.
func (c *TreeClient) Forget(ctx context.Context, f []Forget) error {
	for len(f) > 0 {
		n := min(len(f), MaxForgets)
		var e request
		e.U32(uint32(n))
		for _, x := range f[:n] {
			e.U64(uint64(x.Node))
			e.U64(x.Count)
		}
		if err := c.none(ctx, opForget, &e); err != nil {
			return err
		}
		f = f[n:]
	}
	return nil
}

// Getattr implements Tree.
func (c *TreeClient) Getattr(ctx context.Context, n NodeID, h HandleID) (Attr, error) {
	var e request
	e.U64(uint64(n))
	e.U64(uint64(h))
	return c.attr(ctx, opGetattr, &e)
}

// Setattr implements Tree.
func (c *TreeClient) Setattr(ctx context.Context, n NodeID, h HandleID, s SetAttr) (Attr, error) {
	var e request
	e.U64(uint64(n))
	e.U64(uint64(h))
	putSetAttr(&e.Encoder, &s)
	return c.attr(ctx, opSetattr, &e)
}

// Readlink implements Tree.
func (c *TreeClient) Readlink(ctx context.Context, n NodeID) (string, error) {
	var e request
	e.U64(uint64(n))
	d, err := c.call(ctx, opReadlink, &e)
	if err != nil {
		return "", err
	}
	s := d.String(MaxTarget)
	return s, d.Close()
}

// Mkdir implements Tree.
func (c *TreeClient) Mkdir(ctx context.Context, parent NodeID, name string, mode uint32) (Attr, error) {
	e := named(parent, name)
	e.U32(mode)
	return c.attr(ctx, opMkdir, e)
}

// Symlink implements Tree.
func (c *TreeClient) Symlink(ctx context.Context, parent NodeID, name, target string) (Attr, error) {
	if len(target) > MaxTarget {
		return Attr{}, syscall.ENAMETOOLONG
	}
	e := named(parent, name)
	e.String(target)
	return c.attr(ctx, opSymlink, e)
}

// Link implements Tree.
func (c *TreeClient) Link(ctx context.Context, n NodeID, parent NodeID, name string) (Attr, error) {
	e := named(parent, name)
	e.U64(uint64(n))
	return c.attr(ctx, opLink, e)
}

// Create implements Tree.
func (c *TreeClient) Create(ctx context.Context, parent NodeID, name string, flags, mode uint32) (Attr, HandleID, error) {
	e := named(parent, name)
	e.U32(flags)
	e.U32(mode)
	d, err := c.call(ctx, opCreate, e)
	if err != nil {
		return Attr{}, NoHandle, err
	}
	a, h := getAttr(d), HandleID(d.U64())
	return a, h, d.Close()
}

// Unlink implements Tree.
func (c *TreeClient) Unlink(ctx context.Context, parent NodeID, name string) error {
	return c.none(ctx, opUnlink, named(parent, name))
}

// Rmdir implements Tree.
func (c *TreeClient) Rmdir(ctx context.Context, parent NodeID, name string) error {
	return c.none(ctx, opRmdir, named(parent, name))
}

// Rename implements Tree.
func (c *TreeClient) Rename(ctx context.Context, parent NodeID, name string, newParent NodeID, newName string, flags uint32) error {
	e := named(parent, name)
	e.U64(uint64(newParent))
	e.name(newName)
	e.U32(flags)
	return c.none(ctx, opRename, e)
}

// Open implements Tree.
func (c *TreeClient) Open(ctx context.Context, n NodeID, flags uint32) (HandleID, error) {
	var e request
	e.U64(uint64(n))
	e.U32(flags)
	d, err := c.call(ctx, opOpen, &e)
	if err != nil {
		return NoHandle, err
	}
	h := HandleID(d.U64())
	return h, d.Close()
}

// Read implements Tree.
func (c *TreeClient) Read(ctx context.Context, h HandleID, off uint64, buf []byte) (int, error) {
	e := sized(24)
	e.U64(uint64(h))
	return c.read(ctx, opRead, e, off, buf)
}

// Write implements Tree.
func (c *TreeClient) Write(ctx context.Context, h HandleID, off uint64, data []byte) (int, error) {
	if len(data) > MaxData {
		return 0, syscall.EINVAL
	}
	e := sized(16)
	e.U64(uint64(h))
	e.U64(off)
	body, err := c.rpc.Call(ctx, opWrite, e.Bytes(), data, nil)
	if err == nil {
		err = wire.NewDecoder(body).Close()
	}
	if err != nil {
		return 0, err
	}
	return len(data), nil
}

// Readdir implements Tree.
func (c *TreeClient) Readdir(ctx context.Context, h HandleID, off uint64, max int, attrs bool) ([]DirEntry, error) {
	if max < 0 {
		return nil, syscall.EINVAL
	}
	max = min(max, MaxListing)
	var e request
	e.U64(uint64(h))
	e.U64(off)
	e.U32(uint32(max))
	e.Bool(attrs)
	into := lists.Get().(*[MaxListing]byte)
	defer lists.Put(into) // entries hold copies
	d, err := c.callInto(ctx, opReaddir, &e, into[:])
	if err != nil {
		return nil, err
	}
	if d.Len() > max && d.Len() > EntryOverhead+MaxName {
		return nil, wire.Malformed("a listing of %d bytes where %d were wanted", d.Len(), max)
	}
	entries := make([]DirEntry, 0, d.Len()/EntryOverhead)
	for d.Len() > 0 && d.Err() == nil {
		entries = append(entries, getEntry(d))
	}
	return entries, d.Close()
}

// Fsync implements Tree.
func (c *TreeClient) Fsync(ctx context.Context, h HandleID, dataOnly bool) error {
	var e request
	e.U64(uint64(h))
	e.Bool(dataOnly)
	return c.none(ctx, opFsync, &e)
}

// Fallocate implements Tree.
func (c *TreeClient) Fallocate(ctx context.Context, h HandleID, mode uint32, off, length uint64) error {
	var e request
	e.U64(uint64(h))
	e.U32(mode)
	e.U64(off)
	e.U64(length)
	return c.none(ctx, opFallocate, &e)
}

// Lseek implements Tree.
func (c *TreeClient) Lseek(ctx context.Context, h HandleID, off uint64, whence uint32) (uint64, error) {
	var e request
	e.U64(uint64(h))
	e.U64(off)
	e.U32(whence)
	d, err := c.call(ctx, opLseek, &e)
	if err != nil {
		return 0, err
	}
	v := d.U64()
	return v, d.Close()
}

// Release implements Tree.
func (c *TreeClient) Release(ctx context.Context, h HandleID) error {
	var e request
	e.U64(uint64(h))
	return c.none(ctx, opRelease, &e)
}

// Statfs implements Tree.
func (c *TreeClient) Statfs(ctx context.Context) (Statfs, error) {
	d, err := c.call(ctx, opStatfs, &request{})
	if err != nil {
		return Statfs{}, err
	}
	s := getStatfs(d)
	return s, d.Close()
}

// Sync implements Tree.
func (c *TreeClient) Sync(ctx context.Context) error { return c.none(ctx, opSync, &request{}) }
