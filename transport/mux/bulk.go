package mux

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"
)

// Bulk is a stream for much data, from [Session.OpenBulk] and [Session.Accept]: a
// net.Conn that can also be closed in one direction, and that has a Read and a Write
// which save copies. It does without yamux: what arrives goes from the link to where it
// is wanted, and what is written goes from where it is to the link.
type Bulk struct {
	b    *bulk
	s    *Session
	name string
	id   uint32

	// Lock order: wmu or rmu, then mu, then bulk.mu.
	wmu sync.Mutex // keeps concurrent Writes whole
	rmu sync.Mutex // one Read at a time

	readable  chan struct{} // wakes Read, when anything below has changed
	writable  chan struct{} // the same for Write
	readLimit deadline
	sendLimit deadline

	mu     sync.Mutex
	slot   bool // it has one of Session.slots
	closed bool // by Close
	finned bool // our side is closed, and the peer told
	fin    bool // the peer's side is
	reset  bool

	queue   queue
	window  uint32 // what the peer may still send
	want    []byte // of the Read that waits
	got     int    // bytes in it
	least   int    // with how many it is content
	filling bool   // the reading goroutine is writing to it
	hurry   bool   // the Read waits for nothing but the end of that

	credit uint64 // what the peer lets us send
}

var _ net.Conn = (*Bulk)(nil)

func newBulk(b *bulk, id uint32, name string) *Bulk {
	return &Bulk{
		b: b, s: b.s, id: id, name: name, window: minWindow, credit: minWindow,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
	}
}

// Name returns the name the stream was opened with.
func (st *Bulk) Name() string { return st.name }

// wake wakes who waits on c, or will next.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// grantLocked returns by how much the peer's window may grow, if that is worth a frame;
// the frame must be sent. mu is held.
func (st *Bulk) grantLocked() uint32 {
	used := uint64(st.window) + uint64(st.queue.len)
	full := uint64(st.s.ep.cfg.Window)
	if st.fin || st.reset || used > full/2 {
		return 0
	}
	n := uint32(full - used)
	st.window += n
	return n
}

// await waits for a wake, the limit or the end of the session. mu is held, but not
// while it waits.
func (st *Bulk) await(c chan struct{}, limit *deadline) error {
	passed := limit.wait()
	st.mu.Unlock()
	defer st.mu.Lock()
	select {
	case <-passed:
		return os.ErrDeadlineExceeded
	default:
	}
	select {
	case <-c:
	case <-st.b.over:
	case <-passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// received acts on a frame of the peer's, and takes its body over. If it returns a
// grant the frame for it has to be sent.
func (st *Bulk) received(f frame, t *target) (grant uint32, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.reset {
		return 0, nil
	}
	switch {
	case f.typ == frameWindow && st.credit > math.MaxUint32:
		return 0, fmt.Errorf("%w: the window of stream %d grows beyond all bounds", ErrProtocol, st.id)
	case f.typ == frameWindow && f.length > 0:
		st.credit += uint64(f.length)
		wake(st.writable)
	case f.length > 0 && st.fin:
		return 0, fmt.Errorf("%w: data on stream %d after its end", ErrProtocol, st.id)
	case f.length > 0:
		st.take(f.length, t)
		if st.closed {
			grant = st.grantLocked()
		}
	}
	return grant, st.ending(f)
}

// take accounts for n bytes that have arrived. mu is held.
func (st *Bulk) take(n uint32, t *target) {
	st.window -= n
	st.got += len(t.direct)
	if t.rest != nil && !st.closed {
		st.queue.put(t.rest)
		t.rest = nil
	}
	if t.direct == nil { // else filled does it
		wake(st.readable)
	}
}

// ending acts on the flags that end a stream. mu is held.
func (st *Bulk) ending(f frame) error {
	switch {
	case f.has(flagRST):
		st.reset = true
		st.queue.drop()
	case f.has(flagFIN) && st.fin:
		return fmt.Errorf("%w: stream %d ends twice", ErrProtocol, st.id)
	case f.has(flagFIN):
		st.fin = true
	default:
		return nil
	}
	wake(st.readable)
	wake(st.writable)
	if st.reset || st.finned {
		st.b.remove(st)
	}
	if st.closed {
		st.giveSlot()
	}
	return nil
}

// giveSlot gives the stream's slot back, if it has one. mu is held.
func (st *Bulk) giveSlot() {
	if st.slot {
		st.slot = false
		<-st.s.slots
	}
}

// CloseWrite closes this side: the peer reads io.EOF after what was written.
// What the peer sends can still be read.
func (st *Bulk) CloseWrite() error {
	st.mu.Lock()
	if st.finned || st.reset {
		st.mu.Unlock()
		return nil
	}
	st.finned = true
	wake(st.writable)
	if st.fin {
		st.b.remove(st)
	}
	st.mu.Unlock()
	// It fails only with the session.
	_ = st.s.conn.sendControl(frame{typ: frameWindow, flags: flagFIN, stream: st.id})
	return nil
}

// Close closes this side, and throws away what the peer still sends until it
// closes its own.
func (st *Bulk) Close() error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	if !st.filling {
		st.queue.drop()
	}
	wake(st.readable)
	grant := st.grantLocked()
	st.mu.Unlock()
	_ = st.CloseWrite()
	if grant > 0 {
		_ = st.s.conn.sendControl(frame{typ: frameWindow, stream: st.id, length: grant})
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.fin || st.reset {
		st.giveSlot()
	}
	return nil
}

// SetDeadline sets both deadlines.
func (st *Bulk) SetDeadline(t time.Time) error {
	if err := st.SetReadDeadline(t); err != nil {
		return err
	}
	return st.SetWriteDeadline(t)
}

// SetReadDeadline sets the time after which Reads fail, with
// os.ErrDeadlineExceeded; also those that wait.
func (st *Bulk) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return st.error("set deadline", net.ErrClosed)
	}
	st.readLimit.set(t)
	wake(st.readable)
	return nil
}

// SetWriteDeadline is SetReadDeadline for Writes that wait for the peer's window.
// One that waits for the link waits on.
func (st *Bulk) SetWriteDeadline(t time.Time) error {
	st.sendLimit.set(t)
	wake(st.writable)
	return nil
}

// LocalAddr returns the stream's name.
func (st *Bulk) LocalAddr() net.Addr { return addr(st.name) }

// RemoteAddr returns the stream's name.
func (st *Bulk) RemoteAddr() net.Addr { return addr(st.name) }

func (st *Bulk) error(op string, err error) error {
	if err == io.EOF || err == os.ErrDeadlineExceeded { //nolint:errorlint // as net.Conn's are
		return err
	}
	return fmt.Errorf("mux: %s stream %q: %w", op, st.name, err)
}
