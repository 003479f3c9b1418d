package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Responses that break the rules end the connection with ErrProtocol, and the
// call that was waiting doesn't hang.
func TestHostileServer(t *testing.T) {
	tests := map[string]func(req header) header{
		"unknown tag":     func(r header) header { return header{tag: r.tag + 1, op: r.op} },
		"wrong operation": func(r header) header { return header{tag: r.tag, op: r.op + 1} },
		"too long":        func(r header) header { return header{length: 1<<16 + 1, tag: r.tag, op: r.op} },
		"4 GiB":           func(r header) header { return header{length: 1<<32 - 1, tag: r.tag, op: r.op} },
		"long error":      func(r header) header { return header{length: maxErrorText + 1, tag: r.tag, op: r.op, errno: 5} },
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			cc, sc := socketpair(t)
			defer sc.Close()
			c := NewClient(cc, 1<<16)
			done := make(chan error, 1)
			go func() {
				_, err := c.Call(t.Context(), opEcho, []byte("x"), nil, make([]byte, 10))
				done <- err
			}()
			peer := hostile{t, sc}
			hd, _ := peer.receive()
			peer.send(answer(hd), nil)
			select {
			case err := <-done:
				if !errors.Is(err, ErrProtocol) {
					t.Errorf("%v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the call hangs")
			}
			<-c.Done()
			if err := c.Err(); !errors.Is(err, ErrProtocol) {
				t.Errorf("Err: %v", err)
			}
		})
	}
}

// A response that was sent twice: the second has no request.
func TestAnsweredTwice(t *testing.T) {
	cc, sc := socketpair(t)
	defer sc.Close()
	c := NewClient(cc, 1<<16)
	done := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), opEcho, nil, nil, nil)
		done <- err
	}()
	peer := hostile{t, sc}
	hd, _ := peer.receive()
	answer := peer.frame(header{tag: hd.tag, op: hd.op}, nil)
	if _, err := sc.Write(append(answer, answer...)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("%v", err)
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, ErrProtocol) {
		t.Errorf("Err: %v", err)
	}
}

// A server that answers nothing but hangs up, at once or in the middle of a frame.
func TestHangUps(t *testing.T) {
	for _, part := range []int{0, 5, headerSize, headerSize + 50} {
		cc, sc := socketpair(t)
		c := NewClient(cc, 1<<16)
		done := make(chan error, 1)
		go func() {
			_, err := c.Call(t.Context(), opEcho, nil, nil, nil)
			done <- err
		}()
		peer := hostile{t, sc}
		hd, _ := peer.receive()
		frame := peer.frame(header{length: 100, tag: hd.tag, op: hd.op}, make([]byte, 100))
		if _, err := sc.Write(frame[:part]); err != nil {
			t.Fatal(err)
		}
		_ = sc.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("after %d bytes: %v", part, err)
		}
		_ = c.Close()
	}
}

func TestHostileClient(t *testing.T) {
	tests := map[string]header{
		"one byte too long": {length: 1001, op: opEcho},
		"4 GiB":             {length: 1<<32 - 1, op: opEcho},
		"last field":        {op: opEcho, errno: 1},
	}
	for name, hd := range tests {
		t.Run(name, func(t *testing.T) {
			cc, sc := socketpair(t)
			defer cc.Close()
			s := serve(t, sc, echo, Limits{MaxRequest: 1000, InFlight: 2})
			hostile{t, cc}.send(hd, nil)
			if err := s.wait(t); !errors.Is(err, ErrProtocol) {
				t.Errorf("%v", err)
			}
			if _, err := cc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the connection isn't closed: %v", err)
			}
		})
	}
}

