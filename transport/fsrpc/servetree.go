package fsrpc

import (
	"context"
	"syscall"

	"winvm/transport/rpc"
	"winvm/transport/wire"
)

type treeHandler struct{ t Tree }

func (h treeHandler) handle(ctx context.Context, op uint16, d *wire.Decoder, resp *rpc.Response) error {
	switch op {
	case opLookup, opMkdir, opSymlink, opLink, opGetattr, opSetattr:
		a, err := h.attr(ctx, op, d)
		if err != nil {
			return err
		}
		e := wire.NewEncoder(make([]byte, 0, EntryOverhead))
		putAttr(e, &a)
		resp.Append(e.Bytes())
		return nil
	case opUnlink, opRmdir, opRename, opForget, opFsync, opFallocate, opRelease, opSync:
		return h.none(ctx, op, d)
	case opRead:
		n := HandleID(d.U64())
		return readInto(d, resp, func(off uint64, buf []byte) (int, error) {
			if off > maxOffset {
				return 0, syscall.EINVAL
			}
			return h.t.Read(ctx, n, off, buf)
		})
	case opWrite:
		return h.write(ctx, d)
	default:
		return h.other(ctx, op, d, resp)
	}
}

func (h treeHandler) write(ctx context.Context, d *wire.Decoder) error {
	n, off, data := HandleID(d.U64()), d.U64(), d.Rest()
	if len(data) > MaxData {
		d.Fail("write of %d bytes", len(data))
	}
	if d.Close() != nil {
		return d.Err()
	}
	if off > maxOffset {
		return syscall.EFBIG
	}
	_, err := h.t.Write(ctx, n, off, data)
	return err
}

// attr carries out the operations that answer with attributes.
func (h treeHandler) attr(ctx context.Context, op uint16, d *wire.Decoder) (Attr, error) {
	n := NodeID(d.U64())
	switch op {
	case opGetattr:
		fh := HandleID(d.U64())
		if d.Close() != nil {
			return Attr{}, d.Err()
		}
		return h.t.Getattr(ctx, n, fh)
	case opSetattr:
		fh, s := HandleID(d.U64()), getSetAttr(d)
		if d.Close() != nil {
			return Attr{}, d.Err()
		}
		return h.t.Setattr(ctx, n, fh, s)
	}
	name := getName(d)
	switch op {
	case opMkdir:
		mode := d.U32()
		if d.Close() != nil {
			return Attr{}, d.Err()
		}
		return h.t.Mkdir(ctx, n, name, mode)
	case opSymlink:
		target := d.String(MaxTarget)
		if d.Close() != nil {
			return Attr{}, d.Err()
		}
		return h.t.Symlink(ctx, n, name, target)
	case opLink:
		node := NodeID(d.U64())
		if d.Close() != nil {
			return Attr{}, d.Err()
		}
		return h.t.Link(ctx, node, n, name)
	default: // opLookup
		if d.Close() != nil {
			return Attr{}, d.Err()
		}
		return h.t.Lookup(ctx, n, name)
	}
}

// none carries out the operations that answer with nothing but success.
func (h treeHandler) none(ctx context.Context, op uint16, d *wire.Decoder) error {
	switch op {
	case opUnlink, opRmdir:
		n, name := NodeID(d.U64()), getName(d)
		if d.Close() != nil {
			return d.Err()
		}
		if op == opUnlink {
			return h.t.Unlink(ctx, n, name)
		}
		return h.t.Rmdir(ctx, n, name)
	case opRename:
		n, name, to, toName, flags := NodeID(d.U64()), getName(d), NodeID(d.U64()), getName(d), d.U32()
		if d.Close() != nil {
			return d.Err()
		}
		return h.t.Rename(ctx, n, name, to, toName, flags)
	case opForget:
		return h.forget(ctx, d)
	case opFsync:
		fh, dataOnly := HandleID(d.U64()), d.Bool()
		if d.Close() != nil {
			return d.Err()
		}
		return h.t.Fsync(ctx, fh, dataOnly)
	case opFallocate:
		fh, mode, off, length := HandleID(d.U64()), d.U32(), d.U64(), d.U64()
		if d.Close() != nil {
			return d.Err()
		}
		if off > maxOffset || length > maxOffset-off {
			return syscall.EFBIG
		}
		return h.t.Fallocate(ctx, fh, mode, off, length)
	case opRelease:
		fh := HandleID(d.U64())
		if d.Close() != nil {
			return d.Err()
		}
		return h.t.Release(ctx, fh)
	default: // opSync
		if d.Close() != nil {
			return d.Err()
		}
		return h.t.Sync(ctx)
	}
}

func (h treeHandler) forget(ctx context.Context, d *wire.Decoder) error {
	n := d.U32()
	if n > MaxForgets || d.Len() != int(n)*16 {
		d.Fail("%d nodes in a forget of %d bytes", n, d.Len())
		return d.Err()
	}
	f := make([]Forget, n)
	for i := range f {
		f[i] = Forget{Node: NodeID(d.U64()), Count: d.U64()}
	}
	if d.Close() != nil {
		return d.Err()
	}
	return h.t.Forget(ctx, f)
}

// other carries out the operations that answer with something else.
func (h treeHandler) other(ctx context.Context, op uint16, d *wire.Decoder, resp *rpc.Response) error {
	var e wire.Encoder
	var err error
	switch op {
	case opRealName:
		var real string
		n, name := NodeID(d.U64()), getName(d)
		if d.Close() == nil {
			real, err = h.t.RealName(ctx, n, name)
			e.String(real)
		}
	case opReadlink:
		var target string
		n := NodeID(d.U64())
		if d.Close() == nil {
			target, err = h.t.Readlink(ctx, n)
			e.String(target)
		}
	case opCreate:
		n, name, flags, mode := NodeID(d.U64()), getName(d), d.U32(), d.U32()
		if d.Close() == nil {
			var a Attr
			var fh HandleID
			a, fh, err = h.t.Create(ctx, n, name, flags, mode)
			putAttr(&e, &a)
			e.U64(uint64(fh))
		}
	case opOpen:
		var fh HandleID
		n, flags := NodeID(d.U64()), d.U32()
		if d.Close() == nil {
			fh, err = h.t.Open(ctx, n, flags)
			e.U64(uint64(fh))
		}
	case opReaddir:
		return h.readdir(ctx, d, resp)
	case opLseek:
		var v uint64
		fh, off, whence := HandleID(d.U64()), d.U64(), d.U32()
		if d.Close() == nil {
			v, err = h.t.Lseek(ctx, fh, off, whence)
			e.U64(v)
		}
	case opStatfs:
		var s Statfs
		if d.Close() == nil {
			s, err = h.t.Statfs(ctx)
			putStatfs(&e, &s)
		}
	default:
		return syscall.EOPNOTSUPP
	}
	resp.Append(e.Bytes())
	return err
}

func (h treeHandler) readdir(ctx context.Context, d *wire.Decoder, resp *rpc.Response) error {
	fh, off, n, attrs := HandleID(d.U64()), d.U64(), d.U32(), d.Bool()
	if n > MaxListing {
		d.Fail("listing of %d bytes", n)
	}
	if d.Close() != nil {
		return d.Err()
	}
	list, err := h.t.Readdir(ctx, fh, off, int(n), attrs)
	if err != nil {
		return err
	}
	var e wire.Encoder
	for i := range list {
		putEntry(&e, &list[i])
	}
	if len(e.Bytes()) > maxFrame {
		return syscall.EIO
	}
	resp.Append(e.Bytes())
	return nil
}
