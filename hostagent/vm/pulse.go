package vm

import (
	"context"
	"errors"
	"time"
)

// A VM whose QEMU stands still - stopped by a signal, or in a system call on a disk
// that doesn't answer - sends no event and doesn't end. So it is asked for its state
// from time to time. What the guest does in it can't be seen so: one that hangs looks
// like one that computes.

// pulseShare is how many times a VM is asked within Config.SilenceLimit.
const pulseShare = 12

// defaultSilence is how long QEMU may not answer. A host that is short of memory or has
// a slow disk can keep it from it for seconds.
const defaultSilence = time.Minute

// pulse ends the VM when QEMU has not answered for limit.
func (v *VM) pulse(ctx context.Context, limit time.Duration) {
	every := time.NewTicker(limit / pulseShare)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-v.mon.Done():
			return
		}
		err := v.ask(ctx, limit)
		if !errors.Is(err, context.DeadlineExceeded) {
			continue // an answer, or an end that supervise sees
		}
		// If this process stood still as well, the answer is there by now.
		if err = v.ask(ctx, limit/pulseShare); errors.Is(err, context.DeadlineExceeded) {
			v.fail(Silent, "for "+limit.String())
			v.proc.kill()
			return
		}
	}
}

func (v *VM) ask(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return v.mon.Run(ctx, "query-status", nil, nil)
}
