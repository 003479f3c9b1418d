// Package session is the host agent's side of one session with a controller
// agent: dial, serve the shares, ask for things, run commands, close in order.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"winvm/hostagent/export"
	"winvm/transport/agentrpc"
	"winvm/transport/mux"
	"winvm/transport/shm"
)

// A Session is a session with a controller agent.
type Session struct {
	Agent *agentrpc.Client

	endpoint *mux.Endpoint
	mux      *mux.Session
	shares   export.Shares
	cancel   context.CancelFunc
	served   sync.WaitGroup
	log      *slog.Logger
}

// Dial makes a session over the host's end of the controller's port, which the
// Session owns from now on, also if Dial fails. lane is the memory shared with the
// controller, nil for none; it stays the caller's. Dial waits until there is a peer or
// ctx ends.
func Dial(ctx context.Context, link mux.Link, lane *shm.Region, shares export.Shares, build string, log *slog.Logger) (*Session, error) {
	ep, err := mux.NewEndpoint(link, mux.Config{Logger: log, Build: build, Lane: lane})
	if err != nil {
		return nil, errors.Join(err, link.Close())
	}
	m, err := ep.Dial(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("no session with the controller agent: %w", err), ep.Close())
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Session{endpoint: ep, mux: m, shares: shares, cancel: cancel, log: log}
	s.served.Go(func() { _ = export.Serve(serving, m, shares, log) })
	return s, nil
}

// Attach greets the controller agent and puts the session's shares behind its
// mounts. Nothing else can be asked of the agent before.
func (s *Session) Attach(ctx context.Context) error {
	conn, err := s.mux.Open(ctx, agentrpc.StreamAgent)
	if err != nil {
		return fmt.Errorf("stream to the controller agent: %w", err)
	}
	s.Agent = agentrpc.NewClient(conn)
	if _, err := s.Agent.Hello(ctx); err != nil {
		return fmt.Errorf("greeting the controller agent: %w", err)
	}
	if _, err := s.Agent.Attach(ctx, s.shares.Names()...); err != nil {
		return fmt.Errorf("attaching the shares in the controller VM: %w", err)
	}
	return nil
}

// Done is closed when the session has ended; Err tells why.
func (s *Session) Done() <-chan struct{} { return s.mux.Done() }

// Err tells why the session ended.
func (s *Session) Err() error { return s.mux.Err() }

// Quiesce ends the session so that nothing is on its way between the two agents:
// what a suspend needs.
func (s *Session) Quiesce(ctx context.Context) error {
	err := s.Agent.Quiesce(ctx)
	if err == nil {
		err = s.mux.Shutdown(ctx)
	}
	s.Abort()
	if err != nil {
		return fmt.Errorf("closing the session in order: %w", err)
	}
	return nil
}

// Abort ends the session at once and waits for its goroutines. It may be called
// again.
func (s *Session) Abort() {
	s.cancel()
	s.mux.Abort(mux.ErrClosed)
	if s.Agent != nil {
		_ = s.Agent.Close()
	}
	_ = s.endpoint.Close()
	s.served.Wait()
}

// Exec is a command in the guest as it is to be run.
type Exec struct {
	agentrpc.ExecStart
	Stdin  io.Reader // nil: nothing, and stays open
	Stdout io.Writer
	Stderr io.Writer
	// Resize and Signal, if not nil, are sources of changes of the terminal's
	// size and of signals (INT, TERM, KILL).
	Resize <-chan agentrpc.PTY
	Signal <-chan string
	// OnStart, if not nil, is called when the pair is ready and the command is about
	// to be started.
	OnStart func() error
	// OnOutput, if not nil, is called whenever output came.
	OnOutput func()
}

// Run runs a command and returns how it ended. If ctx ends first, the command's
// SSH session is closed.
func (s *Session) Run(ctx context.Context, e Exec) (agentrpc.ExecExit, error) {
	conn, err := s.OpenExec(ctx)
	if err != nil {
		return agentrpc.ExecExit{}, err
	}
	return RunOver(ctx, conn, e)
}

// OpenExec opens a stream for a command, which [RunOver] runs over it.
func (s *Session) OpenExec(ctx context.Context) (io.ReadWriteCloser, error) {
	conn, err := s.mux.Open(ctx, agentrpc.StreamExec)
	if err != nil {
		return nil, fmt.Errorf("stream for a command: %w", err)
	}
	return conn, nil
}

