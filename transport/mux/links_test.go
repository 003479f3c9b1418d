package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/transport/virtioserial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kinds are the links every test of sessions runs over.
var kinds = map[string]func(testing.TB) (host, guest Link){
	"pipe":       func(testing.TB) (Link, Link) { return net.Pipe() },
	"socketpair": socketLinks,
	"one byte": func(t testing.TB) (Link, Link) {
		h, g := socketLinks(t)
		return &wrapped{Link: h, maxRead: 1}, &wrapped{Link: g, maxRead: 1}
	},
	"delayed": func(t testing.TB) (Link, Link) {
		h, g := socketLinks(t)
		return &wrapped{Link: h, delay: time.Millisecond}, &wrapped{Link: g, delay: time.Millisecond}
	},
	"port": func(t testing.TB) (Link, Link) {
		p := newPort()
		return p.connect(t, false), p
	},
}

func overLinks(t *testing.T, f func(t *testing.T, host, guest Link)) {
	for name, links := range kinds {
		t.Run(name, func(t *testing.T) {
			h, g := links(t)
			f(t, h, g)
		})
	}
}

func socketLinks(t testing.TB) (host, guest Link) {
	t.Helper()
	h, f, err := virtioserial.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	g, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return h, g.(*net.UnixConn)
}

// wrapped makes a link worse.
type wrapped struct {
	Link
	maxRead int
	delay   time.Duration

	buf  [4096]byte // of the reader
	rest []byte

	mu      sync.Mutex
	written int
	mangle  func(at int, b []byte) []byte // what becomes of b, written at an offset
}

func (w *wrapped) Read(p []byte) (int, error) {
	if w.maxRead == 0 {
		return w.Link.Read(p)
	}
	if len(w.rest) == 0 {
		n, err := w.Link.Read(w.buf[:])
		if err != nil {
			return 0, err
		}
		w.rest = w.buf[:n]
	}
	n := copy(p[:min(len(p), w.maxRead)], w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wrapped) Write(p []byte) (int, error) {
	if w.delay > 0 {
		time.Sleep(w.delay)
	}
	w.mu.Lock()
	at, mangle := w.written, w.mangle
	w.written += len(p)
	w.mu.Unlock()
	if mangle != nil {
		if _, err := w.Link.Write(mangle(at, bytes.Clone(p))); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return w.Link.Write(p)
}

func (w *wrapped) set(mangle func(at int, b []byte) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mangle, w.written = mangle, 0
}

// port behaves as virtioserial.Port: its host can be replaced at any time.
type port struct {
	mu      sync.Mutex
	cur     net.Conn // nil: no host
	next    []swap   // hosts the reader hasn't got to yet
	changed chan struct{}
	past    bool // read deadline
	closed  bool
	seen    bool
}

type swap struct {
	conn   net.Conn
	silent bool // the port never shows that the host before went away
}

func newPort() *port { return &port{changed: make(chan struct{})} }

// connect connects a new host. What the one before has sent stays readable first.
func (p *port) connect(t testing.TB, silent bool) Link {
	t.Helper()
	host, guest := socketLinks(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = append(p.next, swap{guest.(net.Conn), silent})
	if p.cur == nil {
		p.advance()
	}
	p.wake()
	return host
}

func (p *port) wake() { close(p.changed); p.changed = make(chan struct{}) }

func (p *port) advance() {
	p.cur = nil
	if len(p.next) > 0 {
		p.cur, p.next = p.next[0].conn, p.next[1:]
	}
}

func (p *port) Read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		cur, changed := p.cur, p.changed
		switch {
		case p.closed:
			p.mu.Unlock()
			return 0, os.ErrClosed
		case p.past:
			p.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case cur == nil:
			p.mu.Unlock()
			<-changed
			continue
		}
		p.mu.Unlock()
		n, err := cur.Read(b[:min(len(b), 4096)])
		if n > 0 {
			p.seen = true
			return n, nil
		}
		if !errors.Is(err, io.EOF) && !peerGone(err) {
			if p.isPast() {
				return 0, os.ErrDeadlineExceeded
			}
			continue
		}
		p.mu.Lock()
		_ = cur.Close()
		silent := len(p.next) > 0 && p.next[0].silent
		p.advance()
		p.mu.Unlock()
		if p.seen && !silent {
			p.seen = false
			return 0, virtioserial.ErrPeerGone
		}
	}
}

func (p *port) isPast() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.past || p.closed
}

func (p *port) Write(b []byte) (int, error) {
	p.mu.Lock()
	cur := p.cur
	if len(p.next) > 0 { // the device knows of the newest only
		cur = p.next[len(p.next)-1].conn
	}
	p.mu.Unlock()
	if cur == nil {
		return 0, virtioserial.ErrPeerGone
	}
	n, err := cur.Write(b)
	if err != nil && peerGone(err) {
		err = virtioserial.ErrPeerGone
	}
	return n, err
}

func (p *port) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.past = !t.IsZero()
	if p.cur != nil {
		_ = p.cur.SetReadDeadline(t)
	}
	p.wake()
	return nil
}

func (p *port) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cur != nil {
		_ = p.cur.SetWriteDeadline(t)
	}
	return nil
}

func (p *port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.next {
		_ = s.conn.Close()
	}
	if p.cur != nil {
		_ = p.cur.Close()
	}
	p.wake()
	return nil
}

// The rest are short forms for the tests.

func testConfig(t testing.TB) Config {
	return Config{
		Build:  "test",
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if testing.Verbose() {
		w.t.Logf("%s", bytes.TrimSpace(b))
	}
	return len(b), nil
}

func endpoint(t testing.TB, l Link, change ...func(*Config)) *Endpoint {
	t.Helper()
	cfg := testConfig(t)
	for _, c := range change {
		c(&cfg)
	}
	e, err := NewEndpoint(l, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func timeout(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// connect makes a session of two endpoints.
func connect(t testing.TB, host, guest *Endpoint) (hs, gs *Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	type result struct {
		s   *Session
		err error
	}
	c := make(chan result, 1)
	go func() { s, err := guest.Accept(ctx); c <- result{s, err} }()
	hs, err := host.Dial(ctx)
	g := <-c
	if err != nil || g.err != nil {
		t.Fatalf("Dial: %v; Accept: %v", err, g.err)
	}
	if hs.Epoch() != g.s.Epoch() {
		t.Fatalf("epochs %08x, %08x", hs.Epoch(), g.s.Epoch())
	}
	return hs, g.s
}

// ping proves that a session works, both ways.
func ping(t testing.TB, from, to *Session, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	errc := make(chan error, 1)
	go func() {
		name, c, err := to.Accept(ctx)
		if err == nil && name != "echo" {
			err = errors.New("name " + name)
		}
		if err == nil {
			_, err = io.Copy(c, onlyReader{c})
			_ = c.Close()
		}
		errc <- err
	}()
	c, err := from.Open(ctx, "echo")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), (size+15)/16)[:size]
	go func() {
		if _, err := c.Write(want); err != nil {
			t.Errorf("write: %v", err)
		}
		_ = c.(*Stream).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("echo of %d bytes: %d bytes, %v", len(want), len(got), err)
	}
	_ = c.Close()
	if err := <-errc; err != nil {
		t.Fatalf("echo: %v", err)
	}
}

func closeBoth(t testing.TB, a, b *Session) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	wait(t, b)
	if !errors.Is(b.Err(), ErrClosed) {
		t.Fatalf("after the peer's close: %v", b.Err())
	}
}

func wait(t testing.TB, s *Session) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the session doesn't end")
	}
}
