package mux

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// helloPause is the shortest time between two SYNs, however often the guest says
// HELLO.
const helloPause = 10 * time.Millisecond

// Dial begins, on the host, a session with the guest, and waits until it is
// there: the guest may not be running yet. It first waits for the endpoint's
// session before to end.
//
// [ErrVersion] says that the guest refused, [ErrLink] that the link has ended
// (QEMU, for one). If ctx ends, its error is returned.
func (e *Endpoint) Dial(ctx context.Context) (*Session, error) {
	for {
		s, err := e.dialOnce(ctx)
		if !errors.Is(err, errRestarted) {
			return s, err
		}
		e.log.Info("the guest began anew while it answered", "err", err)
	}
}

// errRestarted says that the guest gave up the session before it was there.
var errRestarted = errors.New("the guest began anew")

func (e *Endpoint) dialOnce(ctx context.Context) (*Session, error) {
	if err := e.acquire(ctx); err != nil {
		return nil, fmt.Errorf("mux: dial: %w", err)
	}
	d := &initiator{e: e, again: make(chan struct{}, 1)}
	hs, err := d.run(ctx)
	if err != nil {
		e.release()
		state := fmt.Sprintf("the guest's controller agent has not answered (%d SYNs sent, %d other bytes discarded)",
			d.sent.Load(), d.skipped)
		return nil, resyncError(ctx, "dial", state, err)
	}
	s := e.newSession(hs)
	// The session reads already: the guest may be busy writing us a second ACK.
	stop := context.AfterFunc(ctx, func() { _ = s.conn.fail(ctx.Err()) })
	err = s.conn.sendGO()
	s.conn.unlock()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return s, nil
	}
	<-s.Done()
	if ctx.Err() == nil && (errors.Is(err, ErrSuperseded) || errors.Is(err, ErrRecord)) {
		return nil, fmt.Errorf("%w: %w", errRestarted, err)
	}
	return nil, resyncError(ctx, "dial", "the guest went away while it answered", err)
}

// initiator is the host's part of a resync. It writes and reads at the same time,
// so that it can't stand still together with a guest that writes.
type initiator struct {
	e       *Endpoint
	syn     resync
	again   chan struct{}
	sent    atomic.Int64
	skipped int64
}

func (d *initiator) run(parent context.Context) (handshake, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	restore := d.e.interruptible(ctx)
	d.syn = d.e.record(kindSYN, roleHost)
	d.syn.nonce = newNonce()

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.send(ctx); err != nil {
			cancel(err) // ends await
		}
	})
	hs, err := d.await()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	cancel(nil) // ends send, perhaps in the middle of a SYN
	wg.Wait()
	restore()
	return hs, err
}

// send sends SYNs until ctx ends.
func (d *initiator) send(ctx context.Context) error {
	syn := d.syn.append(nil)
	pause := d.e.cfg.SYNInterval
	timer := time.NewTimer(pause)
	defer timer.Stop()
	padded := false
	for out := syn; ; {
		if _, err := d.e.link.Write(out); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		out = syn
		d.sent.Add(1)
		last := time.Now()
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return nil
		case <-d.again:
			timer.Reset(time.Until(last.Add(helloPause)))
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
		case <-timer.C:
			pause = min(2*pause, d.e.cfg.SYNIntervalMax)
			if !padded {
				// The guest may be taking our SYNs for the rest of a record that
				// the host before us left half-written. Once is enough: it is a
				// stream, nothing gets lost in it.
				padded = true
				out = append(make([]byte, padLen, padLen+resyncLen), syn...)
			}
		}
	}
}

// await reads until the guest has answered our SYN.
func (d *initiator) await() (hs handshake, err error) {
	for {
		rec, n, err := nextResync(d.e.br)
		d.skipped += int64(n)
		if err != nil {
			return hs, err
		}
		if rec.role != roleGuest {
			continue
		}
		switch rec.kind {
		case kindHELLO:
			select {
			case d.again <- struct{}{}:
			default:
			}
		case kindACK, kindREFUSE:
			if rec.echo != d.syn.nonce {
				continue // an answer to somebody before us
			}
			version, err := d.e.agree(&rec)
			if err != nil {
				return hs, err
			}
			if rec.kind == kindREFUSE {
				return hs, fmt.Errorf("%w: the guest refused versions %d to %d, and speaks %d to %d",
					ErrVersion, d.syn.minVersion, d.syn.maxVersion, rec.minVersion, rec.maxVersion)
			}
			hs = d.e.handshake(roleHost, &rec, version)
			hs.host, hs.guest = d.syn.nonce, rec.nonce
			return hs, nil
		case kindSYN, kindGO: // not a guest's
		}
	}
}

// sendGO sends the host's GO. The caller holds the turn to write.
func (c *recordConn) sendGO() error {
	rec := c.ep.record(kindGO, roleHost)
	rec.nonce, rec.echo = c.hs.host, c.hs.guest
	if err := c.armWrite(c.ep.cfg.WriteTimeout); err != nil {
		return err
	}
	if _, err := c.ep.link.Write(rec.append(nil)); err != nil {
		return c.fail(ioError("write", err))
	}
	return nil
}
