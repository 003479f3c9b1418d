package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Read reads what is there, or waits. io.EOF means that the peer has closed its
// side after what was read so far.
func (st *Bulk) Read(p []byte) (int, error) { return st.read(p, 1) }

// ReadFull is io.ReadFull for the stream: what comes while it waits goes straight from
// the link into p, without waking the caller before it is full.
func (st *Bulk) ReadFull(p []byte) (int, error) {
	n, err := st.read(p, len(p))
	if n > 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// read reads least bytes into p, and more if they are there.
func (st *Bulk) read(p []byte, least int) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	st.rmu.Lock()
	defer st.rmu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.want, st.got, st.least = p, 0, least
	defer func() { st.want = nil }()
	for {
		if !st.filling {
			st.got += st.queue.take(p[st.got:])
		}
		if n := st.grantLocked(); n > 0 && !st.closed {
			st.mu.Unlock()
			_ = st.s.conn.sendControl(frame{typ: frameWindow, stream: st.id, length: n})
			st.mu.Lock()
			continue
		}
		if !st.filling && st.got >= least {
			return st.got, nil
		}
		err := st.readState()
		if err == nil {
			err = st.await(st.readable, &st.readLimit)
		}
		if err == nil {
			continue
		}
		if st.awaitFilled(); st.got >= least {
			return st.got, nil
		}
		return st.got, st.error("read", err)
	}
}

// readState says why there is nothing more to read, nil if there may be. mu is held.
func (st *Bulk) readState() error {
	switch {
	case st.closed:
		return net.ErrClosed
	case st.reset:
		return ErrReset
	case st.filling:
		return nil
	case st.fin:
		return io.EOF
	}
	select {
	case <-st.b.over:
		return st.s.conn.why()
	default:
		return nil
	}
}

// offer says where in a waiting Read's buffer n bytes that come now should go; the
// rest is to be queued. filled or received must follow.
func (st *Bulk) offer(n int) ([]byte, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if uint64(n) > uint64(st.window) {
		return nil, overWindow(st.id)
	}
	if st.want == nil || st.closed || st.queue.len > 0 || st.got == len(st.want) || st.fin || st.reset {
		return nil, nil
	}
	st.filling = true
	return st.want[st.got:min(len(st.want), st.got+n)], nil
}

// filled ends what offer began.
func (st *Bulk) filled() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.filling = false
	if st.hurry || st.got >= st.least || uint64(st.window) <= uint64(st.s.ep.cfg.Window)/2 {
		wake(st.readable)
		st.b.woke = true
	}
}

// awaitFilled waits until nothing is written to the Read's buffer any more, which a
// peer that stops in the middle of a record must not put off for ever. mu is held, but
// not while it waits.
func (st *Bulk) awaitFilled() {
	if !st.filling {
		return
	}
	st.hurry = true
	defer func() { st.hurry = false }()
	timer := time.AfterFunc(st.s.ep.cfg.CloseTimeout, func() {
		_ = st.s.conn.fail(fmt.Errorf("%w: the peer has stopped in the middle of a record", ErrRecord))
	})
	defer timer.Stop()
	for st.filling {
		st.mu.Unlock()
		<-st.readable
		st.mu.Lock()
	}
}
