package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Many calls at once, of all sizes, are answered in any order, each with its own.
func TestManyInFlight(t *testing.T) {
	overLinks(t, func(t *testing.T, cc, sc net.Conn) {
		s := serve(t, sc, echo, someLimits)
		c := newClient(cc)
		calls, biggest := 40, 100_000
		if b, ok := cc.(*badLink); ok && b.maxPiece > 0 {
			calls, biggest = 20, 2000
		}
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), 1))
				for range calls {
					data := make([]byte, r.IntN(biggest)>>r.IntN(12))
					for i := range data {
						data[i] = byte(r.Uint32())
					}
					var into []byte
					if r.IntN(2) == 0 {
						into = make([]byte, r.IntN(2*len(data)+1))
					}
					cut := r.IntN(len(data) + 1)
					got, err := c.Call(t.Context(), opEcho, data[:cut], data[cut:], into)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
						return
					}
					if len(into) >= len(data) && len(data) > 0 && &got[0] != &into[0] {
						t.Error("the body isn't in the buffer it was given")
					}
				}
			})
		}
		wg.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := s.wait(t); err != nil {
			t.Errorf("Serve after a hang-up: %v", err)
		}
	})
}

func TestErrors(t *testing.T) {
	overLinks(t, func(t *testing.T, cc, sc net.Conn) {
		serve(t, sc, echo, someLimits)
		c := newClient(cc)
		defer c.Close()
		_, err := c.Call(t.Context(), opFail, []byte{byte(syscall.ENOENT), 0}, []byte("no such thing"), nil)
		var e *Error
		if !errors.Is(err, syscall.ENOENT) || !errors.As(err, &e) || err.Error() != "no such thing" {
			t.Errorf("%v", err)
		}
		_, err = c.Call(t.Context(), opFail, []byte{byte(syscall.ENOSPC), 0}, nil, nil)
		if !errors.Is(err, syscall.ENOSPC) || err.Error() != syscall.ENOSPC.Error() {
			t.Errorf("%v", err)
		}
		// A text that is too long is cut; the buffer stays untouched.
		into := bytes.Repeat([]byte{7}, 2000)
		_, err = c.Call(t.Context(), opFail, []byte{1, 0}, bytes.Repeat([]byte("x"), 5000), into)
		if !errors.Is(err, syscall.EPERM) || err.Error() != strings.Repeat("x", maxErrorText) {
			t.Errorf("%v", err)
		}
		if !bytes.Equal(into, bytes.Repeat([]byte{7}, 2000)) {
			t.Error("an error's text was written into the caller's buffer")
		}
		// Numbers that can't be sent, or would mean success, are EIO.
		for _, n := range []int{0, 512, 65535} {
			_, err = c.Call(t.Context(), opFail, []byte{byte(n), byte(n >> 8)}, nil, nil)
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("errno %d: %v", n, err)
			}
		}
		for range 3 {
			if _, err = c.Call(t.Context(), opPanic, nil, nil, nil); !errors.Is(err, syscall.EIO) {
				t.Errorf("panic: %v", err)
			}
		}
		if _, err = c.Call(t.Context(), 99, nil, nil, nil); !errors.Is(err, syscall.EOPNOTSUPP) {
			t.Errorf("unknown operation: %v", err)
		}
		if got, err := c.Call(t.Context(), opGrow, number(100), nil, nil); err != nil || len(got) != 100 || got[99] != 99 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestResponse(t *testing.T) {
	var r Response
	r.Append([]byte("ab"))
	copy(r.Grow(5), "cdefg")
	r.Shrink(3)
	r.Append([]byte("h"))
	if got := string(r.buf[headerSize:]); got != "abcdh" {
		t.Errorf("%q", got)
	}
}

// A link that breaks somewhere fails the calls with ErrClosed; no call hangs.
func TestCut(t *testing.T) {
	for _, after := range []int{1, 11, 12, 13, 500, 1012, 1013, 5000, 70000} {
		for _, side := range []string{"client", "server"} {
			t.Run(fmt.Sprint(side, after), func(t *testing.T) {
				cc, sc := socketpair(t)
				if side == "client" {
					cc = &badLink{Conn: cc, cutAfter: after}
				} else {
					sc = &badLink{Conn: sc, cutAfter: after}
				}
				s := serve(t, sc, echo, someLimits)
				c := newClient(cc)
				callUntilDead(t, c)
				_ = c.Close()
				_ = s.wait(t)
			})
		}
	}
}

func callUntilDead(t *testing.T, c *Client) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte(w)}, 1000)
			for range 1000 {
				got, err := c.Call(t.Context(), opEcho, data, nil, make([]byte, 1000))
				var remote *Error
				switch {
				case errors.Is(err, ErrClosed), errors.Is(err, ErrProtocol):
					return
				case errors.As(err, &remote): // a garbled operation
				case err != nil:
					t.Errorf("neither ErrClosed nor ErrProtocol: %v", err)
					return
				case len(got) != 1000:
					t.Errorf("%d bytes", len(got))
				}
			}
			t.Error("a thousand calls over a dead link")
		})
	}
	wg.Wait()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done isn't closed")
	}
	if err := c.Err(); !errors.Is(err, ErrClosed) && !errors.Is(err, ErrProtocol) {
		t.Errorf("Err: %v", err)
	}
	if _, err := c.Call(t.Context(), opEcho, nil, nil, nil); err == nil {
		t.Error("a call after the end")
	}
}

