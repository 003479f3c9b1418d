package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// maxPiece is what one yamux frame carries at most, so that a full one makes a
// full record.
const maxPiece = maxPayload - frameLen

// Stream is what [Session.Open] and [Session.Accept] return: a net.Conn that can
// also be closed in one direction.
type Stream struct {
	s    *Session
	ym   *yamux.Stream
	name string
	id   uint32

	release func() // gives back the stream's slot, once

	// Lock order: rmu, mu; wmu is held alone.
	wmu sync.Mutex // keeps concurrent Writes whole
	rmu sync.Mutex // one Read at a time

	mu     sync.Mutex
	closed bool
	eof    bool
}

var _ net.Conn = (*Stream)(nil)

func (s *Session) newStream(ym *yamux.Stream, name string, release func()) *Stream {
	return &Stream{s: s, ym: ym, name: name, id: ym.StreamID(), release: release}
}

// Name returns the name the stream was opened with.
func (st *Stream) Name() string { return st.name }

// Read reads what is there, or waits. io.EOF means that the peer has closed its
// side after what was read so far.
func (st *Stream) Read(p []byte) (int, error) {
	st.rmu.Lock()
	defer st.rmu.Unlock()
	if st.isClosed() {
		return 0, st.error("read", net.ErrClosed)
	}
	n, err := st.ym.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		// yamux says EOF at the end of the session, too.
		if st.ended() {
			return n, io.EOF
		}
		err = yamux.ErrSessionShutdown
	case errors.Is(err, yamux.ErrTimeout) && !st.isClosed():
		return n, os.ErrDeadlineExceeded
	case errors.Is(err, yamux.ErrTimeout):
		return n, st.error("read", net.ErrClosed) // Close broke it off
	}
	return n, st.error("read", st.s.streamError(err))
}

// ended reports whether the peer has closed its side of the stream. All it sent
// before has been read by now if yamux says EOF.
func (st *Stream) ended() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.eof {
		st.s.mu.Lock()
		_, st.eof = st.s.fins[st.id]
		delete(st.s.fins, st.id)
		st.s.mu.Unlock()
	}
	return st.eof
}

// Write writes all of p, in pieces that let other streams go in between.
func (st *Stream) Write(p []byte) (int, error) {
	st.wmu.Lock()
	defer st.wmu.Unlock()
	done := 0
	for done < len(p) {
		n, err := st.ym.Write(p[done:min(len(p), done+maxPiece)])
		if lost := st.s.conn.unsent(st.id); lost != nil {
			return done, st.error("write", lost) // perhaps some of n was sent
		}
		done += n
		if errors.Is(err, yamux.ErrTimeout) {
			return done, os.ErrDeadlineExceeded
		}
		if err != nil {
			return done, st.error("write", st.s.streamError(err))
		}
	}
	return done, nil
}

// CloseWrite closes this side: the peer reads io.EOF after what was written.
// What the peer sends can still be read.
func (st *Stream) CloseWrite() error {
	_ = st.ym.Close() // its error is always nil
	return nil
}

// Close closes this side, and throws away what the peer still sends until it
// closes its own.
func (st *Stream) Close() error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	_ = st.ym.SetReadDeadline(aLongTimeAgo) // breaks a Read that waits
	st.mu.Unlock()

	_ = st.ym.Close()
	if !st.s.spawn(st.drain) {
		st.release()
	}
	return nil
}

func (st *Stream) drain() {
	defer st.release()
	st.rmu.Lock() // until the Read that Close broke off is out
	defer st.rmu.Unlock()
	_ = st.ym.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, onlyReader{st.ym})
	st.ended() // forgets the peer's FIN
}

// onlyReader hides methods from io.Copy.
type onlyReader struct{ io.Reader }

func (st *Stream) isClosed() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.closed
}

// SetDeadline sets both deadlines.
func (st *Stream) SetDeadline(t time.Time) error {
	if err := st.SetReadDeadline(t); err != nil {
		return err
	}
	return st.SetWriteDeadline(t)
}

// SetReadDeadline sets the time after which Reads fail, with
// os.ErrDeadlineExceeded; also those that wait.
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return st.error("set deadline", net.ErrClosed)
	}
	return st.ym.SetReadDeadline(t)
}

// SetWriteDeadline is SetReadDeadline for Writes that wait for the peer's window.
// One that waits for the link waits on.
func (st *Stream) SetWriteDeadline(t time.Time) error { return st.ym.SetWriteDeadline(t) }

// LocalAddr returns the stream's name.
func (st *Stream) LocalAddr() net.Addr { return addr(st.name) }

// RemoteAddr returns the stream's name.
func (st *Stream) RemoteAddr() net.Addr { return addr(st.name) }

type addr string

func (addr) Network() string  { return "mux" }
func (a addr) String() string { return string(a) }

func (st *Stream) error(op string, err error) error {
	return fmt.Errorf("mux: %s stream %q: %w", op, st.name, err)
}
