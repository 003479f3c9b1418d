package treefs

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A Slot holds what belongs to the current session, and lets requests wait for it.
// The zero value is empty.
type Slot[T any] struct {
	mu      sync.Mutex
	cur     *T
	arrived chan struct{} // if somebody waits: closed when cur is set, or by Close
	closed  bool
}

// Swap puts v, which may be nil, in and returns what was there. Once the slot is
// closed it stays empty.
func (s *Slot[T]) Swap(v *T) (old *T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, s.cur = s.cur, nil
	if v != nil && !s.closed {
		s.cur = v
		s.release()
	}
	return old
}

// Close empties the slot for good and returns what was there.
func (s *Slot[T]) Close() (old *T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, s.cur, s.closed = s.cur, nil, true
	s.release()
	return old
}

// release lets those go who wait.
func (s *Slot[T]) release() {
	if s.arrived != nil {
		close(s.arrived)
		s.arrived = nil
	}
}

// Now returns what is there, nil for nothing.
func (s *Slot[T]) Now() *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur
}

// Wait returns what is there or comes within grace, else EIO.
func (s *Slot[T]) Wait(cancel <-chan struct{}, grace time.Duration) (*T, fuse.Status) {
	var timeout <-chan time.Time
	for {
		v, arrived := s.next()
		if v != nil {
			return v, fuse.OK
		}
		if arrived == nil {
			return nil, fuse.EIO
		}
		if timeout == nil {
			t := time.NewTimer(grace)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-arrived:
		case <-cancel:
			return nil, fuse.EINTR
		case <-timeout:
			return nil, fuse.EIO
		}
	}
}

// next returns what is there, or a channel that tells of what comes, or neither
// if the slot is closed.
func (s *Slot[T]) next() (*T, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != nil || s.closed {
		return s.cur, nil
	}
	if s.arrived == nil {
		s.arrived = make(chan struct{})
	}
	return nil, s.arrived
}
