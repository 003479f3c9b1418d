package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// aLongTimeAgo is a deadline that breaks whatever waits.
var aLongTimeAgo = time.Unix(1, 0)

// recordConn carries yamux's frames in records over the endpoint's link. Read is
// called by yamux's receiving goroutine alone, Write by its sending one.
//
// Lock order: turn, then mu.
type recordConn struct {
	ep *Endpoint
	s  *Session
	hs handshake

	// Of the reading goroutine.
	in   lane
	left int // bytes of the current record's payload not yet handed to yamux

	// turn is held (full) by who writes a record; it guards the fields below.
	turn      chan struct{}
	out       lane
	closeSent bool
	front     [headerLen + frameLen]byte
	trailer   [trailerLen]byte
	vec       [3][]byte
	buf       []byte // for links without writev

	// Of yamux's sending goroutine: a frame's header whose body comes next.
	head    [frameLen]byte
	hasHead bool

	dead chan struct{} // closed by fail

	mu       sync.Mutex
	cause    error // why dead; the first one counts
	gotClose bool
}

func newRecordConn(e *Endpoint, hs handshake) *recordConn {
	k := hs.keys()
	c := &recordConn{
		ep:   e,
		hs:   hs,
		in:   lane{epoch: k.epoch, seal: k.guestSeal},
		out:  lane{epoch: k.epoch, seal: k.hostSeal},
		turn: make(chan struct{}, 1),
		dead: make(chan struct{}),
	}
	if hs.role == roleGuest {
		c.in.seal, c.out.seal = c.out.seal, c.in.seal
	}
	return c
}

// fail ends the session for the first reason given and returns that. It breaks
// reads and writes that wait on the link.
func (c *recordConn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = err
		close(c.dead)
		_ = c.ep.link.SetReadDeadline(aLongTimeAgo)
		_ = c.ep.link.SetWriteDeadline(aLongTimeAgo)
	}
	return c.cause
}

// why returns the reason the session ended for, or nil.
func (c *recordConn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// armWrite allows the link d for the next write.
func (c *recordConn) armWrite(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil { // don't undo fail's deadline
		return c.cause
	}
	return c.ep.link.SetWriteDeadline(time.Now().Add(d))
}

// Close is called by yamux when it ends, be it by its own decision.
func (c *recordConn) Close() error {
	_ = c.fail(errYamux)
	return nil
}

var errYamux = fmt.Errorf("%w: yamux ended the session", ErrProtocol)

// Read gives yamux the bytes of the next record.
func (c *recordConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.next(); err != nil {
			if err = c.fail(err); errors.Is(err, ErrClosed) {
				return 0, io.EOF
			}
			return 0, err
		}
	}
	// next has the whole record in the buffer, so this doesn't block.
	n, err := c.ep.br.Read(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		_, _ = c.ep.br.Discard(trailerLen)
	}
	return n, err
}

// next takes records until there is one for yamux. What it doesn't understand it
// leaves in the buffer, for the next resync.
func (c *recordConn) next() error {
	for {
		b, err := c.ep.br.Peek(headerLen)
		if err != nil {
			return ioError("read", err)
		}
		if b[0] == magic[0] {
			if err := c.skipOwnResync(); err != nil {
				return err
			}
			continue
		}
		if isPad(b) {
			return ErrSuperseded
		}
		typ, length, err := c.in.header(b)
		if err != nil {
			return err
		}
		// Nothing of a record is believed before its end has been seen: a peer
		// that was cut off leaves half a one, and the next peer's bytes follow.
		total := headerLen + length + trailerLen
		if b, err = c.ep.br.Peek(total); err != nil {
			return ioError("read", err)
		}
		if err := c.in.trailer(b[total-trailerLen:]); err != nil {
			return err
		}
		c.in.seq++
		if typ == typeClose {
			_, _ = c.ep.br.Discard(total)
			return c.peerCloses()
		}
		f, err := checkFrame(b[headerLen:headerLen+length], c.peer())
		if err != nil {
			return err
		}
		c.s.seen(f)
		_, _ = c.ep.br.Discard(headerLen)
		c.left = length
		return nil
	}
}

