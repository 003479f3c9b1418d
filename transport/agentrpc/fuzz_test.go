package agentrpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"winvm/transport/rpc"
)

// idle is a Handler that does nothing.
type idle struct{ asked int }

func (h *idle) Hello(context.Context, HelloRequest) (HelloResponse, error) {
	h.asked++
	return HelloResponse{}, nil
}

func (h *idle) Attach(context.Context, AttachRequest) (AttachResponse, error) {
	h.asked++
	return AttachResponse{}, nil
}

func (h *idle) Guest(context.Context, GuestRequest) (GuestResponse, error) {
	h.asked++
	return GuestResponse{}, nil
}

func (h *idle) Sync(context.Context) error                 { h.asked++; return nil }
func (h *idle) Quiesce(context.Context) error              { h.asked++; return nil }
func (h *idle) Info(context.Context) (InfoResponse, error) { h.asked++; return InfoResponse{}, nil }

func (h *idle) Ping(context.Context) error                 { h.asked++; return nil }
func (h *idle) Warm(context.Context) (WarmResponse, error) { h.asked++; return WarmResponse{}, nil }
func (h *idle) Track(context.Context) error                { h.asked++; return nil }
func (h *idle) Touched(context.Context, TouchedRequest) (r TouchedResponse, err error) {
	h.asked++
	return r, nil
}
func (h *idle) Watch(context.Context) (r WatchResponse, err error) { h.asked++; return r, nil }

// FuzzDispatch: a request is carried out once, or refused with EPROTO or EOPNOTSUPP and
// not carried out.
func FuzzDispatch(f *testing.F) {
	f.Add(OpHello, []byte(`{"version":1,"seed":"AAAA"}`))
	f.Add(OpAttach, []byte(`{"shares":["xchg",null,""]}`))
	f.Add(OpGuest, []byte(`{"wait":-1}`))
	f.Add(OpGuest, []byte(`{"wait":1e999}`))
	f.Add(OpSync, []byte(`no JSON`))
	f.Add(OpTouched, []byte(`{"first":-1}`))
	f.Add(OpInfo, []byte(nil))
	f.Add(OpWatch, []byte(`[`))
	f.Add(uint16(999), []byte(`{}`))
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		var h idle
		var resp rpc.Response
		err := Dispatch(&h)(t.Context(), op, body, nil, &resp)
		refused := errors.Is(err, syscall.EPROTO) || errors.Is(err, syscall.EOPNOTSUPP)
		if err != nil && !refused || (err == nil) != (h.asked == 1) || h.asked > 1 {
			t.Errorf("%v, carried out %d times", err, h.asked)
		}
	})
}

// FuzzResponse: whatever the controller agent answers, the host agent gets a value or an
// error and goes on.
func FuzzResponse(f *testing.F) {
	f.Add([]byte(`{"connected":true,"failure":"x"}`))
	f.Add([]byte(`{"version":-1,"build":5}`))
	f.Add([]byte("{"))
	f.Add([]byte(`null`))
	f.Add([]byte(strings.Repeat("[", 10000)))
	var answer atomic.Pointer[[]byte]
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = rpc.Serve(context.Background(), there, func(_ context.Context, _ uint16, _, _ []byte, resp *rpc.Response) error {
			resp.Append(*answer.Load())
			return nil
		}, func(error) syscall.Errno { return syscall.EIO }, rpc.Limits{MaxRequest: MaxMessage, InFlight: 1}, slog.New(slog.DiscardHandler))
	}()
	c := NewClient(here)
	f.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > MaxMessage {
			return
		}
		answer.Store(&body)
		for _, call := range []func() error{
			func() error { _, err := c.Guest(t.Context(), GuestRequest{}); return err },
			func() error { _, err := c.Info(t.Context()); return err },
			func() error { _, err := c.Watch(t.Context()); return err },
			func() error { _, err := c.Attach(t.Context()); return err },
		} {
			if err := call(); errors.Is(err, rpc.ErrClosed) {
				t.Fatal(err)
			}
		}
	})
}
