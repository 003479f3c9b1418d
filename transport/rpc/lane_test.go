package rpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
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
