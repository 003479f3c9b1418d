package rpc

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"winvm/transport/shm"
	"winvm/transport/shm/shmtest"
)

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
