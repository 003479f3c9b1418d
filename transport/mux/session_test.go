package mux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSession(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		he := endpoint(t, host, func(c *Config) { c.Features = 0b0110 })
		ge := endpoint(t, guest, func(c *Config) { c.Features = 0b0011; c.Build = "guest-1.2" })
		for i := range 5 {
			hs, gs := connect(t, he, ge)
			ping(t, hs, gs, 300_000)
			ping(t, gs, hs, 1)
			if hs.Features() != 0b0010 || gs.Features() != 0b0010 || hs.PeerVersion() != "guest-1.2" || gs.Version() != ProtocolVersion {
				t.Errorf("features %b, %b; peer %q", hs.Features(), gs.Features(), hs.PeerVersion())
			}
			if hs.Err() != nil {
				t.Errorf("Err of a living session: %v", hs.Err())
			}
			if i%2 == 0 {
				closeBoth(t, hs, gs)
			} else {
				closeBoth(t, gs, hs)
			}
		}
	})
}

// TestManyStreams has small requests beside bulk on all links at once.
func TestManyStreams(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		hs, gs := connect(t, endpoint(t, host), endpoint(t, guest))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { ping(t, hs, gs, 100_000) })
			wg.Go(func() { ping(t, gs, hs, 77) })
		}
		wg.Wait()
		closeBoth(t, gs, hs)
	})
}

// TestDeliveredBeforeClose: what was written before the close arrives, on
// streams that the other side had not even accepted.
func TestDeliveredBeforeClose(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		he, ge := endpoint(t, host), endpoint(t, guest)
		for range 10 {
			hs, gs := connect(t, he, ge)
			want := bytes.Repeat([]byte{7}, 20_000)
			for i := range 10 {
				c, err := hs.Open(t.Context(), fmt.Sprintf("s/%d", i))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write(want); err != nil {
					t.Fatal(err)
				}
				if i%2 == 0 {
					_ = c.Close()
				}
			}
			closeBoth(t, hs, gs)
			for range 10 {
				name, c, err := gs.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(c)
				if !bytes.Equal(got, want) {
					t.Fatalf("%s: %d bytes", name, len(got))
				}
				// Whole streams end with EOF, cut ones with the session's error.
				if whole := int(name[2]-'0')%2 == 0; whole != (err == nil) || !whole && !errors.Is(err, ErrClosed) {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if _, _, err := gs.Accept(t.Context()); !errors.Is(err, ErrClosed) {
				t.Fatalf("Accept after the end: %v", err)
			}
			if _, err := hs.Open(t.Context(), "x"); !errors.Is(err, ErrClosed) {
				t.Fatalf("Open after the end: %v", err)
			}
		}
	})
}

func TestBothClose(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		he, ge := endpoint(t, host), endpoint(t, guest)
		for range 20 {
			hs, gs := connect(t, he, ge)
			c := make(chan error, 2)
			go func() { c <- hs.Close() }()
			go func() { c <- gs.Close() }()
			for range 2 {
				if err := <-c; err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestCloseUnderLoad closes while both sides write as fast as they can. Whatever
// a Write returned nil for has to be read on the other side.
func TestCloseUnderLoad(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		hs, gs := connect(t, endpoint(t, host), endpoint(t, guest))
		closeUnderLoad(t, hs, gs, (*Session).Open, 50*time.Millisecond)
	})
}

// TestCloseAfterOpen is TestCloseUnderLoad with streams that were opened just before, perhaps
// not yet taken over, or not even opened.
func TestCloseAfterOpen(t *testing.T) {
	h, g := socketLinks(t)
	he, ge := endpoint(t, h), endpoint(t, g)
	for i := range 60 {
		for _, open := range []opener{(*Session).Open, (*Session).OpenBulk} {
			hs, gs := connect(t, he, ge)
			closeUnderLoad(t, hs, gs, open, time.Duration(i)*30*time.Microsecond)
		}
	}
}

// An opener is Session.Open or Session.OpenBulk.
type opener func(s *Session, ctx context.Context, name string) (net.Conn, error)

func closeUnderLoad(t *testing.T, hs, gs *Session, open opener, after time.Duration) {
	t.Helper()
	var sent, got [2]int
	var wg sync.WaitGroup
	for i, s := range []*Session{hs, gs} {
		peer := gs
		if i == 1 {
			peer = hs
		}
		wg.Go(func() {
			c, err := open(s, t.Context(), "bulk")
			for b := make([]byte, 10_000); err == nil; {
				if _, err = c.Write(b); err == nil {
					sent[i] += len(b)
				}
			}
			if !errors.Is(err, ErrClosed) {
				t.Errorf("write ended with %v", err)
			}
		})
		wg.Go(func() {
			_, c, err := peer.Accept(t.Context())
			if err == nil {
				var n int64
				n, err = io.Copy(io.Discard, c)
				got[i] = int(n)
			}
			if !errors.Is(err, ErrClosed) {
				t.Errorf("read ended with %v", err)
			}
		})
	}
	time.Sleep(after)
	if err := hs.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for i := range sent {
		if got[i] < sent[i] {
			t.Errorf("%d, closed after %v: wrote %d, read %d", i, after, sent[i], got[i])
		}
	}
}

// TestQuietAfterClose checks what a suspend relies on: after a close in order
// the guest, waiting for the next host, writes nothing.
func TestQuietAfterClose(t *testing.T) {
	h, g := socketLinks(t)
	he, ge := endpoint(t, h), endpoint(t, g)
	hs, gs := connect(t, he, ge)
	ping(t, hs, gs, 100_000)
	closeBoth(t, hs, gs)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := ge.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if n := he.br.Buffered(); n != 0 {
		t.Fatalf("%d bytes left in the buffer", n)
	}
	_ = h.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := h.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the guest wrote %d bytes (%v)", n, err)
	}
}