// A byte of a header that changes on the way ends the connection or fails calls;
// nothing hangs and nothing panics. (A changed byte of a body is the channel's to
// find.)
func TestGarbled(t *testing.T) {
	for i := 1; i <= headerSize; i++ {
		t.Run(fmt.Sprint("response byte ", i), func(t *testing.T) {
			cc, sc := socketpair(t)
			serve(t, sc, echo, someLimits)
			c := NewClient(&badLink{Conn: cc, garble: i}, 1<<20)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := c.Call(ctx, opEcho, make([]byte, 3), nil, nil)
			if err == nil {
				t.Error("a call with a garbled response worked")
			}
			_ = c.Close()
		})
		t.Run(fmt.Sprint("request byte ", i), func(t *testing.T) {
			cc, sc := socketpair(t)
			s := serve(t, &badLink{Conn: sc, garble: i}, echo, someLimits)
			c := newClient(cc)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := c.Call(ctx, opEcho, make([]byte, 3), nil, nil); err == nil {
				t.Error("a call with a garbled request worked")
			}
			_ = c.Close()
			_ = s.wait(t)
		})
	}
}

// A call whose context ends returns at once, its late response is dropped, and
// what comes afterwards is right.
func TestCancel(t *testing.T) {
	overLinks(t, func(t *testing.T, cc, sc net.Conn) {
		release := make(chan struct{})
		serve(t, sc, func(_ context.Context, op uint16, body, _ []byte, resp *Response) error {
			if op == opWaitCtx {
				<-release
			}
			resp.Append(body)
			return nil
		}, someLimits)
		c := newClient(cc)
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				into := make([]byte, 100)
				if _, err := c.Call(ctx, opWaitCtx, make([]byte, 100), nil, into); !errors.Is(err, context.Canceled) {
					t.Errorf("%v", err)
				}
				for i := range into {
					into[i] = 1 // ours again: the race detector watches
				}
			})
		}
		time.Sleep(5 * time.Millisecond)
		cancel()
		wg.Wait()
		close(release)
		for i := range 50 {
			got, err := c.Call(t.Context(), opEcho, number(uint32(i)), nil, nil)
			if err != nil || !bytes.Equal(got, number(uint32(i))) {
				t.Fatalf("%v, %v", got, err)
			}
		}
		waitFor(t, func() bool { // every tag is free again
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.calls) == 0
		})
	})
}