// What doesn't fit is refused before memory is taken for it.
func TestNoAllocationBeforeTheCheck(t *testing.T) {
	cc, sc := socketpair(t)
	defer cc.Close()
	s := serve(t, sc, echo, Limits{MaxRequest: 1 << 10, InFlight: 2})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	hostile{t, cc}.send(header{length: 1 << 30, op: opEcho}, nil)
	_ = s.wait(t)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

func TestServerHangUp(t *testing.T) {
	tests := []struct {
		name string
		send []byte
		want error
	}{
		{"at once", nil, nil},
		{"after a request", hostile{}.frame(header{length: 1, op: opEcho}, []byte("x")), nil},
		{"in a header", make([]byte, 5), io.ErrUnexpectedEOF},
		{"before a body", hostile{}.frame(header{length: 9}, nil), io.ErrUnexpectedEOF},
		{"in a body", hostile{}.frame(header{length: 9}, []byte("x")), io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cc, sc := net.Pipe()
			s := serve(t, sc, echo, someLimits)
			if _, err := cc.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			_ = cc.Close()
			if err := s.wait(t); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// ctx ends while handlers are at work and a response can't be written: Serve
// closes the connection and returns when they have ended.
func TestServeContextEnds(t *testing.T) {
	overLinks(t, func(t *testing.T, cc, sc net.Conn) {
		var running atomic.Int32
		s := serve(t, sc, func(ctx context.Context, op uint16, _, _ []byte, resp *Response) error {
			running.Add(1)
			defer running.Add(-1)
			if op == opGrow {
				resp.Grow(1 << 20) // nobody reads it
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}, someLimits)
		peer := hostile{t, cc}
		for i := range 8 {
			peer.send(header{tag: uint32(i), op: opWaitCtx}, nil)
		}
		waitFor(t, func() bool { return running.Load() == 8 })
		for i := range 4 {
			peer.send(header{tag: uint32(8 + i), op: opGrow}, nil)
		}
		s.cancel()
		if err := s.wait(t); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if running.Load() != 0 {
			t.Errorf("%d handlers at work after Serve returned", running.Load())
		}
		if _, err := sc.Write([]byte("x")); err == nil {
			t.Error("the connection is open after Serve returned")
		}
	})
}

// No more than InFlight handlers run; beyond that the peer can't even send.
func TestInFlightBound(t *testing.T) {
	cc, sc := net.Pipe()
	var running, most atomic.Int32
	release := make(chan struct{})
	serve(t, sc, func(_ context.Context, _ uint16, body, _ []byte, resp *Response) error {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		resp.Append(body)
		return nil
	}, Limits{MaxRequest: 200_000, InFlight: 3})
	sent := make(chan int, 1)
	go func() { // until the server stops reading
		n := 0
		for ; n < 20; n++ {
			_ = cc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := cc.Write(hostile{}.frame(header{length: 100_000, tag: uint32(n), op: opEcho}, make([]byte, 100_000))); err != nil {
				break
			}
		}
		sent <- n
	}()
	// Three at work, the fourth partly in the reader's buffer.
	if n := <-sent; n != 3 {
		t.Errorf("the server took %d requests, its limit is 3", n)
	}
	waitFor(t, func() bool { return running.Load() == 3 })
	close(release)
	peer := hostile{t, cc}
	for range 3 {
		if hd, body := peer.receive(); hd.errno != 0 || len(body) != 100_000 {
			t.Errorf("%+v", hd)
		}
	}
	if most.Load() != 3 {
		t.Errorf("%d handlers at once", most.Load())
	}
	_ = cc.Close()
}

// A panic is answered with EIO and logged with its stack.
func TestPanicIsLogged(t *testing.T) {
	cc, sc := net.Pipe()
	var logged bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, sc, echo, errnoOf, someLimits, slog.New(slog.NewTextHandler(&logged, nil)))
	}()
	c := NewClient(cc, 1<<10)
	if _, err := c.Call(ctx, opPanic, nil, nil, nil); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	_ = c.Close()
	cancel()
	<-done
	if !strings.Contains(logged.String(), "panicked") || !strings.Contains(logged.String(), "main_test.go") {
		t.Errorf("logged %q", logged.String())
	}
}
