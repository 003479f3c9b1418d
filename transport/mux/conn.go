package mux

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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
	front     [trailerLen + headerLen]byte
	trailer   [trailerLen]byte
	owed      bool // the trailer of the last record has still to be written
	vec       [5][]byte
	buf       []byte // for links without writev

	bulkHead [frameLen]byte

	waiting atomic.Int32 // who wants the turn

	// Of yamux's sending goroutine: a frame's header whose body comes next.
	head    [frameLen]byte
	hasHead bool

	dead chan struct{} // closed by fail

	mu       sync.Mutex
	cause    error // why dead; the first one counts
	gotClose bool
	dropped  map[uint32]struct{} // yamux's streams that wrote after our close record
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
			err = c.fail(err)
			c.s.bulk.end()
			if errors.Is(err, ErrClosed) {
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
		if typ == typeBulk {
			if err := c.bulk(length); err != nil {
				return err
			}
			if c.s.bulk.woke {
				// On one CPU the reader comes back with a buffer for what follows
				// before that has to be put elsewhere.
				c.s.bulk.woke = false
				runtime.Gosched()
			}
			continue
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

// bulk takes a record of a bulk stream, whose header has been checked. Nothing of a
// record is believed before its end has been seen: a peer that was cut off leaves half
// a one, and the next peer's bytes follow. Its bytes go where they will be read from all
// the same, which saves a copy; who waits for them is told afterwards.
func (c *recordConn) bulk(length int) error {
	br := c.ep.br
	b, err := br.Peek(headerLen + frameLen)
	if err != nil {
		return ioError("read", err)
	}
	var front [headerLen + frameLen]byte
	copy(front[:], b)
	f, bad := checkBulk(front[headerLen:], length-frameLen, c.peer())
	var to target
	if bad == nil {
		to, bad = c.s.bulk.receive(f, length-frameLen)
	} else {
		to.rest = newChunk(length - frameLen)
	}
	defer to.end()
	_, _ = br.Discard(len(front))
	direct, err := c.fill(to.direct)
	rest := 0
	if n := length - frameLen - len(to.direct); err == nil && n > 0 {
		to.rest.buf = to.rest.buf[:n]
		rest, err = c.fill(to.rest.buf)
	}
	if err == nil {
		// Of what follows the next header and no more: its body may have a place, too.
		c.ep.source.most = trailerLen + headerLen + frameLen
		if b, err = br.Peek(trailerLen); err != nil {
			err = ioError("read", err)
		} else {
			err = c.in.trailer(b)
		}
	}
	if err != nil {
		c.unread(front[:], to.direct[:direct], to.bytes()[:rest])
		return err
	}
	c.ep.source.most = 0
	_, _ = br.Discard(trailerLen)
	c.in.seq++
	if bad != nil {
		return bad
	}
	return c.s.bulk.received(f, &to)
}

// fill fills p, from the buffer or straight from the link.
func (c *recordConn) fill(p []byte) (done int, err error) {
	for done < len(p) && err == nil {
		var n int
		if have := c.ep.br.Buffered(); have > 0 {
			n, err = c.ep.br.Read(p[done:min(len(p), done+have)])
		} else {
			n, err = c.ep.source.Read(p[done:])
		}
		done += n
	}
	if done < len(p) {
		return done, ioError("read", err)
	}
	return done, nil
}

// unread puts what was read of a record back in front of what follows: it was none.
func (c *recordConn) unread(parts ...[]byte) {
	buffered, _ := c.ep.br.Peek(c.ep.br.Buffered())
	c.ep.source.back = slices.Concat(append(parts, buffered, c.ep.source.back)...)
	c.ep.br.Reset(&c.ep.source)
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

// clean reports whether both sides have closed in order. Only after the end.
func (c *recordConn) clean() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Is(c.cause, ErrClosed) && c.gotClose && c.closeSent
}