// A call is cancelled while its response's body is arriving in its buffer: Call
// returns only when nothing is written there any more.
func TestCancelWhileBodyArrives(t *testing.T) {
	cc, sc := socketpair(t)
	defer sc.Close()
	c := newClient(cc)
	defer c.Close()
	peer := hostile{t, sc}
	for round := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		into := make([]byte, 200_000)
		returned := make(chan error)
		go func() {
			_, err := c.Call(ctx, opEcho, nil, nil, into)
			clear(into) // the race detector's witness
			returned <- err
		}()
		hd, _ := peer.receive()
		frame := peer.frame(header{length: 200_000, tag: hd.tag, op: hd.op}, make([]byte, 200_000))
		if _, err := sc.Write(frame[:headerSize+round*5000+1]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		cancel()
		time.Sleep(time.Millisecond)
		if _, err := sc.Write(frame[headerSize+round*5000+1:]); err != nil {
			t.Fatal(err)
		}
		if err := <-returned; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

// A response that comes before its request was sent breaks no rule of memory.
func TestAnsweredBeforeSent(t *testing.T) {
	cc, sc := net.Pipe()
	c := newClient(cc)
	first := make(chan error, 1)
	go func() { // is being written until somebody reads
		_, err := c.Call(t.Context(), opEcho, nil, nil, nil)
		first <- err
	}()
	waitFor(t, func() bool { return len(c.turn) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		into := make([]byte, 1000)
		_, err := c.Call(ctx, opEcho, nil, nil, into)
		clear(into)
		second <- err
	}()
	inFlight := func(n int) {
		t.Helper()
		waitFor(t, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.calls) == n
		})
	}
	inFlight(2)
	peer := hostile{t, sc}
	frame := peer.frame(header{length: 1000, tag: 2, op: opEcho}, make([]byte, 1000))
	if _, err := sc.Write(frame[:500]); err != nil {
		t.Fatal(err)
	}
	inFlight(1) // the reader has the second
	cancel()
	time.Sleep(time.Millisecond)
	if _, err := sc.Write(frame[500:]); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	hd, _ := peer.receive()
	peer.send(header{tag: hd.tag, op: hd.op}, nil)
	if err := <-first; err != nil {
		t.Error(err)
	}
	_ = c.Close()
	_ = sc.Close()
}

// A call that waits behind a peer that doesn't read can be cancelled.
func TestCancelBeforeSent(t *testing.T) {
	cc, sc := net.Pipe()
	c := newClient(cc)
	var stuck sync.WaitGroup
	stuck.Go(func() {
		if _, err := c.Call(t.Context(), opEcho, nil, nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	})
	waitFor(t, func() bool { return len(c.turn) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, opEcho, nil, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	c.mu.Lock()
	if len(c.calls) != 1 {
		t.Errorf("%d tags are taken", len(c.calls))
	}
	c.mu.Unlock()
	_ = c.Close()
	stuck.Wait()
	_ = sc.Close()
}

func TestCloseFailsCalls(t *testing.T) {
	overLinks(t, func(t *testing.T, cc, sc net.Conn) {
		s := serve(t, sc, echo, someLimits)
		c := newClient(cc)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := c.Call(t.Context(), opWaitCtx, nil, nil, nil); !errors.Is(err, ErrClosed) {
					t.Errorf("%v", err)
				}
			})
		}
		waitFor(t, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.calls) == 4
		})
		_ = c.Close()
		wg.Wait()
		if _, err := c.Call(t.Context(), opEcho, nil, nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("call after Close: %v", err)
		}
		if err := c.Err(); !errors.Is(err, ErrClosed) {
			t.Errorf("Err: %v", err)
		}
		_ = s.wait(t)
	})
}

func waitFor(t testing.TB, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it doesn't happen")
		}
	}
}
