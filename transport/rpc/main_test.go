package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/transport/mux"
	"winvm/transport/shm"
	"winvm/transport/shm/shmtest"
	"winvm/transport/virtioserial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quietLog = slog.New(slog.DiscardHandler)

// links are the connections every test of calls runs over.
var links = map[string]func(testing.TB) (client, server net.Conn){
	"pipe":       func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	"socketpair": socketpair,
	"mux":        muxStreams,
	"split": func(t testing.TB) (net.Conn, net.Conn) {
		c, s := socketpair(t)
		return &badLink{Conn: c, maxPiece: 7}, &badLink{Conn: s, maxPiece: 7}
	},
	"lane": laneLink(socketpair),
	"lane, split": laneLink(func(t testing.TB) (net.Conn, net.Conn) {
		c, s := socketpair(t)
		return &badLink{Conn: c, maxPiece: 7}, &badLink{Conn: s, maxPiece: 7}
	}),
	"delayed": func(t testing.TB) (net.Conn, net.Conn) {
		c, s := socketpair(t)
		return &badLink{Conn: c, delay: time.Millisecond}, &badLink{Conn: s, delay: time.Millisecond}
	},
}

func overLinks(t *testing.T, f func(t *testing.T, client, server net.Conn)) {
	for name, link := range links {
		t.Run(name, func(t *testing.T) {
			c, s := link(t)
			t.Cleanup(func() { _, _ = c.Close(), s.Close() })
			f(t, c, s)
		})
	}
}

// laneLink is a link with shared memory beside it.
func laneLink(link func(testing.TB) (client, server net.Conn)) func(testing.TB) (client, server net.Conn) {
	return func(t testing.TB) (client, server net.Conn) {
		c, s := link(t)
		cl, sl := shmtest.Lanes(t, 4)
		return laneConn{c, cl}, laneConn{s, sl}
	}
}

type laneConn struct {
	net.Conn
	lane *shm.Lane
}

func (c laneConn) Lane() *shm.Lane { return c.lane }

// newClient is NewClient, with the lane of the link.
func newClient(conn net.Conn) *Client {
	c := NewClient(conn, 1<<20)
	c.UseLane(shm.Of(conn))
	return c
}

func socketpair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	c, f, err := virtioserial.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	s, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// muxStreams returns the two ends of a stream between two agents.
func muxStreams(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	h, g := socketpair(t)
	cfg := mux.Config{Logger: quietLog, Build: "test"}
	host, err := mux.NewEndpoint(h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := mux.NewEndpoint(g, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = host.Close(), guest.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var accepted net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		s, err := guest.Accept(ctx)
		if err == nil {
			_, accepted, err = s.Accept(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	})
	s, err := host.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Open(ctx, "test")
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return c, accepted
}

// A badLink is a connection that reads in small pieces or late, breaks after a
// number of bytes read, or changes one of them.
type badLink struct {
	net.Conn
	maxPiece int
	delay    time.Duration
	cutAfter int // bytes read; 0: never
	garble   int // the byte to change, from 1; 0: none
	read     int
}

func (l *badLink) Read(p []byte) (int, error) {
	if l.delay > 0 {
		time.Sleep(time.Duration(rand.Int64N(int64(l.delay))))
	}
	if l.maxPiece > 0 {
		p = p[:min(len(p), 1+rand.IntN(l.maxPiece))]
	}
	if l.cutAfter > 0 {
		if l.read >= l.cutAfter {
			_ = l.Close()
			return 0, syscall.ECONNRESET
		}
		p = p[:min(len(p), l.cutAfter-l.read)]
	}
	n, err := l.Conn.Read(p)
	if l.garble > l.read && l.garble <= l.read+n {
		p[l.garble-l.read-1] ^= 0x5a
	}
	l.read += n
	return n, err
}

// A serving is a Serve that runs.
type serving struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func serve(t testing.TB, conn io.ReadWriteCloser, h Handler, limits Limits) *serving {
	ctx, cancel := context.WithCancel(t.Context())
	limits.Lane = shm.Of(conn)
	s := &serving{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.err = Serve(ctx, conn, h, errnoOf, limits, quietLog)
	}()
	t.Cleanup(func() {
		cancel()
		s.wait(t)
	})
	return s
}

func (s *serving) wait(t testing.TB) error {
	t.Helper()
	select {
	case <-s.done:
		return s.err
	case <-time.After(20 * time.Second):
		t.Fatal("Serve doesn't return")
		return nil
	}
}

func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return syscall.EIO
}

// The operations of the test's handler. Bodies begin with a number.
const (
	opEcho    = 1 // answers with the body
	opFail    = 2 // answers with that errno and a text
	opPanic   = 3
	opGrow    = 4 // answers with that many bytes
	opWaitCtx = 5 // answers when ctx ends
)

var someLimits = Limits{MaxRequest: 1 << 20, InFlight: 16}

func echo(ctx context.Context, op uint16, body, tail []byte, resp *Response) error {
	switch op {
	case opEcho:
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond) // so that answers overtake each other
		resp.Append(body)
		resp.Append(tail)
		return nil
	case opFail:
		return &Error{Errno: syscall.Errno(binary.LittleEndian.Uint16(body)), Text: string(body[2:]) + string(tail)}
	case opPanic:
		panic("test")
	case opGrow:
		b := resp.Grow(int(binary.LittleEndian.Uint32(body)))
		for i := range b {
			b[i] = byte(i)
		}
		return nil
	case opWaitCtx:
		<-ctx.Done()
		return ctx.Err()
	default:
		return syscall.EOPNOTSUPP
	}
}

func number(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

// hostile plays one side by hand.
type hostile struct {
	testing.TB
	net.Conn
}

func (h hostile) frame(hd header, body []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(body))
	hd.put(b)
	return append(b, body...)
}

func (h hostile) send(hd header, body []byte) {
	h.Helper()
	if _, err := h.Write(h.frame(hd, body)); err != nil {
		h.Fatal(err)
	}
}

// request reads one request or response.
func (h hostile) receive() (header, []byte) {
	h.Helper()
	var buf [headerSize]byte
	_ = h.SetReadDeadline(time.Now().Add(20 * time.Second))
	hd, err := readHeader(h, &buf)
	if err != nil {
		h.Fatal(err)
	}
	body := make([]byte, hd.length)
	if _, err := io.ReadFull(h, body); err != nil {
		h.Fatal(err)
	}
	return hd, body
}
