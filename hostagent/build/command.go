package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/event"
	"winvm/hostagent/job"
	"winvm/hostagent/session"
	"winvm/transport/agentrpc"
)

// makeJob makes the directory for the exit file, and what winvm-run.exe is told.
func (b *build) makeJob() ([]byte, error) {
	j := job.Job{Dir: b.Dir, Args: b.Args}
	for _, o := range b.allOutputs() {
		j.Env = append(j.Env, o.Var+"="+b.profile.StorePath(o.name()))
	}
	j.Env = append(j.Env, b.Env...)
	data, err := j.Encode()
	if err != nil {
		return nil, &Error{Status: StatusCantRun, Err: err}
	}
	// A guest may have put anything there: nothing leads out of the directory.
	if b.jobs, err = os.OpenRoot(b.xchgDir); err != nil {
		return nil, err
	}
	b.jobDir = filepath.Join(job.Dir, b.run.ID)
	err = b.jobs.MkdirAll(b.jobDir, 0o755)
	if err == nil {
		err = b.jobs.WriteFile(filepath.Join(b.jobDir, job.ExitFile), nil, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("directory for the job in xchg: %w", err)
	}
	return job.Input(b.profile.XchgPath(b.jobDir), data), nil
}

// removeJob removes what winvm left in the user's xchg.
func (b *build) removeJob() error {
	if b.jobs == nil {
		return nil
	}
	err := b.jobs.RemoveAll(b.jobDir)
	_ = b.jobs.Remove(job.Dir) // unless another build's is in it
	return errors.Join(err, b.jobs.Close())
}

// announce tells winvm-run.exe the job but for its last byte, so that the guest wakes
// up while the shares are attached. What the job needs of them it can't touch yet.
func (b *build) announce(ctx context.Context) error {
	input, err := b.makeJob()
	if err != nil {
		return err
	}
	if b.command, err = b.session.Start(ctx, agentrpc.ExecStart{Attach: b.image.State.Runner}); err != nil {
		return err
	}
	b.lastByte = input[len(input)-1:]
	return b.command.Input(input[:len(input)-1])
}

// await lets the command run and returns both of its exit codes, compared.
func (b *build) await(ctx context.Context) (job.Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if b.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, b.Timeout, &timeoutError{"the command has run", b.Timeout})
		defer stop()
	}
	silence := newSilence(b.MaxSilent, cancel)
	defer silence.stop()
	go b.watch(ctx, cancel) // ends with ctx, which this function ends

	b.Report.Stage("command", "%s", b.Args[0])
	first := sync.OnceFunc(func() { b.Timeline.Mark("first output") })
	end := b.Timeline.Begin("command")
	err := b.command.Input(b.lastByte)
	var exit agentrpc.ExecExit
	if err == nil {
		exit, err = b.command.Wait(ctx, session.Exec{
			Stdout: b.output("stdout", b.Stdout),
			Stderr: b.output("stderr", b.Stderr),
			OnOutput: func() {
				first()
				silence.reset()
			},
		})
	}
	end()
	var late *timeoutError
	switch cause := context.Cause(ctx); {
	case errors.As(cause, &late):
		return job.Exit{}, &Error{Status: StatusTimeout, Err: late}
	case err != nil && cause != nil:
		return job.Exit{}, fmt.Errorf("the command's exit is unknown: %w", cause)
	case err != nil:
		return job.Exit{}, fmt.Errorf("the command's exit is unknown: %w", err)
	case exit.Status == nil:
		return job.Exit{}, failed("the command's exit is unknown: there was no SSH exit status")
	}
	return b.exitFile(*exit.Status)
}

// watch ends the command when something else goes wrong in the controller.
func (b *build) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	r, err := b.session.Agent.Watch(ctx)
	if err == nil && r.Failure != "" {
		cancel(errors.New(r.Failure))
	}
	if err == nil {
		return
	}
	select {
	case <-b.session.Done():
		cancel(fmt.Errorf("the session with the controller agent ended: %w", b.session.Err()))
	case <-ctx.Done():
	}
}

