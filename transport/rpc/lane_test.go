package rpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"winvm/transport/shm"
	"winvm/transport/shm/shmtest"
)

// counting counts the bytes that are written to a connection.
type counting struct {
	laneConn
	n atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.laneConn.Write(b)
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8) + byte(i)*3 + seed
	}
	return b
}

// countedLane is a client and a server of echo with so many slots.
func countedLane(t *testing.T, slots int) (c *Client, cc, sc *counting) {
	t.Helper()
	a, b := socketpair(t)
	cl, sl := shmtest.Lanes(t, slots)
	cc, sc = &counting{laneConn: laneConn{a, cl}}, &counting{laneConn: laneConn{b, sl}}
	serve(t, sc, echo, Limits{MaxRequest: 2 << 20, InFlight: 16})
	c = NewClient(cc, 2<<20)
	c.UseLane(cl)
	t.Cleanup(func() { _ = c.Close() })
	return c, cc, sc
}

// Large bodies don't go over the connection; small ones, those without a buffer and
// what is too large for a slot do.
func TestLaneCarriesLargeBodies(t *testing.T) {
	c, cc, sc := countedLane(t, 2)
	for _, tt := range []struct {
		op       uint16
		tail     int
		grow     int
		into     int
		out, in  int64 // bytes over the connection at most
		atLeast  int64 // in both directions
		wantBody int
	}{
		{op: opFail, tail: shm.SlotSize, out: 40, in: 2000},
		{op: opFail, tail: LaneMin, out: 40, in: 2000},
		{op: opFail, tail: LaneMin - 1, out: LaneMin + 40, in: 2000, atLeast: LaneMin},
		{op: opFail, tail: shm.SlotSize + 1, out: shm.SlotSize + 40, in: 2000, atLeast: shm.SlotSize},
		{op: opGrow, grow: shm.SlotSize, into: shm.SlotSize, out: 40, in: 12},
		{op: opGrow, grow: LaneMin, into: shm.SlotSize + 1, out: 40, in: 12},
		{op: opGrow, grow: LaneMin - 1, into: shm.SlotSize, out: 40, in: LaneMin + 12, atLeast: LaneMin},
		{op: opGrow, grow: 2 * LaneMin, into: LaneMin, out: 40, in: 2*LaneMin + 12, atLeast: 2 * LaneMin},
		{op: opGrow, grow: LaneMin, into: 0, out: 40, in: LaneMin + 12, atLeast: LaneMin},
		{op: opGrow, grow: 0, into: shm.SlotSize, out: 40, in: 12},
	} {
		cc.n.Store(0)
		sc.n.Store(0)
		head := number(uint32(tt.grow))
		if tt.op == opFail {
			head = []byte{1, 0}
		}
		got, err := c.Call(t.Context(), tt.op, head, pattern(tt.tail, 1), make([]byte, tt.into))
		if tt.op == opFail {
			var e *Error
			if !errors.As(err, &e) || e.Text != string(pattern(tt.tail, 1)[:maxErrorText]) {
				t.Errorf("%+v: %.50v", tt, err)
			}
		} else if err != nil || len(got) != tt.grow || tt.grow > 0 && got[tt.grow-1] != byte(tt.grow-1) {
			t.Errorf("%+v: %d bytes, %v", tt, len(got), err)
		}
		if out, in := cc.n.Load(), sc.n.Load(); out > tt.out || in > tt.in || out+in < tt.atLeast {
			t.Errorf("%+v: %d bytes out, %d in", tt, out, in)
		}
	}
}

// When all slots are in use calls go over the connection, and are as right.
func TestMoreCallsThanSlots(t *testing.T) {
	c, _, _ := countedLane(t, 2)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			data := pattern(50_000, byte(w))
			for i := range 50 {
				var got []byte
				var err error
				if i%2 == 0 {
					got, err = c.Call(t.Context(), opEcho, nil, data, nil)
				} else {
					got, err = c.Call(t.Context(), opEcho, data[:100], data[100:], make([]byte, 60_000))
				}
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
	takeAll(t, c.lane, 2)
}

// takeAll checks how many slots are free, and takes them.
func takeAll(t *testing.T, l *shm.Lane, want int) (all []shm.Slot) {
	t.Helper()
	for {
		s, ok := l.Take()
		if !ok {
			break
		}
		all = append(all, s)
	}
	if len(all) != want {
		t.Errorf("%d slots are free, want %d", len(all), want)
	}
	return all
}

// A call that was given up keeps its slot until its response comes.
func TestAbandonedCallKeepsItsSlot(t *testing.T) {
	for name, tail := range map[string][]byte{"reading": nil, "writing": pattern(shm.SlotSize, 0)} {
		t.Run(name, func(t *testing.T) {
			a, b := socketpair(t)
			cl, sl := shmtest.Lanes(t, 1)
			begun, release := make(chan struct{}), make(chan struct{})
			serve(t, laneConn{b, sl}, func(_ context.Context, _ uint16, _, _ []byte, resp *Response) error {
				close(begun)
				<-release
				copy(resp.Grow(LaneMin), pattern(LaneMin, 9))
				return nil
			}, someLimits)
			c := newClient(laneConn{a, cl})
			defer c.Close()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			into := make([]byte, shm.SlotSize)
			go func() {
				_, err := c.Call(ctx, opEcho, nil, tail, into)
				done <- err
			}()
			<-begun
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			takeAll(t, cl, 0)
			close(release)
			waitFor(t, func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return len(c.calls) == 0
			})
			waitFor(t, func() bool {
				s, ok := cl.Take()
				if ok {
					s.Free()
				}
				return ok
			})
			if !bytes.Equal(into, make([]byte, len(into))) {
				t.Error("the buffer of a call that was given up was written to")
			}
		})
	}
}

