package fsrpc

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"

	"winvm/transport/rpc"
	"winvm/transport/shm"
	"winvm/transport/wire"
)

// A client is the mount side of one share, of either kind.
type client struct{ rpc *rpc.Client }

// attach starts a client on a share's stream, which it owns from now on, also
// if it fails.
func attach(ctx context.Context, conn io.ReadWriteCloser, kind ShareKind) (client, error) {
	c := client{rpc: rpc.NewClient(conn, maxFrame)}
	c.rpc.UseLane(shm.Of(conn))
	var e request
	e.U16(Version)
	e.U8(uint8(kind))
	d, err := c.call(ctx, opAttach, &e)
	if err == nil {
		if v := d.U16(); d.Close() != nil || v != Version {
			err = fmt.Errorf("share protocol version %d, ours is %d: %w", v, Version, syscall.EPROTO)
		}
	}
	if err != nil {
		_ = c.Close()
		return client{}, fmt.Errorf("attach to %v share: %w", kind, err)
	}
	return c, nil
}

// Done is closed when the stream has ended.
func (c client) Done() <-chan struct{} { return c.rpc.Done() }

// Err tells why the stream ended.
func (c client) Err() error { return c.rpc.Err() }

// Close ends the stream; requests in flight fail.
func (c client) Close() error { return c.rpc.Close() }

// A request is the body of one, while it is put together.
type request struct {
	wire.Encoder
	err error // an argument that can't be sent
}

// name appends a file name; one that isn't fails the call, with the errno that a
// file system has for it.
func (e *request) name(s string) {
	switch {
	case len(s) > MaxName:
		e.err = syscall.ENAMETOOLONG
	case !wire.ValidName(s):
		e.err = syscall.EINVAL
	default:
		e.String(s)
	}
}

func (c client) call(ctx context.Context, op uint16, e *request) (*wire.Decoder, error) {
	return c.callInto(ctx, op, e, nil)
}

// callInto is call with a buffer for the response; a large one can come through the
// lane. The decoder is valid for as long as the buffer is.
func (c client) callInto(ctx context.Context, op uint16, e *request, into []byte) (*wire.Decoder, error) {
	if e.err != nil {
		return nil, e.err
	}
	body, err := c.rpc.Call(ctx, op, e.Bytes(), nil, into)
	if err != nil {
		return nil, err
	}
	return wire.NewDecoder(body), nil
}

// none makes a call whose response has no body.
func (c client) none(ctx context.Context, op uint16, e *request) error {
	d, err := c.call(ctx, op, e)
	if err != nil {
		return err
	}
	return d.Close()
}

// attr makes a call whose response is attributes.
func (c client) attr(ctx context.Context, op uint16, e *request) (Attr, error) {
	d, err := c.call(ctx, op, e)
	if err != nil {
		return Attr{}, err
	}
	a := getAttr(d)
	return a, d.Close()
}

// lists are buffers for listings, of which much is left over as a rule.
var lists = sync.Pool{New: func() any { return new([MaxListing]byte) }}

// read makes a call that fills buf from offset off.
func (c client) read(ctx context.Context, op uint16, e *request, off uint64, buf []byte) (int, error) {
	if len(buf) > MaxData {
		return 0, syscall.EINVAL
	}
	e.U64(off)
	e.U32(uint32(len(buf)))
	body, err := c.rpc.Call(ctx, op, e.Bytes(), nil, buf)
	if err != nil {
		return 0, err
	}
	if len(body) > len(buf) {
		return 0, wire.Malformed("%d bytes read where %d were wanted", len(body), len(buf))
	}
	return len(body), nil
}
