package build

import (
	"errors"
	"fmt"
	"time"

	"winvm/hostagent/nixstore"
	"winvm/hostagent/outdiff"
	"winvm/hostagent/usage"
)

// Exit statuses of `hostagent build` beside the command's own.
const (
	StatusDiffers  = 123 // a second build made something else
	StatusTimeout  = 124 // the command took, or was silent, too long
	StatusFailed   = 125 // the host agent failed
	StatusCantRun  = 126 // the command can't be run
	StatusNotFound = 127 // the command was not found
	StatusSignal   = 130 // interrupted by the user
)

// ErrInterrupted is the cause of a build that the caller's context ended.
var ErrInterrupted = errors.New("interrupted")

// An Error is why there is no exit code of the command; Status is what the
// process should exit with.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

func failed(format string, args ...any) error {
	return &Error{Status: StatusFailed, Err: fmt.Errorf(format, args...)}
}

// StatusOf is the exit status for an error that Run returned.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return StatusFailed
}

// A timeoutError is the cause of a context that ended by the clock.
type timeoutError struct {
	what  string
	after time.Duration
}

func (e *timeoutError) Error() string { return fmt.Sprintf("%s for %v", e.what, e.after) }

// Result is what came of a command.
type Result struct {
	ID       string        `json:"id"`
	Image    string        `json:"image"`
	Status   int           `json:"status"`    // of the process: see the constants
	ExitCode *uint32       `json:"exit_code"` // the command's own, all 32 bits
	Error    string        `json:"error,omitempty"`
	Out      string        `json:"out,omitempty"`
	Kept     string        `json:"kept,omitempty"`       // what was left to look at
	Xchg     string        `json:"xchg,omitempty"`       // drive X: of what was kept
	Until    *time.Time    `json:"kept_until,omitempty"` // until then with its pair, paused
	Took     time.Duration `json:"took_ns"`
	Lane     uint64        `json:"lane_requests"` // requests whose contents went through shared memory
	// Store is what of the share nixstore the controller asked for.
	Store nixstore.Stats `json:"store"`
	// Differences are between the outputs of two builds, and Second where the second
	// one's is kept.
	Differences []outdiff.Difference `json:"differences,omitempty"`
	Second      string               `json:"second,omitempty"`

	// Use is what of the inputs was used, if that was asked for.
	Use *usage.Report `json:"-"`

	Held *Held `json:"-"` // that pair; the caller must end it
}

// StatusOfCode maps an exit code to an exit status: what does not fit becomes 1.
func StatusOfCode(code uint32) int {
	if code > 255 {
		return 1
	}
	return int(code)
}
