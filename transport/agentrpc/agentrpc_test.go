package agentrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/transport/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fake handler answers with fixed values, or err.
type fake struct {
	mu    sync.Mutex
	asked []string
	err   error
}

var _ Handler = (*fake)(nil)

func (f *fake) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fake) Hello(_ context.Context, r HelloRequest) (HelloResponse, error) {
	return HelloResponse{Version: r.Version, Build: "b"}, f.note("Hello %d, seed of %d", r.Version, len(r.Seed))
}

func (f *fake) Attach(_ context.Context, r AttachRequest) (AttachResponse, error) {
	return AttachResponse{Took: time.Second}, f.note("Attach %+v", r)
}

func (f *fake) Guest(_ context.Context, r GuestRequest) (GuestResponse, error) {
	return guestResponse, f.note("Guest %+v", r)
}

func (f *fake) Sync(context.Context) error { return f.note("Sync") }

func (f *fake) Quiesce(context.Context) error { return f.note("Quiesce") }

func (f *fake) Info(context.Context) (InfoResponse, error) {
	return InfoResponse{Guest: guestResponse, SMBStatus: "{}", SMBPid: 9, Mounts: "a\nb"}, f.note("Info")
}

func (f *fake) Watch(ctx context.Context) (WatchResponse, error) {
	if err := f.note("Watch"); err != nil {
		return WatchResponse{}, err
	}
	<-ctx.Done()
	return WatchResponse{Failure: "smbd"}, nil
}

func (f *fake) Ping(context.Context) error { return f.note("Ping") }

func (f *fake) Warm(context.Context) (WarmResponse, error) {
	return WarmResponse{Files: 3, Bytes: 1 << 40, Took: time.Second}, f.note("Warm")
}

func (f *fake) Track(context.Context) error { return f.note("Track") }

func (f *fake) Touched(_ context.Context, r TouchedRequest) (TouchedResponse, error) {
	list := []TouchedFile{{Path: "a", Read: true}, {Path: "b"}}
	return TouchedResponse{Files: list[min(r.First, 2):min(r.First+1, 2)], Partial: r.First == 1}, f.note("Touched %d", r.First)
}

var guestResponse = GuestResponse{Connected: true, Local: "192.168.0.2:1", Remote: "192.168.0.1:22", State: "connected"}

// dial serves handle and returns the other end of its connection.
func dial(t *testing.T, handle rpc.Handler) net.Conn {
	t.Helper()
	cc, sc := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- rpc.Serve(ctx, sc, handle, errnoOf, rpc.Limits{MaxRequest: MaxMessage, InFlight: 4}, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = cc.Close()
	})
	return cc
}

func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return syscall.EIO
}

