package mux

import "net"

// Write writes all of p, in pieces that let other streams go in between.
func (st *Bulk) Write(p []byte) (int, error) { return st.WriteParts(nil, p) }

// WriteParts is Write of head, which is short, and body, one after the other and
// without copying body.
func (st *Bulk) WriteParts(head, body []byte) (int, error) {
	st.wmu.Lock()
	defer st.wmu.Unlock()
	done := 0
	for total := len(head) + len(body); done < total; {
		n, err := st.writePieces(head, body)
		done += n
		if err != nil {
			return done, st.error("write", err)
		}
		skip := min(n, len(head))
		head, body = head[skip:], body[n-skip:]
	}
	return done, nil
}

// writePieces writes at least one piece, and more while nobody else wants to write.
func (st *Bulk) writePieces(head, body []byte) (done int, err error) {
	if err := st.awaitCredit(); err != nil {
		return 0, err
	}
	c := st.s.conn
	if err := c.lockBulk(); err != nil {
		return 0, err
	}
	defer c.unlock()
	for more := true; more; {
		// Under the turn, so that nothing comes behind the end of the stream.
		n, left := st.spend(len(head) + len(body))
		if n == 0 {
			return done, nil
		}
		h := head[:min(n, len(head))]
		b := body[:n-len(h)]
		head, body = head[len(h):], body[len(b):]
		more = left && len(head)+len(body) > 0 && c.waiting.Load() == 0
		if err := c.sendData(frame{typ: frameData, stream: st.id, length: uint32(n)}, h, b, more); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// spend takes the credit for a piece of up to n bytes; left says that there is more.
func (st *Bulk) spend(n int) (piece int, left bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.finned || st.reset {
		return 0, false
	}
	piece = int(min(uint64(n), maxPiece, st.credit))
	st.credit -= uint64(piece)
	return piece, st.credit > 0
}

// awaitCredit waits until something may be written.
func (st *Bulk) awaitCredit() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	for {
		switch {
		case st.finned:
			return net.ErrClosed
		case st.reset:
			return ErrReset
		case st.credit > 0:
			return nil
		}
		select {
		case <-st.b.over:
			return st.s.conn.why()
		default:
		}
		if err := st.await(st.writable, &st.sendLimit); err != nil {
			return err
		}
	}
}
