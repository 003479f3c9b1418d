package agentrpc

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"syscall"

	"winvm/transport/rpc"
)

// A Client is the host side of the stream "agent".
type Client struct{ rpc *rpc.Client }

// NewClient starts a client on conn, which it owns from now on.
func NewClient(conn io.ReadWriteCloser) *Client {
	return &Client{rpc: rpc.NewClient(conn, MaxMessage)}
}

// Close ends the stream.
func (c *Client) Close() error { return c.rpc.Close() }

func (c *Client) call(ctx context.Context, op uint16, req, resp any) error {
	var body []byte
	if req != nil {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return err
		}
	}
	out, err := c.rpc.Call(ctx, op, body, nil, nil)
	if err != nil || resp == nil {
		return err
	}
	if err := json.Unmarshal(out, resp); err != nil {
		return fmt.Errorf("response of the controller agent: %w: %w", err, syscall.EPROTO)
	}
	return nil
}

// Hello checks that the two agents fit together.
func (c *Client) Hello(ctx context.Context) (HelloResponse, error) {
	var r HelloResponse
	seed := make([]byte, SeedSize)
	_, _ = rand.Read(seed) // never fails
	if err := c.call(ctx, OpHello, HelloRequest{Version: Version, Seed: seed}, &r); err != nil {
		return r, err
	}
	if r.Version != Version {
		return r, fmt.Errorf("the controller agent speaks version %d, this host agent %d: `hostagent suspend` brings the image up to date", r.Version, Version)
	}
	return r, nil
}

// Attach puts the shares of this session behind the controller's mounts.
func (c *Client) Attach(ctx context.Context, shares ...string) (AttachResponse, error) {
	var r AttachResponse
	return r, c.call(ctx, OpAttach, AttachRequest{Shares: shares}, &r)
}

// Guest waits for the SSH connection to the guest.
func (c *Client) Guest(ctx context.Context, req GuestRequest) (GuestResponse, error) {
	var r GuestResponse
	return r, c.call(ctx, OpGuest, req, &r)
}

// Sync returns when everything written through the controller's mounts is on the
// host, or tells what was lost.
func (c *Client) Sync(ctx context.Context) error { return c.call(ctx, OpSync, nil, nil) }

// Quiesce makes the controller ready for the suspend: shares detached, nothing
// on its way. The session has to be closed next.
func (c *Client) Quiesce(ctx context.Context) error { return c.call(ctx, OpQuiesce, nil, nil) }

// Info asks for what tests and people want to see.
func (c *Client) Info(ctx context.Context) (InfoResponse, error) {
	var r InfoResponse
	return r, c.call(ctx, OpInfo, nil, &r)
}

// Watch waits until something went wrong in the controller, and tells what.
func (c *Client) Watch(ctx context.Context) (WatchResponse, error) {
	var r WatchResponse
	return r, c.call(ctx, OpWatch, nil, &r)
}

// Track has the controller agent note which files of the store are opened and read.
func (c *Client) Track(ctx context.Context) error { return c.call(ctx, OpTrack, nil, nil) }

// Touched returns what was noted since Track, and whether some of it is missing.
func (c *Client) Touched(ctx context.Context) (list []TouchedFile, partial bool, err error) {
	return c.touched(ctx, MaxTouched, MaxTouchedBytes)
}

func (c *Client) touched(ctx context.Context, maxFiles, maxBytes int) (list []TouchedFile, partial bool, err error) {
	for bytes := 0; ; {
		var r TouchedResponse
		if err := c.call(ctx, OpTouched, TouchedRequest{First: len(list)}, &r); err != nil {
			return nil, false, err
		}
		partial = partial || r.Partial
		if len(r.Files) == 0 {
			return list, partial, nil
		}
		for _, f := range r.Files {
			bytes += len(f.Path)
		}
		if len(list)+len(r.Files) > maxFiles || bytes > maxBytes {
			return nil, false, fmt.Errorf("the controller agent tells of more than %d files, or %d bytes of their paths: %w", maxFiles, maxBytes, syscall.EPROTO)
		}
		list = append(list, r.Files...)
	}
}

// Warm has everything that the share nixstore has read into the controller's caches.
func (c *Client) Warm(ctx context.Context) (WarmResponse, error) {
	var r WarmResponse
	return r, c.call(ctx, OpWarm, nil, &r)
}

// Ping returns when the guest's SSH server has answered over the connection that there is.
func (c *Client) Ping(ctx context.Context) error { return c.call(ctx, OpPing, nil, nil) }

// A Handler carries out the requests of the stream "agent".
type Handler interface {
	Hello(ctx context.Context, r HelloRequest) (HelloResponse, error)
	Attach(ctx context.Context, r AttachRequest) (AttachResponse, error)
	Guest(ctx context.Context, r GuestRequest) (GuestResponse, error)
	Sync(ctx context.Context) error
	Quiesce(ctx context.Context) error
	Info(ctx context.Context) (InfoResponse, error)
	Watch(ctx context.Context) (WatchResponse, error)
	Warm(ctx context.Context) (WarmResponse, error)
	Ping(ctx context.Context) error
	Track(ctx context.Context) error
	Touched(ctx context.Context, r TouchedRequest) (TouchedResponse, error)
}

// Dispatch is the rpc.Handler that serves h.
func Dispatch(h Handler) rpc.Handler {
	return func(ctx context.Context, op uint16, body, _ []byte, resp *rpc.Response) error {
		switch op {
		case OpHello:
			return answer(ctx, body, resp, h.Hello)
		case OpAttach:
			return answer(ctx, body, resp, h.Attach)
		case OpGuest:
			return answer(ctx, body, resp, h.Guest)
		case OpSync:
			return h.Sync(ctx)
		case OpQuiesce:
			return h.Quiesce(ctx)
		case OpInfo:
			return answer(ctx, nil, resp, func(ctx context.Context, _ struct{}) (InfoResponse, error) { return h.Info(ctx) })
		case OpWatch:
			return answer(ctx, nil, resp, func(ctx context.Context, _ struct{}) (WatchResponse, error) { return h.Watch(ctx) })
		case OpWarm:
			return answer(ctx, nil, resp, func(ctx context.Context, _ struct{}) (WarmResponse, error) { return h.Warm(ctx) })
		case OpPing:
			return h.Ping(ctx)
		case OpTrack:
			return h.Track(ctx)
		case OpTouched:
			return answer(ctx, body, resp, h.Touched)
		default:
			return syscall.EOPNOTSUPP
		}
	}
}

func answer[Req, Resp any](ctx context.Context, body []byte, resp *rpc.Response, f func(context.Context, Req) (Resp, error)) error {
	var req Req
	if len(body) > 0 {
		if err := json.Unmarshal(body, &req); err != nil {
			return fmt.Errorf("request: %w: %w", err, syscall.EPROTO)
		}
	}
	r, err := f(ctx, req)
	if err != nil {
		return err
	}
	out, err := json.Marshal(r)
	if err != nil {
		return err
	}
	resp.Append(out)
	return nil
}
