package mux

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// maxControl bounds the frames that the reading goroutine has others write. Each is
// either the refusal of a stream or for half a window of a stream.
const maxControl = 1 << 10

// bulk is what a session has for its bulk streams. Their frames come and go in records
// of their own; the goroutine that reads for yamux takes them on its way.
type bulk struct {
	s    *Session
	woke bool // of the reading goroutine: a Read has what it waited for

	endOnce sync.Once
	over    chan struct{} // closed when nothing more is read from the link

	mu         sync.Mutex
	streams    map[uint32]*Bulk
	nextID     uint32
	control    []frame // to be written by controlLoop
	hasControl chan struct{}
}

func newBulks(s *Session, r role) *bulk {
	b := &bulk{
		s: s, over: make(chan struct{}), streams: make(map[uint32]*Bulk),
		nextID: 2, hasControl: make(chan struct{}, 1),
	}
	if r == roleHost {
		b.nextID = 1
	}
	return b
}

// end is called when nothing more is read from the link.
func (b *bulk) end() { b.endOnce.Do(func() { close(b.over) }) }

// OpenBulk is [Session.Open] for a stream that is to carry much data, a [*Bulk]. It
// waits for nothing but the link; a peer that has Config.MaxStreams streams of ours
// already refuses it, with [ErrReset].
func (s *Session) OpenBulk(ctx context.Context, name string) (net.Conn, error) {
	if _, err := encodePreface(name); err != nil {
		return nil, err
	}
	b := s.bulk
	b.mu.Lock()
	st := newBulk(b, b.nextID, name)
	b.nextID += 2
	b.streams[st.id] = st
	b.mu.Unlock()
	opened := make(chan error, 1)
	started := s.spawn(func() {
		opened <- s.conn.sendBulk(frame{typ: frameData, flags: flagSYN, stream: st.id, length: uint32(len(name))}, []byte(name))
	})
	if !started {
		return nil, fmt.Errorf("mux: open stream %q: %w", name, s.conn.why())
	}
	select {
	case err := <-opened:
		if err != nil {
			return nil, fmt.Errorf("mux: open stream %q: %w", name, err)
		}
		return st, nil
	case <-ctx.Done():
		s.spawn(func() {
			if <-opened == nil {
				_ = st.Close()
			}
		})
		return nil, fmt.Errorf("mux: open stream %q: the peer takes nothing: %w", name, ctx.Err())
	}
}

// remove forgets a stream about which the peer has nothing more to say.
func (b *bulk) remove(st *Bulk) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.streams, st.id)
}

// A target is where the body of a record goes before the record is believed.
type target struct {
	st     *Bulk  // nil: a stream that is new or not there any more
	direct []byte // of who waits in Read
	rest   *chunk
}

func (t *target) bytes() []byte {
	if t.rest == nil {
		return nil
	}
	return t.rest.buf
}

// end ends the use of the target.
func (t *target) end() {
	if t.direct != nil {
		t.st.filled()
	}
	if t.rest != nil {
		t.rest.free()
	}
}

// receive says where the n bytes of a frame's body belong, and changes nothing yet.
func (b *bulk) receive(f frame, n int) (t target, err error) {
	b.mu.Lock()
	t.st = b.streams[f.stream]
	b.mu.Unlock()
	switch {
	case t.st != nil && f.has(flagSYN):
		err = fmt.Errorf("%w: bulk stream %d is opened twice", ErrProtocol, f.stream)
	case t.st != nil && n > 0:
		t.direct, err = t.st.offer(n)
	}
	if n -= len(t.direct); n > 0 {
		t.rest = newChunk(n)
	}
	return t, err
}

func overWindow(stream uint32) error {
	return fmt.Errorf("%w: bulk stream %d goes beyond its window", ErrProtocol, stream)
}

// received acts on a frame whose body has arrived in t.
func (b *bulk) received(f frame, t *target) error {
	switch {
	case f.has(flagSYN):
		return b.accept(f, string(t.bytes()))
	case t.st == nil:
		return nil // for a stream that we have refused or that has ended
	}
	grant, err := t.st.received(f, t)
	if err == nil && grant > 0 {
		err = b.sendLater(frame{typ: frameWindow, stream: f.stream, length: grant})
	}
	return err
}

// accept takes over a stream that the peer has opened, if there is a slot for it.
func (b *bulk) accept(f frame, name string) error {
	if _, err := encodePreface(name); err != nil || f.flags != flagSYN {
		return fmt.Errorf("%w: bulk stream called %q, flags %d", ErrProtocol, name, f.flags)
	}
	select {
	case b.s.slots <- struct{}{}:
	default:
		b.s.ep.log.Warn("stream refused: there are too many", "epoch", b.s.Epoch(), "stream", name)
		return b.sendLater(frame{typ: frameWindow, flags: flagRST, stream: f.stream})
	}
	st := newBulk(b, f.stream, name)
	st.slot = true
	b.mu.Lock()
	b.streams[st.id] = st
	b.mu.Unlock()
	b.s.accepted <- st // has room for every slot
	return nil
}

// sendLater has controlLoop write a frame: the reading goroutine must not wait for
// the peer to read.
func (b *bulk) sendLater(f frame) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.control) >= maxControl {
		return fmt.Errorf("%w: bulk streams are opened faster than they can be refused", ErrProtocol)
	}
	b.control = append(b.control, f)
	wake(b.hasControl)
	return nil
}

func (b *bulk) controlLoop() {
	for {
		select {
		case <-b.hasControl:
		case <-b.over:
			return
		}
		b.mu.Lock()
		frames := b.control
		b.control = nil
		b.mu.Unlock()
		for _, f := range frames {
			if b.s.conn.sendControl(f) != nil {
				return
			}
		}
	}
}