// The connection ends with calls in flight: their slots are out of use for the session,
// and there again in the next.
func TestConnectionEndsWithSlotsInUse(t *testing.T) {
	a, b := socketpair(t)
	host, guest := shmtest.Regions(t, 4)
	sl := host.Offer(shm.ID{1})
	cl, err := guest.Accept(shm.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	var at atomic.Int32
	s := serve(t, laneConn{b, sl}, func(ctx context.Context, _ uint16, _, _ []byte, _ *Response) error {
		at.Add(1)
		<-ctx.Done()
		return ctx.Err()
	}, someLimits)
	c := newClient(laneConn{a, cl})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			ctx := ctx
			if i > 0 {
				ctx = t.Context()
			}
			if _, err := c.Call(ctx, opWaitCtx, nil, nil, make([]byte, LaneMin)); err == nil {
				t.Error("no error")
			}
		})
	}
	waitFor(t, func() bool { return at.Load() == 3 })
	cancel() // one is abandoned
	_ = b.Close()
	wg.Wait()
	_ = c.Close()
	takeAll(t, cl, 1)[0].Free()
	_ = s.wait(t)
	host.Offer(shm.ID{2})
	next, err := guest.Accept(shm.ID{2})
	if err != nil {
		t.Fatal(err)
	}
	takeAll(t, next, 4)
}

// A request may name any memory it likes: what is no slot ends the connection, and
// what two requests share, or somebody changes meanwhile, is the caller's own loss.
func TestHostileLaneClient(t *testing.T) {
	good := place{slot: 1, length: LaneMin}
	for name, tt := range map[string]struct {
		head header
		at   place
	}{
		"slot out of range":     {header{op: opEcho, errno: laneTail}, place{4, 1}},
		"slot far out of range": {header{op: opEcho, errno: laneRoom}, place{1<<32 - 1, 1}},
		"longer than a slot":    {header{op: opEcho, errno: laneRoom}, place{0, shm.SlotSize + 1}},
		"nothing":               {header{op: opEcho, errno: laneTail}, place{0, 0}},
		"unknown use":           {header{op: opEcho, errno: 3}, good},
		"too long together":     {header{op: opEcho, errno: laneTail, length: 1000}, place{0, shm.SlotSize}},
	} {
		t.Run(name, func(t *testing.T) {
			cc, sc := socketpair(t)
			defer cc.Close()
			_, sl := shmtest.Lanes(t, 4)
			s := serve(t, laneConn{sc, sl}, echo, Limits{MaxRequest: shm.SlotSize, InFlight: 2})
			front := hostile{}.frame(tt.head, make([]byte, laneSize))
			tt.at.put(front[headerSize:])
			if _, err := cc.Write(front); err != nil {
				t.Fatal(err)
			}
			if err := s.wait(t); !errors.Is(err, ErrProtocol) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		for _, n := range []int{headerSize, headerSize + 3, headerSize + laneSize, headerSize + laneSize + 5} {
			cc, sc := net.Pipe()
			host, _ := shmtest.Regions(t, 4)
			s := serve(t, laneConn{sc, host.Offer(shm.ID{1})}, echo, someLimits)
			frame := hostile{}.frame(header{op: opEcho, errno: laneTail, length: 10}, make([]byte, laneSize+10))
			good.put(frame[headerSize:])
			if _, err := cc.Write(frame[:n]); err != nil {
				t.Fatal(err)
			}
			_ = cc.Close()
			if err := s.wait(t); err == nil {
				t.Error("no error")
			}
			if host.Offer(shm.ID{2}) == nil {
				t.Errorf("after %d bytes a slot is lent for ever", n)
			}
		}
	})
	t.Run("without a lane", func(t *testing.T) {
		cc, sc := socketpair(t)
		defer cc.Close()
		s := serve(t, sc, echo, someLimits)
		hostile{t, cc}.send(header{op: opEcho, errno: laneTail}, make([]byte, laneSize))
		if err := s.wait(t); !errors.Is(err, ErrProtocol) {
			t.Errorf("%v", err)
		}
	})
}

// Two requests name one slot, while a third party scribbles over all of the memory,
// header and all: each is answered once, with as many bytes as it should be.
func TestScribbledSlots(t *testing.T) {
	cc, sc := socketpair(t)
	defer cc.Close()
	host, guest := shmtest.Regions(t, 2)
	serve(t, laneConn{sc, host.Offer(shm.ID{1})}, echo, someLimits)
	file := host.File()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_, _ = file.WriteAt(bytes.Repeat([]byte{byte(i)}, 100_000), int64(i%30)*100_000)
			}
		}
	}()
	peer := hostile{t, cc}
	for i := range 100 {
		for j := range 2 {
			frame := peer.frame(header{tag: uint32(2*i + j), op: opGrow, errno: laneRoom, length: 4}, make([]byte, laneSize))
			place{1, shm.SlotSize}.put(frame[headerSize:])
			if _, err := cc.Write(append(frame, number(300_000)...)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if hd, _ := peer.receiveHeader(); hd.errno != inLane || hd.length != 300_000 {
				t.Fatalf("%+v", hd)
			}
		}
	}
	close(stop)
	<-stopped
	if _, err := guest.Accept(shm.ID{1}); !errors.Is(err, shm.ErrRefused) {
		t.Errorf("a header that was scribbled over: %v", err)
	}
}