func TestPeerGone(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		he := endpoint(t, host)
		hs, gs := connect(t, he, endpoint(t, guest))
		c, err := gs.Open(t.Context(), "cut")
		if err != nil {
			t.Fatal(err)
		}
		ping(t, hs, gs, 10) // the session is up on both sides, reading
		_ = he.Close()
		wait(t, gs)
		if !errors.Is(gs.Err(), ErrPeerGone) {
			t.Errorf("guest: %v", gs.Err())
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrPeerGone) {
			t.Errorf("a cut stream ends with %v", err)
		}
		start := time.Now()
		if err := gs.Close(); !errors.Is(err, ErrPeerGone) {
			t.Errorf("Close: %v", err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close of a dead session took %v", d)
		}
		if !errors.Is(hs.Err(), ErrLink) {
			t.Errorf("host: %v", hs.Err())
		}
		if _, err := he.Dial(t.Context()); !errors.Is(err, ErrLink) {
			t.Errorf("Dial on a closed endpoint: %v", err)
		}
	})
}

// TestSilentPeer: nothing waits for ever for a peer that says nothing.
func TestSilentPeer(t *testing.T) {
	h, g := socketLinks(t)
	he := endpoint(t, h)
	if _, err := he.Dial(timeout(t, 30*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Dial: %v", err)
	}
	ge := endpoint(t, g)
	hs, gs := connect(t, he, ge)
	// The guest goes to sleep: its reader gets nothing more.
	gs.conn.turn <- struct{}{} // can't answer the close
	ctx := timeout(t, 50*time.Millisecond)
	if err := hs.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Shutdown: %v", err)
	}
	if _, err := ge.Accept(timeout(t, 20*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Accept while there is a session: %v", err)
	}
	<-gs.conn.turn
	hs2, gs2 := connect(t, he, ge)
	ping(t, hs2, gs2, 10)
	reason := errors.New("QEMU says so")
	hs2.Abort(reason)
	if !errors.Is(hs2.Err(), reason) {
		t.Fatal(hs2.Err())
	}
}

func TestWriteTimeout(t *testing.T) {
	h, g := socketLinks(t)
	he := endpoint(t, h, func(c *Config) { c.WriteTimeout = 100 * time.Millisecond; c.Window = 16 << 20 })
	stop := make(chan struct{})
	ge := endpoint(t, &stopped{Link: g, stop: stop}, func(c *Config) { c.Window = 16 << 20 })
	hs, gs := connect(t, he, ge)
	ping(t, hs, gs, 1)
	close(stop)
	for range 30 { // more than the link's buffers take
		c, err := hs.Open(t.Context(), "bulk")
		if err == nil {
			_, err = c.Write(make([]byte, minWindow-100))
		}
		if err != nil {
			break
		}
	}
	wait(t, hs)
	if !errors.Is(hs.Err(), os.ErrDeadlineExceeded) {
		t.Fatal(hs.Err())
	}
}

// stopped reads nothing more once stop is closed, until its deadline.
type stopped struct {
	Link
	stop chan struct{}
	past sync.Once
	kick chan struct{}
	mu   sync.Mutex
}

func (s *stopped) kicked() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kick == nil {
		s.kick = make(chan struct{})
	}
	return s.kick
}

