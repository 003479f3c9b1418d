package hostagent

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"winvm/hostagent/build"
	"winvm/hostagent/control"
	"winvm/hostagent/hostmem"
	"winvm/hostagent/pair"
	"winvm/hostagent/rundir"
)

// A making is a suspend, or the making of an image, as a run that others can ask for:
// package control's Handler.
type making struct {
	h     *Host
	run   *rundir.Dir
	image string
	what  string // for people
	begun time.Time
	end   context.CancelCauseFunc

	server *control.Server

	mu   sync.Mutex // guards pair
	pair *pair.Pair
}

var _ control.Handler = (*making)(nil)

// begin makes a run's directory and its socket. The context ends with `hostagent kill`.
func (h *Host) begin(ctx context.Context, what, image string) (context.Context, *making, error) {
	run, err := rundir.New(h.StateDir)
	if err != nil {
		return nil, nil, err
	}
	ctx, end := context.WithCancelCause(ctx)
	m := &making{h: h, run: run, image: image, what: what, begun: time.Now(), end: end}
	if m.server, err = control.Serve(run.Path("."), m, h.Log); err != nil {
		h.Log.Warn("this run can't be asked or ended by other processes", "error", err)
	}
	return ctx, m, nil
}

// close ends the run and returns err, or why it was ended.
func (m *making) close(ctx context.Context, err error) error {
	killed := err != nil && errors.Is(context.Cause(ctx), build.ErrKilled)
	m.end(nil)
	err = errors.Join(err, m.run.Remove())
	m.server.Close() // who waits for the end goes on
	if killed {
		return build.ErrKilled
	}
	return err
}

func (m *making) setPair(p *pair.Pair) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pair = p
}

// Status implements control.Handler.
func (m *making) Status() control.Status {
	s := control.Status{
		ID: m.run.ID, Image: m.image, Command: []string{m.what}, Stage: m.h.Report.Doing(), Started: m.begun, Pid: os.Getpid(),
	}
	pids := []int{s.Pid}
	m.mu.Lock()
	if m.pair != nil {
		s.QEMU = m.pair.Pids()
		for _, pid := range s.QEMU {
			pids = append(pids, pid)
		}
	}
	m.mu.Unlock()
	for _, pid := range pids {
		if use, err := hostmem.Of(pid); err == nil { // else it is ending
			s.PSS += use.PSS
		}
	}
	return s
}

// Kill implements control.Handler.
func (m *making) Kill() { m.end(build.ErrKilled) }

// Screenshot implements control.Handler.
func (m *making) Screenshot(ctx context.Context) ([]byte, error) {
	m.mu.Lock()
	p := m.pair
	m.mu.Unlock()
	if p == nil {
		return nil, errors.New("its VMs don't run")
	}
	return build.Screenshot(ctx, p, m.run.Path("."))
}

// Attach implements control.Handler.
func (m *making) Attach(context.Context, io.ReadWriteCloser, func() error) error {
	return errors.New("an image that is being made or suspended can't be attached to: only what --keep-failed kept can")
}
