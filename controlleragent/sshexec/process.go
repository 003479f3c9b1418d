package sshexec

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"winvm/transport/agentrpc"
)

// maxParkedLine bounds the line a parked command says.
const maxParkedLine = 4 << 10

// A process is one command on the SSH connection.
type process struct {
	session *ssh.Session
	stdin   io.WriteCloser
	stdout  io.Reader
	stderr  io.Reader
}

// Serve carries out what one exec stream asks for, until the command has ended
// or the stream has. It closes the stream.
func (g *Guest) Serve(c *agentrpc.ExecConn) {
	defer func() { _ = c.Close() }()
	exit, err := g.serve(c)
	if err != nil {
		exit.Error = err.Error()
	}
	if err := c.WriteJSON(agentrpc.FrameExit, exit); err != nil {
		g.log.Debug("exit status not delivered", "err", err)
	}
}

func (g *Guest) serve(c *agentrpc.ExecConn) (agentrpc.ExecExit, error) {
	kind, payload, err := c.Read()
	if err != nil {
		return agentrpc.ExecExit{}, err
	}
	var start agentrpc.ExecStart
	if kind != agentrpc.FrameStart {
		return agentrpc.ExecExit{}, fmt.Errorf("the first frame is of kind %d, not a start", kind)
	}
	if err := json.Unmarshal(payload, &start); err != nil {
		return agentrpc.ExecExit{}, fmt.Errorf("start frame: %w", err)
	}
	if start.Attach != "" {
		p, err := g.unpark(start.Attach)
		if err != nil {
			return agentrpc.ExecExit{}, err
		}
		return g.run(c, p)
	}
	p, err := g.start(start)
	if err != nil {
		return agentrpc.ExecExit{}, err
	}
	if start.Park != "" {
		return g.park(start.Park, p)
	}
	return g.run(c, p)
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
		_ = session.Close()
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
func (g *Guest) park(name string, p *process) (agentrpc.ExecExit, error) {
	r := bufio.NewReaderSize(p.stdout, maxParkedLine)
	line, err := r.ReadSlice('\n')
	if err != nil {
		said, _ := io.ReadAll(io.LimitReader(p.stderr, maxParkedLine))
		_ = p.session.Close()
		return agentrpc.ExecExit{}, fmt.Errorf("the command ended before it was ready: %w: %s%s", err, line, said)
	}
	text := strings.TrimRight(string(line), "\r\n")
	p.stdout = r
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.parked[name] != nil {
		_ = p.session.Close()
		return agentrpc.ExecExit{}, fmt.Errorf("a command is parked as %q already", name)
	}
	g.parked[name] = p
	return agentrpc.ExecExit{Parked: true, Line: text}, nil
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

// run connects the process to the stream until the process ends; if the stream
// ends first, the process's SSH session is closed.
func (g *Guest) run(c *agentrpc.ExecConn, p *process) (agentrpc.ExecExit, error) {
	var out sync.WaitGroup
	out.Go(func() { _, _ = io.Copy(c.Writer(agentrpc.FrameStdout), p.stdout) })
	out.Go(func() { _, _ = io.Copy(c.Writer(agentrpc.FrameStderr), p.stderr) })
	// The reader ends when Serve's caller closes the stream, at the latest.
	go p.input(c)
	err := p.session.Wait()
	out.Wait()
	_ = p.session.Close()
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
		return agentrpc.ExecExit{}, errors.New("the SSH session ended without an exit status")
	default:
		return agentrpc.ExecExit{}, fmt.Errorf("SSH session: %w", err)
	}
	return agentrpc.ExecExit{Status: &status}, nil
}

// input carries the host's frames to the process.
func (p *process) input(c *agentrpc.ExecConn) {
	for {
		kind, payload, err := c.Read()
		if err != nil {
			_ = p.session.Close()
			return
		}
		switch kind {
		case agentrpc.FrameStdin:
			_, err = p.stdin.Write(payload)
		case agentrpc.FrameStdinEOF:
			err = p.stdin.Close()
		case agentrpc.FrameSignal:
			err = p.session.Signal(ssh.Signal(payload))
		case agentrpc.FrameResize:
			var size agentrpc.PTY
			if err = json.Unmarshal(payload, &size); err == nil {
				err = p.session.WindowChange(size.Rows, size.Cols)
			}
		default:
			err = fmt.Errorf("frame of kind %d", kind)
		}
		_ = err // the process is gone or soon will be; its exit status tells
	}
}
