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

	"winvm/hostagent/control"
	"winvm/hostagent/hostmem"
	"winvm/hostagent/pair"
	"winvm/hostagent/session"
)

// ErrKilled is the cause of a run that was ended by `hostagent kill`.
var ErrKilled = errors.New("ended by `hostagent kill`")

// killed is that cause. To all that look at causes it is as good as an interrupt.
type killed struct{}

func (killed) Error() string { return ErrKilled.Error() }

func (killed) Is(target error) bool { return target == ErrKilled || target == context.Canceled }

// A responder answers for a run on its control socket: package control's Handler.
type responder struct {
	b      *build
	begun  time.Time
	cancel context.CancelCauseFunc // of the whole run

	server *control.Server

	mu    sync.Mutex // guards the rest
	pair  *pair.Pair
	until *time.Time       // the pair is kept until then
	kept  *session.Session // of a pair that is kept

	attached int // shells
}

var _ control.Handler = (*responder)(nil)

// begin makes what answers for the run, which can end the context that it returns.
func (b *build) begin(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	b.control = &responder{b: b, begun: time.Now(), cancel: cancel}
	return ctx
}

// serveControl makes the run's socket. Without it the run goes on: nobody can ask
// what it is at, that is all.
func (b *build) serveControl() {
	s, err := control.Serve(b.run.Path("."), b.control, b.Log)
	if err != nil {
		b.Log.Warn("this run can't be asked or ended by other processes", "error", err)
	}
	b.control.server = s
}

// close is the last that is done of a run: who waits for its end goes on.
func (c *responder) close() { c.server.Close() }

// setPair says which VMs are the run's.
func (c *responder) setPair(p *pair.Pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pair = p
}

// Status implements control.Handler.
func (c *responder) Status() control.Status {
	s := control.Status{
		ID: c.b.run.ID, Image: c.b.Image, Command: c.b.Args, Stage: c.b.Timeline.Current(), Started: c.begun, Pid: os.Getpid(),
	}
	pids := []int{s.Pid}
	c.mu.Lock()
	if c.pair != nil {
		s.QEMU = c.pair.Pids()
		for _, pid := range s.QEMU {
			pids = append(pids, pid)
		}
	}
	if s.Until = c.until; c.until != nil {
		s.Stage = "kept, paused"
		if c.attached > 0 {
			s.Stage = "kept, attached"
		}
	}
	c.mu.Unlock()
	for _, pid := range pids {
		if use, err := hostmem.Of(pid); err == nil { // else it is ending
			s.PSS += use.PSS
		}
	}
	return s
}

// Kill implements control.Handler.
func (c *responder) Kill() { c.cancel(killed{}) }

// maxPNG bounds what a screenshot may have.
const maxPNG = 16 << 20

// Screenshot implements control.Handler.
func (c *responder) Screenshot(ctx context.Context) ([]byte, error) {
	c.mu.Lock()
	p := c.pair
	c.mu.Unlock()
	if p == nil {
		return nil, errors.New("its VMs have not been revived yet")
	}
	return Screenshot(ctx, p, c.b.run.Path("."))
}

// Screenshot is the screen of a pair's guest, a PNG. parent is where it may have a
// directory for a moment.
func Screenshot(ctx context.Context, p *pair.Pair, parent string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp(parent, "screen-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "guest.png")
	if err := p.Guest.Screenshot(ctx, path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxPNG))
}

// keep says that the pair is kept until a moment.
func (c *responder) keep(s *session.Session, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept, c.until = s, &until
}

// Attach implements control.Handler: it joins the peer's stream with one to the
// controller agent, and has the pair run as long as somebody is attached.
func (c *responder) Attach(ctx context.Context, stream io.ReadWriteCloser, begun func() error) error {
	s, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer c.leave(ctx)
	exec, err := s.OpenExec(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = exec.Close() }()
	if err := begun(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(exec, stream)
		_ = exec.Close()
	})
	_, err = io.Copy(stream, exec)
	_ = stream.Close()
	wg.Wait()
	return err
}

// enter has the pair run.
func (c *responder) enter(ctx context.Context) (*session.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		return nil, fmt.Errorf("run %s is not kept, it is at work: only what --keep-failed kept can be attached to", c.b.run.ID)
	}
	if c.attached == 0 {
		if err := c.pair.Resume(ctx); err != nil {
			return nil, err
		}
	}
	c.attached++
	return c.kept, nil
}

func (c *responder) leave(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attached--; c.attached > 0 || c.pair.Guest.Err() != nil {
		return
	}
	if err := c.pair.Pause(ctx); err != nil {
		c.b.Log.Warn("the pair runs on", "error", err)
	}
}
