package rpc

import (
	"bytes"
	"context"
	"io"
	"testing"

	"winvm/transport/shm"
	"winvm/transport/shm/shmtest"
)

// A script is a connection whose peer sends fixed bytes, then hangs up.
type script struct {
	io.Reader
	wrote bytes.Buffer
}

func (s *script) Write(p []byte) (int, error) { return s.wrote.Write(p) }

func (s *script) Close() error { return nil }

func seeds(f *testing.F) {
	h := hostile{}
	for _, b := range [][]byte{
		nil,
		{1, 2, 3},
		h.frame(header{length: 3, tag: 1, op: opEcho}, []byte("abc")),
		h.frame(header{length: 3, tag: 1, op: opEcho, errno: 2}, []byte("abc")),
		h.frame(header{length: 300, tag: 1, op: opEcho}, []byte("abc")),
		h.frame(header{length: 1<<32 - 1, tag: 1<<32 - 1, op: 1<<16 - 1, errno: 1<<16 - 1}, nil),
		append(h.frame(header{length: 1, tag: 1, op: opEcho}, []byte("a")), h.frame(header{tag: 2, op: opPanic}, nil)...),
	} {
		f.Add(b)
	}
}

// FuzzServer: whatever a peer sends, the server answers each whole request before
// the first bad one once, and returns.
func FuzzServer(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := &script{Reader: bytes.NewReader(sent)}
		handle := func(_ context.Context, op uint16, body, _ []byte, resp *Response) error {
			if op == opPanic {
				panic("test")
			}
			resp.Append(body)
			return nil
		}
		_ = Serve(t.Context(), conn, handle, errnoOf, Limits{MaxRequest: 1000, InFlight: 4}, quietLog)
		requests := count(sent, func(h header) bool { return h.length <= 1000 && h.errno == 0 })
		answers := count(conn.wrote.Bytes(), func(h header) bool { return h.length <= 1024 })
		if answers != requests {
			t.Errorf("%d requests, %d answers", requests, answers)
		}
	})
}

// FuzzClient: whatever a server sends, a call returns, and with no more than was
// allowed.
func FuzzClient(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, sent []byte) {
		asked := make(chan struct{})
		conn := &answering{script: script{Reader: bytes.NewReader(sent)}, asked: asked}
		c := NewClient(conn, 1000)
		got, err := c.Call(t.Context(), opEcho, []byte("x"), nil, make([]byte, 10))
		if err == nil && len(got) > 1000 || err != nil && len(err.Error()) > 2000 {
			t.Errorf("%d bytes, error %v", len(got), err)
		}
		_ = c.Close()
	})
}

// laneSeeds are requests with slots, and responses.
func laneSeeds(f *testing.F) {
	seeds(f)
	h := hostile{}
	at := func(hd header, p place) []byte {
		b := h.frame(hd, make([]byte, laneSize+int(hd.length)))
		p.put(b[headerSize:])
		return b
	}
	for _, b := range [][]byte{
		at(header{length: 3, tag: 1, op: opEcho, errno: laneTail}, place{0, 5000}),
		at(header{tag: 1, op: opEcho, errno: laneRoom}, place{1, shm.SlotSize}),
		at(header{tag: 1, op: opEcho, errno: laneRoom}, place{2, 1}),
		at(header{length: 1, tag: 1, op: opEcho, errno: laneTail}, place{1<<32 - 1, 1<<32 - 1})[:15],
		h.frame(header{length: 5000, tag: 1, op: opEcho, errno: inLane}, nil),
		h.frame(header{length: 5, tag: 1, op: opEcho, errno: inLane | 2}, nil),
	} {
		f.Add(b)
	}
}

// FuzzLaneServer: whatever a peer says of slots, the server returns, and nothing is
// lent for ever.
func FuzzLaneServer(f *testing.F) {
	laneSeeds(f)
	host, _ := shmtest.Regions(f, 2)
	f.Fuzz(func(t *testing.T, sent []byte) {
		lane := host.Offer(shm.ID{1})
		if lane == nil {
			t.Fatal("a slot is lent after the server has returned")
		}
		conn := &script{Reader: bytes.NewReader(sent)}
		_ = Serve(t.Context(), conn, echo, errnoOf, Limits{MaxRequest: 10_000, InFlight: 4, Lane: lane}, quietLog)
	})
}

// FuzzLaneClient: whatever a server sends, a call that offered a slot returns, with no
// more than was allowed, and the slot is free or lost, once.
func FuzzLaneClient(f *testing.F) {
	laneSeeds(f)
	host, guest := shmtest.Regions(f, 1)
	f.Fuzz(func(t *testing.T, sent []byte) {
		host.Offer(shm.ID{1})
		lane, err := guest.Accept(shm.ID{1})
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan struct{})
		conn := &answering{script: script{Reader: bytes.NewReader(sent)}, asked: asked}
		c := NewClient(conn, 10_000)
		c.UseLane(lane)
		got, err := c.Call(t.Context(), opEcho, []byte("x"), nil, make([]byte, 6000))
		if err == nil && len(got) > 10_000 {
			t.Errorf("%d bytes, error %v", len(got), err)
		}
		_ = c.Close()
		first, ok := lane.Take()
		if _, more := lane.Take(); more {
			t.Error("the slot is free twice")
		}
		if ok {
			first.Free()
		}
		host.Offer(shm.ID{2})
		if lane, err = guest.Accept(shm.ID{2}); err != nil {
			t.Fatal(err)
		}
		if s, ok := lane.Take(); ok {
			s.Free()
		} else {
			t.Error("the slot is gone")
		}
	})
}

// answering begins to answer when it was asked something.
type answering struct {
	script
	asked chan struct{}
}

func (a *answering) Write(p []byte) (int, error) {
	close(a.asked)
	return len(p), nil
}

func (a *answering) Read(p []byte) (int, error) {
	<-a.asked
	return a.script.Read(p)
}

// count tells how many whole frames stand before the first one that is not ok.
func count(b []byte, ok func(header) bool) int {
	n := 0
	for r := bytes.NewReader(b); ; n++ {
		var buf [headerSize]byte
		h, err := readHeader(r, &buf)
		if err != nil || !ok(h) || int(h.length) > r.Len() {
			return n
		}
		_, _ = r.Seek(int64(h.length), io.SeekCurrent)
	}
}
