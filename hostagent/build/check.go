package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/event"
	"winvm/hostagent/outdiff"
	"winvm/hostagent/rundir"
)

// How many differences a result has, and how many of them the error names.
const (
	maxDifferences = 1000
	maxNamed       = 20
)

// CheckSuffix is what the second output is called, behind --out, if it is kept.
const CheckSuffix = ".check"

// Check builds twice, the second time into a place of its own, and compares the
// outputs. Output and result are the first's; what differs is in the Result, and an
// error with StatusDiffers. The second build's output stays, with CheckSuffix, if
// KeepFailed is set.
func Check(ctx context.Context, c Config) (Result, error) {
	if c.Out == "" {
		return Result{Image: c.Image, Status: StatusFailed}, failed("--check compares outputs: it needs --out")
	}
	if c.Xchg != "" {
		c.Report.Tell(event.KindWarning, "the second build finds in --xchg what the first one left there")
	}
	result, err := Run(ctx, c)
	if err != nil || result.Status != 0 {
		return result, err
	}
	c.Report.Stage("check", "building again")
	defer c.Timeline.Begin("second build")()
	if err = again(ctx, c, &result); err != nil {
		result.Status, result.Error = StatusOf(err), err.Error()
	}
	return result, err
}

// again builds once more and compares.
func again(ctx context.Context, c Config, result *Result) error {
	run, err := rundir.New(c.StateDir) // what it has beside --out goes with it, also if we are killed
	if err != nil {
		return err
	}
	defer func() { _ = run.Remove() }()
	dir, err := run.Beside(result.Out)
	if err != nil {
		return err
	}
	second := c
	second.Out = filepath.Join(dir, filepath.Base(result.Out)) // the guest sees the same name
	second.Stdout, second.Stderr, second.Report, second.TraceFile = nil, nil, nil, ""
	second.ReportDir, second.NoteUse = "", false
	second.Timeline = event.NewTimeline(time.Now())
	r, err := Run(ctx, second)
	result.Held, result.Kept, result.Until = r.Held, r.Kept, r.Until
	switch {
	case err != nil:
		return &Error{Status: StatusOf(err), Err: fmt.Errorf("the second build: %w", err)}
	case r.Status != 0:
		return &Error{Status: StatusDiffers, Err: fmt.Errorf("the second build's command exited with %d, the first one's with 0", *r.ExitCode)}
	}
	defer c.Timeline.Begin("compare")()
	result.Differences, err = outdiff.Compare(result.Out, second.Out, maxDifferences)
	if err != nil || len(result.Differences) == 0 {
		return err
	}
	if c.KeepFailed {
		kept := result.Out + CheckSuffix
		if err := unix.Renameat2(unix.AT_FDCWD, second.Out, unix.AT_FDCWD, kept, unix.RENAME_NOREPLACE); errors.Is(err, os.ErrExist) {
			c.Report.Tell(event.KindWarning, "the second output is not kept: %s exists already", kept)
		} else if err != nil {
			return err
		} else {
			result.Second = kept
		}
	}
	return &Error{Status: StatusDiffers, Err: errors.New(differText(result.Differences))}
}

func differText(list []outdiff.Difference) string {
	var b strings.Builder
	fmt.Fprintf(&b, "two builds differ, in %d places", len(list))
	if len(list) == 1 {
		b.Reset()
		b.WriteString("two builds differ")
	}
	for _, d := range list[:min(len(list), maxNamed)] {
		fmt.Fprintf(&b, "\n  %v", d)
	}
	if n := len(list) - maxNamed; n > 0 {
		fmt.Fprintf(&b, "\n  and %d more; --result has up to %d", n, maxDifferences)
	}
	return b.String()
}
