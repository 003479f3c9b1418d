package shm

import (
	"errors"
	"fmt"
)

// A Lane is the use of a region by one session. Its methods may be called by any
// goroutine.
type Lane struct {
	r    *Region
	lost []uint32 // slots of calls that got no response; guarded by Region.mu
}

// A Slot is one that a call has taken. Exactly one of Free and Lose ends it.
type Slot struct {
	l *Lane
	n uint32
}

// Take takes a slot for a call; ok is false if there is none. It prefers the one that
// was in use last: its memory is in the caches, and what is never used costs nothing.
func (l *Lane) Take() (s Slot, ok bool) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	last := len(l.r.free) - 1
	if last < 0 || l.r.current != l || l.r.closed {
		return Slot{}, false
	}
	s = Slot{l, l.r.free[last]}
	l.r.free = l.r.free[:last]
	return s, true
}

// Valid reports whether s is a slot, and not the zero value.
func (s Slot) Valid() bool { return s.l != nil }

// Number is what the peer is told.
func (s Slot) Number() uint32 { return s.n }

// Bytes are the first n bytes of the slot's memory.
func (s Slot) Bytes(n int) []byte { return s.l.r.slot(s.n, n) }

// Free gives the slot back: the peer has answered.
func (s Slot) Free() {
	s.l.r.mu.Lock()
	defer s.l.r.mu.Unlock()
	s.l.r.free = append(s.l.r.free, s.n)
}

// Lose gives up the slot of a call that gets no response any more. The peer may
// still be writing to it, so it isn't used again in this session.
func (s Slot) Lose() {
	s.l.r.mu.Lock()
	defer s.l.r.mu.Unlock()
	if s.l.r.current == s.l {
		s.l.lost = append(s.l.lost, s.n)
		return
	}
	s.l.r.free = append(s.l.r.free, s.n) // the session after has begun: the peer is done
}

// ErrSlot says that a peer named memory that is no slot.
var ErrSlot = errors.New("no such slot")

// Lend gives the serving side the memory that a request names, for the time until
// Return. Two requests that name the same get the same: that harms who did it.
func (l *Lane) Lend(number, length uint32) ([]byte, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if uint64(number) >= uint64(l.r.slots()) || length == 0 || length > SlotSize {
		return nil, fmt.Errorf("%w: %d bytes of slot %d, there are %d of %d bytes", ErrSlot, length, number, l.r.slots(), SlotSize)
	}
	if l.r.closed || l.r.current != l {
		return nil, fmt.Errorf("%w: the lane has ended", ErrSlot)
	}
	l.r.users++
	l.r.lent++
	return l.r.slot(number, int(length)), nil
}

// Return ends a Lend.
func (l *Lane) Return() {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.r.users--
}

// A Carrier is a connection that may have a lane beside it.
type Carrier interface{ Lane() *Lane }

// Of is the lane beside a connection, nil if there is none.
func Of(conn any) *Lane {
	if c, ok := conn.(Carrier); ok {
		return c.Lane()
	}
	return nil
}