func TestRequests(t *testing.T) {
	f := &fake{}
	c := NewClient(dial(t, Dispatch(f)))
	defer c.Close()
	ctx := t.Context()
	hello, err := c.Hello(ctx)
	if err != nil || hello.Version != Version || hello.Build != "b" {
		t.Errorf("%+v, %v", hello, err)
	}
	if r, err := c.Attach(ctx, "nixstore", "xchg"); err != nil || r.Took != time.Second {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := c.Guest(ctx, GuestRequest{Wait: 3 * time.Second}); err != nil || r != guestResponse {
		t.Errorf("%+v, %v", r, err)
	}
	if err := errors.Join(c.Sync(ctx), c.Quiesce(ctx)); err != nil {
		t.Error(err)
	}
	if r, err := c.Info(ctx); err != nil || r.SMBPid != 9 || r.Mounts != "a\nb" || r.Guest != guestResponse {
		t.Errorf("%+v, %v", r, err)
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	if _, err := c.Watch(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if w, err := c.Warm(t.Context()); err != nil || w != (WarmResponse{Files: 3, Bytes: 1 << 40, Took: time.Second}) {
		t.Errorf("warm: %+v, %v", w, err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Track(ctx); err != nil {
		t.Error(err)
	}
	if list, partial, err := c.Touched(ctx); err != nil || !partial || !reflect.DeepEqual(list, []TouchedFile{{Path: "a", Read: true}, {Path: "b"}}) {
		t.Errorf("touched: %+v, %v, %v", list, partial, err)
	}
	want := []string{"Hello 1, seed of 32", "Attach {Shares:[nixstore xchg]}", "Guest {Wait:3s}", "Sync", "Quiesce", "Info", "Watch", "Warm", "Ping", "Track", "Touched 0", "Touched 1", "Touched 2"}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !reflect.DeepEqual(f.asked, want) {
		t.Errorf("asked %q", f.asked)
	}
}

// Every request fails with what the handler says.
func TestRequestsFail(t *testing.T) {
	c := NewClient(dial(t, Dispatch(&fake{err: fmt.Errorf("the disk: %w", syscall.ENOSPC)})))
	defer c.Close()
	ctx := t.Context()
	calls := map[string]func() error{
		"hello":   func() error { _, err := c.Hello(ctx); return err },
		"attach":  func() error { _, err := c.Attach(ctx); return err },
		"guest":   func() error { _, err := c.Guest(ctx, GuestRequest{}); return err },
		"sync":    func() error { return c.Sync(ctx) },
		"quiesce": func() error { return c.Quiesce(ctx) },
		"info":    func() error { _, err := c.Info(ctx); return err },
		"watch":   func() error { _, err := c.Watch(ctx); return err },
		"ping":    func() error { return c.Ping(ctx) },
		"warm":    func() error { _, err := c.Warm(ctx); return err },
		"track":   func() error { return c.Track(ctx) },
		"touched": func() error { _, _, err := c.Touched(ctx); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	f := &fake{}
	c := rpc.NewClient(dial(t, Dispatch(f)), MaxMessage)
	defer c.Close()
	for _, op := range []uint16{0, 1000, 1<<16 - 1} {
		if _, err := c.Call(t.Context(), op, nil, nil, nil); !errors.Is(err, syscall.EOPNOTSUPP) {
			t.Errorf("operation %d: %v", op, err)
		}
	}
	for _, op := range []uint16{OpHello, OpAttach, OpGuest} {
		for _, body := range []string{"{", "[]", `"x"`, "\x00", `{"version":"x","shares":1,"wait_ns":"x"}`} {
			if _, err := c.Call(t.Context(), op, []byte(body), nil, nil); !errors.Is(err, syscall.EPROTO) {
				t.Errorf("operation %d with %s: %v", op, body, err)
			}
		}
	}
	if len(f.asked) != 0 {
		t.Errorf("carried out: %q", f.asked)
	}
}

// A controller agent that answers what it shouldn't.
func TestBadResponses(t *testing.T) {
	ctx := t.Context()
	for _, body := range []string{"", "{", "[]", `{"version":"x","took_ns":"x","connected":1,"failure":2,"smbd_pid":"x"}`} {
		c := NewClient(dial(t, func(_ context.Context, _ uint16, _, _ []byte, resp *rpc.Response) error {
			resp.Append([]byte(body))
			return nil
		}))
		calls := map[string]func() error{
			"hello":  func() error { _, err := c.Hello(ctx); return err },
			"attach": func() error { _, err := c.Attach(ctx); return err },
			"guest":  func() error { _, err := c.Guest(ctx, GuestRequest{}); return err },
			"info":   func() error { _, err := c.Info(ctx); return err },
			"watch":  func() error { _, err := c.Watch(ctx); return err },
		}
		for name, call := range calls {
			if err := call(); !errors.Is(err, syscall.EPROTO) {
				t.Errorf("%s with %q: %v", name, body, err)
			}
		}
		_ = c.Close()
	}
	// Longer than a message may be: the connection ends.
	c := NewClient(dial(t, func(_ context.Context, _ uint16, _, _ []byte, resp *rpc.Response) error {
		resp.Grow(MaxMessage + 1)
		return nil
	}))
	defer c.Close()
	if _, err := c.Info(ctx); !errors.Is(err, rpc.ErrProtocol) {
		t.Errorf("%v", err)
	}
}

// A list of touched files that has no end is taken up to a bound of files, and of bytes.
func TestTouchedWithoutEnd(t *testing.T) {
	asked := 0
	c := NewClient(dial(t, func(_ context.Context, _ uint16, _, _ []byte, resp *rpc.Response) error {
		asked++
		b, err := json.Marshal(TouchedResponse{Files: []TouchedFile{{Path: strings.Repeat("x", 100)}, {}}})
		resp.Append(b)
		return err
	}))
	defer c.Close()
	for _, bound := range []struct{ files, bytes, answers int }{{10, 1 << 20, 6}, {1 << 20, 1000, 11}} {
		asked = 0
		if list, _, err := c.touched(t.Context(), bound.files, bound.bytes); !errors.Is(err, syscall.EPROTO) || list != nil || asked != bound.answers {
			t.Errorf("%+v: %d files, %v after %d answers", bound, len(list), err, asked)
		}
	}
}

func TestOtherVersion(t *testing.T) {
	c := NewClient(dial(t, func(_ context.Context, _ uint16, _, _ []byte, resp *rpc.Response) error {
		b, err := json.Marshal(HelloResponse{Version: Version + 1})
		resp.Append(b)
		return err
	}))
	defer c.Close()
	if _, err := c.Hello(t.Context()); err == nil || !strings.Contains(err.Error(), "hostagent suspend") {
		t.Errorf("%v", err)
	}
}

// The controller's death in the middle of a request.
func TestConnectionEnds(t *testing.T) {
	cc, sc := net.Pipe()
	c := NewClient(cc)
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		_, err := c.Watch(t.Context())
		done <- err
	}()
	_, _ = io.ReadFull(sc, make([]byte, 12))
	_ = sc.Close()
	if err := <-done; !errors.Is(err, rpc.ErrClosed) {
		t.Errorf("%v", err)
	}
}
