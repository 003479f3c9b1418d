package setup

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"winvm/hostagent/guest"
	"winvm/hostagent/install/answer"
)

// A Stage of an install.
type Stage int

// The stages, in order.
const (
	Firmware   Stage = iota // nothing has been read from the vendor's CD yet
	Setup                   // the vendor's setup runs from the CD
	Copying                 // it writes to the disk
	FirstBoot               // the guest runs from the disk
	FirstLogon              // the software medium's script runs
	SSHD                    // it says that it is done; the SSH server is waited for
	Done
)

var stageNames = [...]string{"firmware", "setup", "copying", "first boot", "first logon", "sshd", "done"}

func (s Stage) String() string { return stageNames[s] }

// Errors that callers tell apart.
var (
	ErrStuck     = errors.New("the install is stuck")
	ErrTooLong   = errors.New("the install takes too long")
	ErrFailed    = errors.New("the install failed")
	ErrResetLoop = errors.New("the guest resets again and again")
)

// A Sample is what is seen of the guest at one moment.
type Sample struct {
	At       time.Duration // since the install's start
	CDRead   int64         // bytes
	DiskMade int64         // bytes written to the disk
	Resets   int
	Screen   string // a digest of it
	Console  string // all lines of the serial port that are kept
	SSH      bool
}

// Limits of what counts as something.
const (
	cdBegins   = 1 << 20 // a boot loader reads less before it asks for a key
	diskBegins = 1 << 20
	loopResets = 5 // in one stage, with less than diskBegins written between two
)

// A Tracker makes stages out of samples. It is a pure state machine.
type Tracker struct {
	limits  map[Stage]time.Duration
	stuck   time.Duration
	stage   Stage
	since   time.Duration // the stage's begin
	changed time.Duration // the last change of anything
	last    Sample
	resets  int   // in this stage without writes
	written int64 // at the last reset
	// copyFrom is how many resets there were before anything was copied.
	copyFrom int
	Took     map[string]time.Duration
}

// NewTracker begins with Firmware.
func NewTracker(l guest.Limits) *Tracker {
	return &Tracker{
		limits: map[Stage]time.Duration{
			Firmware: l.Firmware.Duration, Setup: l.Setup.Duration, Copying: l.Copying.Duration,
			FirstBoot: l.FirstBoot.Duration, FirstLogon: l.FirstLogon.Duration, SSHD: l.SSHD.Duration,
		},
		stuck: l.Stuck.Duration, Took: map[string]time.Duration{},
	}
}

// Stage is where the install is.
func (t *Tracker) Stage() Stage { return t.stage }

// Observe takes a sample. It reports whether a new stage has begun, or why the install
// can't go on.
func (t *Tracker) Observe(s Sample) (bool, error) {
	if t.last.Screen != s.Screen || t.last.CDRead != s.CDRead || t.last.DiskMade != s.DiskMade || t.last.Console != s.Console || t.last.Resets != s.Resets {
		t.changed = s.At
	}
	if err := t.loops(s); err != nil {
		return false, err
	}
	before := t.stage
	t.advance(s)
	t.last = s
	if t.stage != before {
		t.Took[before.String()] = s.At - t.since
		t.since, t.changed, t.resets = s.At, s.At, 0
		return true, nil
	}
	if reason, ok := failure(s.Console); ok {
		return false, fmt.Errorf("%w: its script says: %s", ErrFailed, reason)
	}
	if limit := t.limits[t.stage]; t.stage != Done && s.At-t.since > limit {
		return false, fmt.Errorf("%w: stage %s has taken more than %v", ErrTooLong, t.stage, limit)
	}
	if t.stage != Done && s.At-t.changed > t.stuck {
		return false, fmt.Errorf("%w: in stage %s nothing has changed on screen and disks for %v: it may ask a question, or have crashed", ErrStuck, t.stage, t.stuck)
	}
	return false, nil
}

func (t *Tracker) advance(s Sample) {
	says := func(line string) bool { return hasLine(s.Console, line) }
	switch {
	case s.SSH:
		t.stage = Done
	case t.stage < SSHD && says(answer.StageSSHD):
		t.stage = SSHD
	case t.stage < FirstLogon && says(answer.StageFirstLogon):
		t.stage = FirstLogon
	case t.stage == Copying && s.Resets > t.copyFrom:
		t.stage = FirstBoot
	case t.stage <= Setup && s.DiskMade > diskBegins:
		t.stage, t.copyFrom = Copying, t.last.Resets
	case t.stage == Firmware && s.CDRead > cdBegins:
		t.stage = Setup
	}
}

// loops counts resets between which nothing was written.
func (t *Tracker) loops(s Sample) error {
	if s.Resets == t.last.Resets {
		return nil
	}
	if s.DiskMade-t.written > diskBegins {
		t.resets = 0
	}
	t.written = s.DiskMade
	if t.resets += s.Resets - t.last.Resets; t.resets >= loopResets {
		return fmt.Errorf("%w: %d times in stage %s, and wrote next to nothing between", ErrResetLoop, t.resets, t.stage)
	}
	return nil
}

func hasLine(console, line string) bool {
	for l := range strings.Lines(console) {
		if strings.TrimSpace(l) == line {
			return true
		}
	}
	return false
}

// failure finds the reason that the script gave. It comes from the guest: a part of
// one line, and printable.
func failure(console string) (string, bool) {
	for l := range strings.Lines(console) {
		if reason, ok := strings.CutPrefix(strings.TrimSpace(l), strings.TrimSpace(answer.FailedLine)); ok {
			return fmt.Sprintf("%.200q", strings.TrimSpace(reason)), true
		}
	}
	return "", false
}

// asksForKey reports whether a text asks for the key without which a CD isn't booted.
func asksForKey(text string) bool {
	return strings.Contains(text, "Press any key to boot from")
}
