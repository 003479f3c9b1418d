package sshexec

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"winvm/transport/agentrpc"
)

const (
	// maxParkedLine bounds the line a parked command says.
	maxParkedLine = 4 << 10
	// framesAhead is how many of the host's frames are read before the command
	// takes them, so that the stream's end is noticed behind them.
	framesAhead = 16
)

var (
	errHungUp = errors.New("the host agent has closed the command's stream")
	errClosed = errors.New("the SSH connection has been closed")
)

// A process is one command on the SSH connection.
type process struct {
	session *ssh.Session
	stdin   io.WriteCloser
	stdout  io.Reader
	stderr  io.Reader
}

func (p *process) close() { _ = p.session.Close() }

// A frame is one from the host.
type frame struct {
	kind    agentrpc.FrameKind
	payload []byte
}

// Serve carries out what one exec stream asks for, until the command has ended
// or the stream, ctx or the Guest has: then the command's SSH session is closed,
// and Serve returns without waiting for the guest, which may be dead. It closes
// the stream.
func (g *Guest) Serve(ctx context.Context, c *agentrpc.ExecConn) {
	ctx, end := context.WithCancelCause(ctx)
	defer context.AfterFunc(g.closing, func() { end(errClosed) })() //nolint:contextcheck // the Guest's life, beside this stream's
	frames := make(chan frame, framesAhead)
	var reader sync.WaitGroup
	reader.Go(func() { end(fmt.Errorf("%w: %w", errHungUp, readFrames(ctx, c, frames))) })
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends writes to a host that doesn't read
	exit, err := g.serve(ctx, c, frames)
	if err != nil {
		exit.Error = err.Error()
	}
	if err := c.WriteJSON(agentrpc.FrameExit, exit); err != nil {
		g.log.Debug("exit status not delivered", "err", err)
	}
	stop()
	end(nil)
	_ = c.Close()
	reader.Wait()
}

// readFrames reads until the stream or ctx ends, and tells why.
func readFrames(ctx context.Context, c *agentrpc.ExecConn, frames chan<- frame) error {
	for {
		kind, payload, err := c.Read()
		if err != nil {
			return err
		}
		select {
		case frames <- frame{kind, append([]byte(nil), payload...)}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *Guest) serve(ctx context.Context, c *agentrpc.ExecConn, frames <-chan frame) (agentrpc.ExecExit, error) {
	start, err := startFrame(ctx, frames)
	if err != nil {
		return agentrpc.ExecExit{}, err
	}
	if start.Attach != "" {
		p, err := g.unpark(start.Attach)
		if err != nil {
			return agentrpc.ExecExit{}, err
		}
		return g.run(ctx, c, p, frames)
	}
	p, err := await(ctx, g, func() (*process, error) { return g.start(start) }, (*process).close)
	if err != nil {
		return agentrpc.ExecExit{}, err
	}
	if start.Park != "" {
		return g.park(ctx, start.Park, p)
	}
	return g.run(ctx, c, p, frames)
}

func startFrame(ctx context.Context, frames <-chan frame) (agentrpc.ExecStart, error) {
	var start agentrpc.ExecStart
	select {
	case <-ctx.Done():
		return start, context.Cause(ctx)
	case f := <-frames:
		if f.kind != agentrpc.FrameStart {
			return start, fmt.Errorf("the first frame is of kind %d, not a start", f.kind)
		}
		if err := json.Unmarshal(f.payload, &start); err != nil {
			return start, fmt.Errorf("start frame: %w", err)
		}
		return start, nil
	}
}

// await runs f, which takes as long as the guest does, and returns its result. If
// ctx ends first f goes on until the guest answers or the SSH connection ends,
// and undo is given what it returned.
func await[T any](ctx context.Context, g *Guest, f func() (T, error), undo func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	done := make(chan result, 1)
	if !g.spawn(func() {
		v, err := f()
		done <- result{v, err}
	}) {
		return none, errClosed
	}
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		g.spawn(func() {
			if r := <-done; r.err == nil {
				undo(r.v)
			}
		})
		return none, context.Cause(ctx)
	}
}

func (g *Guest) start(s agentrpc.ExecStart) (*process, error) {
	client, err := g.current()
	if err != nil {
		return nil, err
	}
	session, err := client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("new SSH session: %w", err)
	}
	p := &process{session: session}
	if err := p.start(s); err != nil {
		p.close()
		return nil, fmt.Errorf("start %q in the guest: %w", s.Command, err)
	}
	return p, nil
}