func (c *recordConn) peer() role {
	if c.hs.role == roleHost {
		return roleGuest
	}
	return roleHost
}

// skipOwnResync takes a late copy of this session's own resync; anything else
// ends the session and stays in the buffer.
func (c *recordConn) skipOwnResync() error {
	b, err := c.ep.br.Peek(resyncLen)
	if err != nil {
		return ioError("read", err)
	}
	r, err := decodeResync(b)
	switch {
	case err != nil:
		return fmt.Errorf("%w: % x…", ErrRecord, b[:headerLen])
	case !c.hs.owns(&r):
		return ErrSuperseded
	}
	_, _ = c.ep.br.Discard(resyncLen)
	return nil
}

// peerCloses answers the peer's close record.
func (c *recordConn) peerCloses() error {
	c.mu.Lock()
	c.gotClose = true
	c.mu.Unlock()
	c.s.settle()
	// Bounds a data record that is on its way, too.
	if err := c.armWrite(c.ep.cfg.CloseTimeout); err != nil {
		return err
	}
	if err := c.sendClose(); err != nil {
		return err
	}
	return ErrClosed
}

// Write takes a frame's header, or its body, from yamux. Header and body go into
// one record.
func (c *recordConn) Write(p []byte) (int, error) {
	if !c.hasHead {
		if len(p) != frameLen {
			return 0, c.fail(fmt.Errorf("%w: yamux wrote %d bytes for a header", ErrProtocol, len(p)))
		}
		copy(c.head[:], p)
		if parseFrame(p).hasBody() {
			c.hasHead = true
			return len(p), nil
		}
		return len(p), c.sendFrame(nil)
	}
	c.hasHead = false
	return len(p), c.sendFrame(p)
}

func (c *recordConn) sendFrame(body []byte) error {
	if frameLen+len(body) > maxPayload {
		return c.fail(fmt.Errorf("%w: yamux wrote a frame of %d bytes", ErrProtocol, len(body)))
	}
	if err := c.lock(); err != nil {
		return err
	}
	if c.closeSent {
		c.unlock()
		if body == nil {
			return nil // windows and the like: the peer has no use for it any more
		}
		// The writer has to learn that this wasn't sent, but not before the peer's
		// own last records are in.
		<-c.dead
		return c.why()
	}
	defer c.unlock()
	if err := c.armWrite(c.ep.cfg.WriteTimeout); err != nil {
		return err
	}
	return c.put(typeData, c.head[:], body)
}

// sendClose sends our close record, once.
func (c *recordConn) sendClose() error {
	if err := c.lock(); err != nil {
		return err
	}
	defer c.unlock()
	if c.closeSent {
		return nil
	}
	if err := c.armWrite(c.ep.cfg.CloseTimeout); err != nil {
		return err
	}
	c.closeSent = true
	return c.put(typeClose, nil, nil)
}

// put writes one record in one write.
func (c *recordConn) put(typ byte, head, body []byte) error {
	c.out.putHeader(c.front[:], typ, len(head)+len(body))
	front := c.front[:headerLen+copy(c.front[headerLen:], head)]
	c.out.putTrailer(c.trailer[:])
	c.out.seq++

	var err error
	if conn, ok := c.ep.link.(*net.UnixConn); ok && len(body) > 0 {
		c.vec = [3][]byte{front, body, c.trailer[:]}
		vec := net.Buffers(c.vec[:])
		_, err = vec.WriteTo(conn) // writev
	} else {
		c.buf = append(append(append(c.buf[:0], front...), body...), c.trailer[:]...)
		_, err = c.ep.link.Write(c.buf)
	}
	if err != nil {
		return c.fail(ioError("write", err))
	}
	return nil
}

func (c *recordConn) lock() error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-c.dead:
		return c.why()
	}
}

func (c *recordConn) unlock() { <-c.turn }

// clean reports whether both sides have closed in order. Only after the end.
func (c *recordConn) clean() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Is(c.cause, ErrClosed) && c.gotClose && c.closeSent
}
