package patience

import (
	"context"
	"fmt"
	"time"
)

// Tick is how often a process whose answer is late is looked at.
const Tick = 100 * time.Millisecond

const (
	// idleShare: who ran, or wanted to, for less than this part of the time, was idle. An
	// idle VM has timers.
	idleShare = 5
	// If ownLag ticks lie between two looks, this process was late, and if it are ownGap,
	// it stood still.
	ownLag = 2
	ownGap = 5
)

// Limits say when an answer will not come any more. 0 is no limit.
type Limits struct {
	Idle time.Duration // without a break, in which the process could have run and did not
	Busy time.Duration // of its CPU time
	Wall time.Duration // in all
}

// A SilentError is an answer that will not come.
type SilentError struct {
	Waited time.Duration
	Idle   time.Duration // at the end of it, if that was the reason; else 0
	Ran    time.Duration // CPU time of who owed it
}

func (e *SilentError) Error() string {
	text := fmt.Sprintf("no answer for %.1fs, in which it took %.1fs of a CPU", e.Waited.Seconds(), e.Ran.Seconds())
	if e.Idle > 0 {
		text += fmt.Sprintf(", and nothing at last for %.1fs", e.Idle.Seconds())
	}
	return text
}

// Wait calls ask and returns its error. If a limit is reached first it ends ask's context,
// waits for it, and returns a *[SilentError]. pids are the process that owes the answer
// and others that have a hand in it. The time in which one of them has something to do
// is not idle.
func Wait(ctx context.Context, l Limits, ask func(context.Context) error, pids ...int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- ask(ctx) }()
	w := watch{limits: l, pids: pids}
	ticker := time.NewTicker(Tick)
	defer ticker.Stop()
	for begin := time.Now(); ; {
		select {
		case err := <-done:
			return err
		case <-ticker.C:
		}
		if !w.over(time.Now()) {
			continue
		}
		cancel()
		err := <-done
		if err == nil {
			return nil // it came in the last moment
		}
		silent := &SilentError{Waited: time.Since(begin), Ran: w.ran}
		if l.Idle > 0 && w.idle >= l.Idle {
			silent.Idle = w.idle
		}
		return silent
	}
}

// A watch sums up what the processes do while they are waited for.
type watch struct {
	limits Limits
	pids   []int

	last    []sample // none at first
	at      time.Time
	waited  time.Duration
	idle    time.Duration
	ran     time.Duration
	unknown bool // nothing can be known of a process
}

// over reports whether a limit is reached.
func (w *watch) over(now time.Time) bool {
	samples := make([]sample, len(w.pids))
	for i, pid := range w.pids {
		var err error
		if samples[i], err = look(pid); err != nil {
			w.unknown = true
		}
	}
	if w.last != nil {
		w.count(samples, now.Sub(w.at))
	}
	w.last, w.at = samples, now
	l := w.limits
	return l.Wall > 0 && w.waited >= l.Wall ||
		!w.unknown && (l.Idle > 0 && w.idle >= l.Idle || l.Busy > 0 && w.ran >= l.Busy)
}

// count adds what was done since the last look, took ago.
func (w *watch) count(now []sample, took time.Duration) {
	if took > ownGap*Tick {
		w.waited += ownGap * Tick
		w.idle = 0 // what the others did or didn't meanwhile says nothing
		return
	}
	w.waited += took
	w.ran += max(0, now[0].ran-w.last[0].ran) // a thread that has ended is missing
	idle := took
	if took > ownLag*Tick {
		idle = 0
	}
	for i, s := range now {
		before := w.last[i]
		worked := s.ran - before.ran + s.delayed - before.delayed
		switch {
		case s.blocked || s.faults != before.faults || worked > took/idleShare:
			w.idle = 0
			return
		case s.runs:
			idle = 0
		}
	}
	w.idle += idle
}