func (p *process) start(s agentrpc.ExecStart) error {
	var err error
	if p.stdin, err = p.session.StdinPipe(); err != nil {
		return err
	}
	if p.stdout, err = p.session.StdoutPipe(); err != nil {
		return err
	}
	if p.stderr, err = p.session.StderrPipe(); err != nil {
		return err
	}
	if t := s.PTY; t != nil {
		modes := ssh.TerminalModes{ssh.ECHO: 1, ssh.TTY_OP_ISPEED: 38400, ssh.TTY_OP_OSPEED: 38400}
		if err := p.session.RequestPty(t.Term, t.Rows, t.Cols, modes); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
	}
	if s.Command == "" {
		return p.session.Shell()
	}
	return p.session.Start(s.Command)
}

// park waits for the command's first line and keeps it under name.
func (g *Guest) park(ctx context.Context, name string, p *process) (agentrpc.ExecExit, error) {
	stop := context.AfterFunc(ctx, p.close) // ends the wait for the line
	line, err := await(ctx, g, p.firstLine, func(string) {})
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = g.keep(name, p)
	}
	if err != nil {
		p.close()
		return agentrpc.ExecExit{}, err
	}
	return agentrpc.ExecExit{Parked: true, Line: line}, nil
}

// firstLine takes the first line off standard output.
func (p *process) firstLine() (string, error) {
	r := bufio.NewReaderSize(p.stdout, maxParkedLine)
	line, err := r.ReadSlice('\n')
	p.stdout = r
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("the command's first line has more than %d bytes: %.100q…", maxParkedLine, line)
	case err != nil:
		// SSH has one end of file for both, so this doesn't wait.
		said, _ := io.ReadAll(io.LimitReader(p.stderr, maxParkedLine))
		return "", fmt.Errorf("the command ended before it was ready: %w: %s%s", err, line, said)
	default:
		return strings.TrimRight(string(line), "\r\n"), nil
	}
}

func (g *Guest) keep(name string, p *process) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.client == nil:
		return fmt.Errorf("no SSH connection to the guest: %s", g.state)
	case g.parked[name] != nil:
		return fmt.Errorf("a command is parked as %q already", name)
	}
	g.parked[name] = p
	return nil
}

func (g *Guest) unpark(name string) (*process, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.parked[name]
	if p == nil {
		return nil, fmt.Errorf("no command is parked as %q", name)
	}
	delete(g.parked, name)
	return p, nil
}

// run connects the process to the stream until the process or ctx ends.
func (g *Guest) run(ctx context.Context, c *agentrpc.ExecConn, p *process, frames <-chan frame) (agentrpc.ExecExit, error) {
	stop := context.AfterFunc(ctx, p.close)
	defer stop()
	g.spawn(func() { p.input(ctx, frames) })
	return await(ctx, g, func() (agentrpc.ExecExit, error) {
		var out sync.WaitGroup
		out.Go(func() { p.output(c.Writer(agentrpc.FrameStdout), p.stdout) })
		out.Go(func() { p.output(c.Writer(agentrpc.FrameStderr), p.stderr) })
		err := p.session.Wait()
		out.Wait()
		p.close()
		return exitOf(err)
	}, func(agentrpc.ExecExit) {})
}

// output carries what the process says to the host. A host that can't be told
// any more ends the process, which would wait for its output to be taken.
func (p *process) output(w io.Writer, r io.Reader) {
	if _, err := io.Copy(w, r); err != nil {
		p.close()
	}
}

// exitOf makes the host's answer of how a session ended.
func exitOf(err error) (agentrpc.ExecExit, error) {
	var failed *ssh.ExitError
	var missing *ssh.ExitMissingError
	status := uint32(0)
	switch {
	case err == nil:
	case errors.As(err, &failed) && failed.Signal() != "":
		return agentrpc.ExecExit{}, fmt.Errorf("the command was ended by signal %s", failed.Signal())
	case errors.As(err, &failed):
		status = uint32(failed.ExitStatus())
	case errors.As(err, &missing):
		return agentrpc.ExecExit{}, errors.New("the SSH session ended without an exit status: the connection or the guest's SSH server was lost")
	default:
		return agentrpc.ExecExit{}, fmt.Errorf("SSH session: %w", err)
	}
	return agentrpc.ExecExit{Status: &status}, nil
}

// input carries the host's frames to the process until ctx ends.
func (p *process) input(ctx context.Context, frames <-chan frame) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-frames:
			_ = p.take(f) // the process is gone or soon will be; its exit status tells
		}
	}
}

func (p *process) take(f frame) error {
	switch f.kind {
	case agentrpc.FrameStdin:
		_, err := p.stdin.Write(f.payload)
		return err
	case agentrpc.FrameStdinEOF:
		return p.stdin.Close()
	case agentrpc.FrameSignal:
		return p.session.Signal(ssh.Signal(f.payload))
	case agentrpc.FrameResize:
		var size agentrpc.PTY
		if err := json.Unmarshal(f.payload, &size); err != nil {
			return err
		}
		return p.session.WindowChange(size.Rows, size.Cols)
	default:
		return fmt.Errorf("frame of kind %d", f.kind)
	}
}