func (s *stopped) Read(p []byte) (int, error) {
	n, err := s.Link.Read(p[:min(len(p), 4096)])
	select {
	case <-s.stop:
		<-s.kicked()
		return 0, os.ErrClosed
	default:
		return n, err
	}
}

func (s *stopped) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		select {
		case <-s.stop:
			s.past.Do(func() { close(s.kicked()) })
		default:
		}
	}
	return s.Link.SetReadDeadline(t)
}

func TestStreamConn(t *testing.T) {
	h, g := socketLinks(t)
	hs, gs := connect(t, endpoint(t, h, func(c *Config) { c.Window = minWindow }), endpoint(t, g, func(c *Config) { c.Window = minWindow }))
	for _, name := range []string{"", "A", "a b", strings.Repeat("x", 65), "\x00"} {
		if _, err := hs.Open(t.Context(), name); err == nil {
			t.Errorf("Open took the name %q", name)
		}
	}
	a, err := hs.Open(t.Context(), "fs/xchg")
	if err != nil {
		t.Fatal(err)
	}
	name, b, err := gs.Accept(t.Context())
	if err != nil || name != "fs/xchg" || b.RemoteAddr().String() != name {
		t.Fatalf("%q, %v", name, err)
	}
	_ = a.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	_ = a.SetDeadline(time.Time{})
	_ = a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := a.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n != minWindow-1-len(name) {
		t.Errorf("Write into a full window: %d, %v", n, err)
	}
	// Close breaks a Read that waits; the peer's writes don't get stuck.
	c := make(chan error, 1)
	go func() { _, err := a.Read(make([]byte, 1)); c <- err }()
	time.Sleep(10 * time.Millisecond)
	_ = a.Close()
	_ = a.Close()
	if err := <-c; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read broken by Close: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if err := a.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetReadDeadline after Close: %v", err)
	}
	if _, err := b.Write(make([]byte, 3*minWindow)); err != nil {
		t.Errorf("Write to a closed peer: %v", err)
	}
	if n, err := io.Copy(io.Discard, b); err != nil || n != int64(minWindow-1-len(name)) {
		t.Errorf("read %d, %v", n, err)
	}
	_ = b.Close()
	closeBoth(t, gs, hs)
}

// TestStreamLimits: neither streams that nobody accepts nor nameless ones take
// more than their slots, and slots come back.
func TestStreamLimits(t *testing.T) {
	h, g := socketLinks(t)
	few := func(c *Config) { c.MaxStreams, c.Backlog = 3, 2 }
	hs, gs := connect(t, endpoint(t, h, few), endpoint(t, g, few))
	var open []net.Conn
	for {
		c, err := hs.Open(timeout(t, 50*time.Millisecond), "s")
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		open = append(open, c)
	}
	if len(open) != 3+2 {
		t.Errorf("%d streams open at a peer that accepts none, want 3 taken over and 2 waiting", len(open))
	}
	for i := range open {
		_, c, err := gs.Accept(t.Context())
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		_ = c.Close()
		_ = open[i].Close()
	}
	for range 20 {
		ping(t, hs, gs, 10)
	}
	// A bad name costs the stream, not the session.
	ym, err := hs.ym.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ym.Write([]byte{200}); err != nil {
		t.Fatal(err)
	}
	if _, err := ym.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("nameless stream: %v", err)
	}
	_ = ym.Close()
	ping(t, hs, gs, 10)
	closeBoth(t, hs, gs)
}

func TestConfig(t *testing.T) {
	h, g := net.Pipe()
	defer h.Close()
	defer g.Close()
	for name, cfg := range map[string]Config{
		"build":    {Build: strings.Repeat("x", 33)},
		"print":    {Build: "a\nb"},
		"versions": {MinVersion: 3, MaxVersion: 2},
		"window":   {Window: 1000},
		"streams":  {MaxStreams: -1},
		"times":    {SYNInterval: time.Minute},
	} {
		if _, err := NewEndpoint(h, cfg); err == nil {
			t.Errorf("%s: bad configuration was taken", name)
		}
	}
}