func (h hostile) receiveHeader() (header, error) {
	h.Helper()
	var buf [headerSize]byte
	return readHeader(h, &buf)
}

// A server may answer with nothing but what fits into the slot it was offered.
func TestHostileLaneServer(t *testing.T) {
	for name, tt := range map[string]struct {
		into int
		head header
	}{
		"longer than the room":   {LaneMin, header{length: LaneMin + 1, errno: inLane}},
		"nothing in the slot":    {LaneMin, header{errno: inLane}},
		"no slot was offered":    {10, header{length: 5, errno: inLane}},
		"an errno in the slot":   {LaneMin, header{length: 5000, errno: inLane | 5}},
		"longer than any answer": {LaneMin, header{length: 1<<32 - 1, errno: inLane}},
	} {
		t.Run(name, func(t *testing.T) {
			cc, sc := socketpair(t)
			defer sc.Close()
			cl, _ := shmtest.Lanes(t, 4)
			c := newClient(laneConn{cc, cl})
			defer c.Close()
			go func() {
				peer := hostile{t, sc}
				hd, err := peer.receiveHeader()
				if err != nil {
					return
				}
				tt.head.tag, tt.head.op = hd.tag, hd.op
				frame := peer.frame(tt.head, nil)
				_, _ = sc.Write(frame)
			}()
			if got, err := c.Call(t.Context(), opEcho, nil, nil, make([]byte, tt.into)); !errors.Is(err, ErrProtocol) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// What a response is when it grows out of the slot, and shrinks.
func TestResponseInSlot(t *testing.T) {
	room := make([]byte, 3*LaneMin)
	r := Response{room: room}
	if b := r.Grow(LaneMin); &b[0] != &room[0] {
		t.Error("not in the room")
	}
	r.Shrink(1)
	r.Append(pattern(LaneMin, 1))
	if r.shared != 2*LaneMin-1 || !bytes.Equal(room[LaneMin-1:2*LaneMin-1], pattern(LaneMin, 1)) {
		t.Errorf("%d bytes in the room", r.shared)
	}
	r.Append(pattern(2*LaneMin, 2))
	want := append(append(bytes.Clone(room[:LaneMin-1]), pattern(LaneMin, 1)...), pattern(2*LaneMin, 2)...)
	if r.shared != 0 || !bytes.Equal(r.buf[headerSize:], want) {
		t.Errorf("%d bytes in the room, %d outside", r.shared, len(r.buf))
	}
	r = Response{room: room}
	r.Append([]byte("small"))
	r.Append(pattern(LaneMin, 1))
	if r.shared != 0 || len(r.buf) != headerSize+5+LaneMin {
		t.Errorf("%d bytes in the room, %d outside", r.shared, len(r.buf))
	}
}

// tape keeps what is written to a connection.
type tape struct {
	laneConn
	mu  sync.Mutex
	buf bytes.Buffer
}

func (c *tape) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf.Write(b)
	return c.laneConn.Write(b)
}

// The bytes of requests and responses with a slot.
func TestLaneGolden(t *testing.T) {
	a, b := socketpair(t)
	cl, sl := shmtest.Lanes(t, 2)
	cc, sc := &tape{laneConn: laneConn{a, cl}}, &tape{laneConn: laneConn{b, sl}}
	serve(t, sc, echo, someLimits)
	c := newClient(cc)
	defer c.Close()
	for _, call := range []func() ([]byte, error){
		func() ([]byte, error) { return c.Call(t.Context(), opEcho, []byte("head"), pattern(LaneMin, 0), nil) },
		func() ([]byte, error) { return c.Call(t.Context(), opGrow, number(5000), nil, make([]byte, 70000)) },
		func() ([]byte, error) { return c.Call(t.Context(), opGrow, number(5), nil, make([]byte, 70000)) },
	} {
		if _, err := call(); err != nil {
			t.Fatal(err)
		}
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	answers := sc.buf.Bytes()
	echoed := headerSize + 4 + LaneMin // of no interest here
	got := "requests\n" + hex.Dump(cc.buf.Bytes()) + "responses\n" + hex.Dump(answers[:headerSize+4]) + hex.Dump(answers[echoed:])
	want, err := os.ReadFile("testdata/lane.hex")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
