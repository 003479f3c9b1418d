package vm

import (
	"context"
	"errors"
	"time"

	"winvm/hostagent/patience"
)

// A VM whose QEMU stands still - stopped by a signal, in a deadlock, in a system call on
// a disk that doesn't answer - sends no event and doesn't end. The kernel tells its
// parent of a stop; for the rest it is asked for its state from time to time. What the
// guest does in it can't be seen so: one that hangs looks like one that computes.

// How often QEMU is asked, and how often if the guest doesn't run, so that nobody waits
// for it.
const (
	pulseEvery = 500 * time.Millisecond
	pulsePause = 5 * time.Second
)

const (
	// stillLimit is how long QEMU may do nothing and not answer. It answers within
	// milliseconds, if it is let run.
	stillLimit = time.Second
	// defaultSilence is how long it may not answer otherwise. A host that is short of
	// memory or has a slow disk can keep it from it for seconds.
	defaultSilence = time.Minute
	// haltLimit is how long a signal may stop it.
	haltLimit = time.Second
)

// pulse ends the VM when QEMU doesn't answer.
func (v *VM) pulse(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(pulseEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-v.mon.Done():
			return
		}
		err := patience.Wait(ctx, patience.Limits{Idle: min(stillLimit, limit), Wall: limit}, v.ask, v.proc.pid())
		var silent *patience.SilentError
		if errors.As(err, &silent) { // else an answer, or an end that supervise sees
			v.fail(Silent, silent.Error())
			v.proc.kill()
			return
		}
		timer.Reset(v.pulsePause())
	}
}

func (v *VM) pulsePause() time.Duration {
	if v.at() == running {
		return pulseEvery
	}
	return pulsePause
}

func (v *VM) ask(ctx context.Context) error { return v.mon.Run(ctx, "query-status", nil, nil) }

// watchStops ends the VM when a signal has stopped QEMU for too long.
func (v *VM) watchStops() {
	changes := make(chan bool)
	v.wg.Go(func() {
		defer close(changes)
		v.proc.stops(func(stopped bool) {
			select {
			case changes <- stopped:
			case <-v.proc.exited:
			}
		})
	})
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	for again := false; ; {
		select {
		case stopped, ok := <-changes:
			if again = false; !ok {
				return
			}
			if timer.Stop(); stopped {
				timer.Reset(haltLimit)
			}
		case <-timer.C:
			switch {
			case !v.proc.isStopped():
			case !again:
				// If this process stood still as well, QEMU goes on in a moment.
				again = true
				timer.Reset(haltLimit / 10)
			default:
				v.fail(Halted, "")
				v.proc.kill()
			}
		}
	}
}
