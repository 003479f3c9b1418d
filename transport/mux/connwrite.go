package mux

import (
	"fmt"
	"net"
)

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
	defer c.unlock()
	if c.closeSent {
		// The peer has no use for windows and the like any more. Who wrote a body has to
		// learn that it wasn't sent (unsent), but not from here: yamux's one sending goroutine
		// is needed until the peer's last streams have been taken over.
		if body != nil {
			c.drop(parseFrame(c.head[:]).stream)
		}
		return nil
	}
	if err := c.armWrite(c.ep.cfg.WriteTimeout); err != nil {
		return err
	}
	return c.put(typeData, c.head[:], nil, body, false)
}

// drop notes that a frame of a stream was not sent, since the session is being closed.
func (c *recordConn) drop(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dropped == nil {
		c.dropped = map[uint32]struct{}{}
	}
	c.dropped[stream] = struct{}{}
}

// unsent returns an error if a frame of a stream was dropped; not before the peer's own last
// records are in.
func (c *recordConn) unsent(stream uint32) error {
	c.mu.Lock()
	_, is := c.dropped[stream]
	c.mu.Unlock()
	if !is {
		return nil
	}
	<-c.dead
	return c.why()
}

// sendBulk writes a small frame of a bulk stream.
func (c *recordConn) sendBulk(f frame, body []byte) error {
	if err := c.lockBulk(); err != nil {
		return err
	}
	defer c.unlock()
	return c.sendData(f, body, nil, false)
}

// lockBulk takes the turn for what the peer has to get.
func (c *recordConn) lockBulk() error {
	if err := c.lock(); err != nil {
		return err
	}
	if !c.closeSent {
		return nil
	}
	c.unlock()
	// The writer has to learn that this wasn't sent, but not before the peer's own
	// last records are in.
	<-c.dead
	return c.why()
}

// sendControl writes a frame without a body. After our close record it does nothing:
// the peer has no use for it any more.
func (c *recordConn) sendControl(f frame) error {
	if err := c.lock(); err != nil {
		return err
	}
	defer c.unlock()
	if c.closeSent {
		return nil
	}
	if err := c.armWrite(c.ep.cfg.WriteTimeout); err != nil {
		return err
	}
	return c.putBulk(f, nil, nil, false)
}

// sendData writes a frame with head and body, one after the other. The caller has the
// turn. With more, another one follows at once.
func (c *recordConn) sendData(f frame, head, body []byte, more bool) error {
	if err := c.armWrite(c.ep.cfg.WriteTimeout); err != nil {
		return err
	}
	return c.putBulk(f, head, body, more)
}

// putBulk is put for a frame of a bulk stream.
func (c *recordConn) putBulk(f frame, head, body []byte, more bool) error {
	f.put(c.bulkHead[:])
	return c.put(typeBulk, c.bulkHead[:], head, body, more)
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
	return c.put(typeClose, nil, nil, nil, false)
}

// directWrite is from how many bytes on a body is written from where it is on a link
// without writev. virtio_console takes 32 KiB in one write, and a write has its price.
const directWrite = 24 << 10

// put writes one record, with frame, head and body one after the other: in one write,
// if the link can gather or the record is small, and else its body, uncopied, in a write
// of its own. Then its trailer goes out together with the next record's header if more
// follow at once.
func (c *recordConn) put(typ byte, frame, head, body []byte, more bool) error {
	n := 0
	if c.owed {
		n = copy(c.front[:], c.trailer[:])
	}
	c.out.putHeader(c.front[n:], typ, len(frame)+len(head)+len(body))
	front := c.front[:n+headerLen]
	c.out.putTrailer(c.trailer[:])
	c.out.seq++

	var err error
	c.owed = false
	switch conn, ok := c.ep.link.(*net.UnixConn); {
	case ok && len(body) > 0:
		c.vec = [...][]byte{front, frame, head, body, c.trailer[:]}
		vec := net.Buffers(c.vec[:])
		_, err = vec.WriteTo(conn) // writev
		c.vec = [5][]byte{}        // doesn't keep the caller's buffer
	case len(body) < directWrite:
		c.buf = append(append(append(append(append(c.buf[:0], front...), frame...), head...), body...), c.trailer[:]...)
		_, err = c.ep.link.Write(c.buf)
	default:
		c.buf = append(append(append(c.buf[:0], front...), frame...), head...)
		if _, err = c.ep.link.Write(c.buf); err == nil {
			_, err = c.ep.link.Write(body)
		}
		if c.owed = more; err == nil && !more {
			_, err = c.ep.link.Write(c.trailer[:])
		}
	}
	if err != nil {
		c.owed = false
		return c.fail(ioError("write", err))
	}
	return nil
}

func (c *recordConn) lock() error {
	c.waiting.Add(1)
	defer c.waiting.Add(-1)
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-c.dead:
		return c.why()
	}
}

// unlock gives back the turn, and finishes the last record.
func (c *recordConn) unlock() {
	if c.owed {
		c.owed = false
		if _, err := c.ep.link.Write(c.trailer[:]); err != nil {
			_ = c.fail(ioError("write", err))
		}
	}
	<-c.turn
}