// exitFile reads what winvm-run.exe wrote and compares it with the SSH status.
func (b *build) exitFile(status uint32) (job.Exit, error) {
	// What lies there is the guest's: no device is opened, nor waited for.
	f, err := b.jobs.OpenFile(filepath.Join(b.jobDir, job.ExitFile), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(f, job.MaxExit+1))
		_ = f.Close()
	}
	if err == nil && len(data) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return job.Exit{}, failed("the command ended with SSH exit status %d, but winvm-run.exe left no exit file: %w", status, errors.Join(err, b.written.err()))
	}
	exit, err := job.ParseExit(data)
	if err != nil {
		return job.Exit{}, err
	}
	if exit.Stage == job.StageDone && !exit.Agrees(status, b.profile.ExitBits) {
		return job.Exit{}, failed("the exit codes disagree: %d by SSH, %d in the exit file", status, exit.Code)
	}
	return exit, nil
}

// output makes w take a stream of the command's output, and the events too.
func (b *build) output(stream string, w io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		b.Report.Output(stream, p)
		if w == nil {
			return len(p), nil
		}
		return w.Write(p)
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A silence ends a command that says nothing for too long.
type silence struct {
	after time.Duration
	timer *time.Timer
}

func newSilence(after time.Duration, cancel context.CancelCauseFunc) *silence {
	s := &silence{after: after}
	if after > 0 {
		s.timer = time.AfterFunc(after, func() { cancel(&timeoutError{"the command has been silent", after}) })
	}
	return s
}

func (s *silence) reset() {
	if s.timer != nil {
		s.timer.Reset(s.after)
	}
}

func (s *silence) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// flush returns when everything that was written is on the host.
func (b *build) flush(ctx context.Context) error {
	defer b.Timeline.Begin("flush")()
	b.Report.Stage("flush", "")
	ctx, cancel := context.WithTimeoutCause(ctx, flushLimit, &timeoutError{"flushing has taken", flushLimit})
	defer cancel()
	if err := b.session.Agent.Sync(ctx); err != nil {
		return failed("what the command wrote could not be flushed: %w", errors.Join(err, b.written.err()))
	}
	if err := b.written.err(); err != nil {
		return failed("what the command wrote did not arrive: %w", err)
	}
	return nil
}

// collect turns the exit into a result and moves the outputs to their place.
func (b *build) collect(exit job.Exit) error {
	defer b.Timeline.Begin("collect")()
	switch {
	case exit.Stage == job.StageJob:
		return failed("winvm-run.exe could not read the job (Windows error %d)", exit.Error)
	case exit.Stage == job.StageCwd:
		return &Error{Status: StatusCantRun, Err: fmt.Errorf("the guest has no directory %q to run the command in (Windows error %d)", b.Dir, exit.Error)}
	case exit.NotFound():
		return &Error{Status: StatusNotFound, Err: fmt.Errorf("command not found in the guest: %s", b.Args[0])}
	case exit.Stage == job.StageSpawn:
		return &Error{Status: StatusCantRun, Err: fmt.Errorf("the guest can't run %s (Windows error %d)", b.Args[0], exit.Error)}
	}
	b.result.ExitCode = &exit.Code
	b.result.Status = StatusOfCode(exit.Code)
	if exit.Code != 0 {
		b.Report.Tell(event.KindStage, "the command exited with %d (0x%x)", exit.Code, exit.Code)
		return nil
	}
	err := b.moveOutput()
	b.succeeded = err == nil
	return err
}

// moveOutput gives the outputs their places, all of them whole or none.
func (b *build) moveOutput() error {
	if b.Out == "" {
		return nil
	}
	outputs := b.allOutputs()
	for _, o := range outputs {
		if _, err := os.Lstat(filepath.Join(b.staging, o.name())); errors.Is(err, os.ErrNotExist) {
			b.result.ExitCode = nil
			return failed("the command succeeded but left no output: nothing was written to $%s, %s in the guest", o.Var, b.profile.StorePath(o.name()))
		}
	}
	b.sealed.seal()
	if err := b.rename(outputs); err != nil {
		b.sealed.unseal()
		return err
	}
	b.result.Out = b.Out
	return nil
}

// rename moves the outputs, all of them or none.
func (b *build) rename(outputs []Output) error {
	for i, o := range outputs {
		err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(b.staging, o.name()), unix.AT_FDCWD, o.Path, unix.RENAME_NOREPLACE)
		if err == nil {
			continue
		}
		for _, done := range outputs[:i] {
			err = errors.Join(err, os.Rename(done.Path, filepath.Join(b.staging, done.name())))
		}
		return failed("moving the output to %s: %w", o.Path, err)
	}
	return nil
}