// RunOver is [Session.Run] over a stream of [Session.OpenExec], or over what carries
// its bytes. It closes the stream.
func RunOver(ctx context.Context, conn io.ReadWriteCloser, e Exec) (agentrpc.ExecExit, error) {
	if e.OnStart != nil {
		if err := e.OnStart(); err != nil {
			return agentrpc.ExecExit{}, errors.Join(err, conn.Close())
		}
	}
	c, err := startOver(conn, e.ExecStart)
	if err != nil {
		return agentrpc.ExecExit{}, err
	}
	return c.Wait(ctx, e)
}

// A Command is one that was started. Its owner calls Wait, or ends the session.
type Command struct{ conn *agentrpc.ExecConn }

// Start starts a command. It returns when the controller agent has been told, not
// when that has done it.
func (s *Session) Start(ctx context.Context, e agentrpc.ExecStart) (*Command, error) {
	conn, err := s.OpenExec(ctx)
	if err != nil {
		return nil, err
	}
	return startOver(conn, e)
}

func startOver(conn io.ReadWriteCloser, e agentrpc.ExecStart) (*Command, error) {
	c := &Command{agentrpc.NewExecConn(conn)}
	if err := c.conn.WriteJSON(agentrpc.FrameStart, e); err != nil {
		_ = c.conn.Close()
		return nil, err
	}
	return c, nil
}

// Input sends bytes to the command's standard input.
func (c *Command) Input(p []byte) error { return c.conn.Write(agentrpc.FrameStdin, p) }

// Wait passes on what e says there is to pass on, and returns how the command ended.
// If ctx ends first, the command's SSH session is closed.
func (c *Command) Wait(ctx context.Context, e Exec) (agentrpc.ExecExit, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	var inputs sync.WaitGroup
	ended := make(chan struct{})
	defer inputs.Wait()
	defer func() { _ = c.conn.Close() }()
	defer close(ended)
	e.feed(c.conn, &inputs, ended)
	exit, err := e.receive(c.conn)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return exit, err
}

// feed starts what carries input, sizes and signals to the command.
func (e *Exec) feed(c *agentrpc.ExecConn, wg *sync.WaitGroup, ended <-chan struct{}) {
	if e.Stdin != nil {
		// A read of a terminal can't be broken off: this goroutine may stay until
		// the process ends.
		go func() {
			_, _ = io.Copy(c.Writer(agentrpc.FrameStdin), e.Stdin)
			_ = c.Write(agentrpc.FrameStdinEOF, nil)
		}()
	}
	if e.Resize == nil && e.Signal == nil {
		return
	}
	wg.Go(func() {
		for {
			var err error
			select {
			case size := <-e.Resize:
				err = c.WriteJSON(agentrpc.FrameResize, size)
			case sig := <-e.Signal:
				err = c.Write(agentrpc.FrameSignal, []byte(sig))
			case <-ended:
				return
			}
			if err != nil {
				return
			}
		}
	})
}

func (e *Exec) receive(c *agentrpc.ExecConn) (agentrpc.ExecExit, error) {
	for {
		kind, payload, err := c.Read()
		if err != nil {
			return agentrpc.ExecExit{}, fmt.Errorf("the command's stream ended: %w", err)
		}
		switch kind {
		case agentrpc.FrameStdout, agentrpc.FrameStderr:
			if e.OnOutput != nil {
				e.OnOutput()
			}
			w := e.Stdout
			if kind == agentrpc.FrameStderr {
				w = e.Stderr
			}
			if w == nil {
				continue
			}
			if _, err := w.Write(payload); err != nil {
				return agentrpc.ExecExit{}, fmt.Errorf("writing the command's output: %w", err)
			}
		case agentrpc.FrameExit:
			var exit agentrpc.ExecExit
			if err := json.Unmarshal(payload, &exit); err != nil {
				return agentrpc.ExecExit{}, fmt.Errorf("exit of the command: %w", err)
			}
			if exit.Error != "" {
				return exit, errors.New(exit.Error)
			}
			return exit, nil
		default:
			return agentrpc.ExecExit{}, fmt.Errorf("frame of kind %d from the controller agent", kind)
		}
	}
}

// WaitGuest returns when the controller agent holds an SSH connection to the
// guest. tell is given what is seen on the way whenever it changes. That the guest
// has died is for the caller to see, who ends ctx.
func (s *Session) WaitGuest(ctx context.Context, tell func(state string)) (agentrpc.GuestResponse, error) {
	last := ""
	for {
		r, err := s.Agent.Guest(ctx, agentrpc.GuestRequest{Wait: time.Second})
		if err != nil {
			if last != "" {
				err = fmt.Errorf("%w (last seen: %s)", err, last)
			}
			return r, fmt.Errorf("waiting for the guest's SSH server: %w", err)
		}
		if r.Connected {
			return r, nil
		}
		if r.State != last && tell != nil {
			tell(r.State)
		}
		last = r.State
	}
}
