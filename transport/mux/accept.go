package mux

import (
	"context"
	"errors"
	"fmt"

	"winvm/transport/virtioserial"
)

// Accept waits, in the guest, for the host to begin a session. It first waits
// for the session before to end.
//
// [ErrVersion] says that a host was there and was refused; another may come, so
// call Accept again. [ErrLink] is final. If ctx ends, its error is returned.
func (e *Endpoint) Accept(ctx context.Context) (*Session, error) {
	if err := e.acquire(ctx); err != nil {
		return nil, fmt.Errorf("mux: accept: %w", err)
	}
	restore := e.interruptible(ctx)
	r := responder{e: e}
	hs, err := r.run()
	restore()
	if err != nil {
		e.release()
		state := fmt.Sprintf("no host agent has begun a session (%d other bytes discarded)", r.skipped)
		return nil, resyncError(ctx, "accept", state, err)
	}
	s := e.newSession(hs)
	s.conn.unlock()
	return s, nil
}

// responder is the guest's part of a resync.
type responder struct {
	e       *Endpoint
	skipped int64

	pending bool // an ACK was sent for syn
	syn     resync
	mine    nonce
	version uint16
}

func (r *responder) run() (hs handshake, err error) {
	if err := r.hello(); err != nil {
		return hs, err
	}
	for {
		rec, n, err := nextResync(r.e.br)
		r.skipped += int64(n)
		switch {
		case errors.Is(err, virtioserial.ErrPeerGone):
			r.pending = false // the next host begins with its own SYN
			continue
		case err != nil:
			return hs, err
		case rec.role != roleHost:
			continue
		}
		switch rec.kind {
		case kindSYN:
			if err := r.answer(&rec); err != nil {
				return hs, err
			}
		case kindGO:
			if r.pending && rec.nonce == r.syn.nonce && rec.echo == r.mine {
				hs = r.e.handshake(roleGuest, &r.syn, r.version)
				hs.host, hs.guest = r.syn.nonce, r.mine
				return hs, nil
			}
		case kindACK, kindREFUSE, kindHELLO: // not a host's
		}
	}
}

// hello tells a host that may still be in a session with a process before this
// one, or with an earlier state of this one, that there is none. The padding
// completes a record that was cut in half.
func (r *responder) hello() error {
	if r.e.quiet {
		return nil
	}
	rec := r.e.record(kindHELLO, roleGuest)
	if err := r.write(rec.append(make([]byte, padLen, padLen+resyncLen))); err != nil {
		return err
	}
	r.e.quiet = true
	return nil
}

// answer answers a SYN. A SYN with another nonce than before is another attempt,
// or another host; the same one again is only a repetition.
func (r *responder) answer(syn *resync) error {
	version, err := r.e.agree(syn)
	if err != nil {
		refuse := r.e.record(kindREFUSE, roleGuest)
		refuse.echo = syn.nonce
		if werr := r.writeBack(refuse.append(nil)); werr != nil {
			return werr
		}
		return err
	}
	if !r.pending || r.syn.nonce != syn.nonce {
		r.mine = newNonce()
	}
	r.pending, r.syn, r.version = true, *syn, version
	ack := r.e.record(kindACK, roleGuest)
	ack.nonce, ack.echo = r.mine, syn.nonce
	r.e.quiet = false // from here on the host may believe in a session
	return r.writeBack(ack.append(nil))
}

// writeBack answers a host whose SYN has been read. A revived guest reads it before its
// driver knows that there is a host again: an answer that was dropped then would be
// missed until the host repeats its SYN. If that host has gone already, what is written
// to the next one is nothing to it.
func (r *responder) writeBack(b []byte) error {
	_, err := r.e.link.Write(b)
	if w, ok := r.e.link.(hostWaiter); ok && errors.Is(err, virtioserial.ErrPeerGone) {
		if err := w.WaitHost(); err != nil {
			return err
		}
		return r.write(b)
	}
	if errors.Is(err, virtioserial.ErrPeerGone) {
		return nil
	}
	return err
}

// write writes to the host. If there is none, that is as well: what matters will
// be said again to the next.
func (r *responder) write(b []byte) error {
	_, err := r.e.link.Write(b)
	if errors.Is(err, virtioserial.ErrPeerGone) {
		return nil
	}
	return err
}
