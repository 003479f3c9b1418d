package build

import (
	"context"
	"os"
	"time"

	"winvm/hostagent/event"
)

// Held is a pair that outlives its build, paused: what --keep-failed leaves. It must be
// ended, by [Held.Wait].
type Held struct {
	b    *build
	done <-chan struct{} // closed by `hostagent kill`
}

// pauseLimit is how long QEMU may take to pause two VMs.
const pauseLimit = 10 * time.Second

// hold pauses the pair of a build that failed and gives it to the result, if it was
// asked for and there is a pair that can be looked into.
func (b *build) hold(ctx context.Context) bool {
	if b.KeepFor <= 0 || b.succeeded || b.session == nil || ctx.Err() != nil || b.pair.Err() != nil {
		return false
	}
	select {
	case <-b.session.Done():
		return false
	default:
	}
	limited, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	if err := b.pair.Pause(limited); err != nil {
		b.Report.Tell(event.KindWarning, "the pair can't be kept: %v", err)
		return false
	}
	if err := b.ticket.Rest(limited); err != nil {
		b.Report.Tell(event.KindWarning, "the pair that is kept takes a build's place: %v", err)
	}
	b.logs = b.run.EndLogs()
	b.keep()
	until := time.Now().Add(b.KeepFor)
	b.control.keep(b.session, until)
	b.result.Until = &until
	b.result.Held = &Held{b: b, done: ctx.Done()}
	return true
}

// keep moves what the run left to where it stays.
func (b *build) keep() {
	if b.result.Kept != "" { // when its pair was paused
		return
	}
	b.result.Kept = b.run.Keep()
	if b.result.Xchg = b.Xchg; b.Xchg == "" {
		b.result.Xchg = b.run.Path("xchg")
	}
	if _, err := os.Stat(b.staging); err == nil && b.Out != "" {
		b.Report.Tell(event.KindWarning, "the outputs are on another file system: they are kept in %s", b.staging)
	}
}

// Wait keeps the pair until ctx ends, its time is over, a VM ends, or `hostagent kill`
// ends it, and then leaves what --keep-failed leaves without a pair: the outputs and
// what was in xchg.
func (h *Held) Wait(ctx context.Context) error {
	limit := time.NewTimer(h.b.KeepFor)
	defer limit.Stop()
	select {
	case <-ctx.Done():
	case <-h.done:
	case <-limit.C:
	case <-h.b.pair.Failed():
	case <-h.b.session.Done():
	}
	err := h.b.end()
	h.b.control.close()
	h.b.control.cancel(nil)
	return err
}
