package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// A Handler answers for a run. Its methods are called from many goroutines.
type Handler interface {
	Status() Status
	// Kill has the run end; it doesn't wait for that.
	Kill()
	// Screenshot is the guest's screen as a PNG.
	Screenshot(ctx context.Context) ([]byte, error)
	// Attach gives a stream on which a command is run in the pair. begun is called
	// when it can be used; Attach returns when it has ended.
	Attach(ctx context.Context, stream io.ReadWriteCloser, begun func() error) error
}

// maxConns is how many connections a server has at a time.
const maxConns = 16

// A Server serves a run's socket.
type Server struct {
	h      Handler
	log    *slog.Logger
	l      *net.UnixListener
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}
}

// Serve makes the socket in dir and serves it until Close.
func Serve(dir string, h Handler, log *slog.Logger) (*Server, error) {
	f, path, err := throughFD(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket in %s: %w", dir, err)
	}
	l.SetUnlinkOnClose(false) // its name was of the moment; the directory goes as a whole
	// The directory's mode keeps others out until this is done.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	s := &Server{h: h, log: log, l: l, slots: make(chan struct{}, maxConns)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// Close ends all connections and waits for them. The socket's file stays.
func (s *Server) Close() {
	if s == nil {
		return
	}
	s.cancel()
	_ = s.l.Close()
	s.wg.Wait()
}

func (s *Server) accept() {
	for {
		c, err := s.l.AcceptUnix()
		if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				_ = c.Close()
			}
			return
		}
		if err != nil { // out of descriptors, say
			s.log.Warn("control socket", "error", err)
			t := time.NewTimer(100 * time.Millisecond)
			select {
			case <-t.C:
			case <-s.ctx.Done():
			}
			t.Stop()
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			if err := s.one(c); err != nil {
				s.log.Debug("control socket", "error", err)
			}
		})
	}
}

// one serves one connection.
func (s *Server) one(c *net.UnixConn) error {
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(s.ctx, func() { _ = c.Close() })
	defer stop()
	if err := checkPeer(c, os.Geteuid(), true); err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(requestLimit)); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, maxRequest)
	var req request
	if err := readLine(in, maxRequest, &req); err != nil {
		return errors.Join(err, writeLine(c, Reply{Error: err.Error()}))
	}
	// From here on the peer may be slow, but not for ever.
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	switch req.Op {
	case opStatus:
		status := s.h.Status()
		return writeLine(c, Reply{Status: &status})
	case opKill:
		// The end can come so soon that a reply after it would be lost.
		err := writeLine(c, Reply{})
		s.h.Kill()
		return err
	case opScreenshot:
		return s.screenshot(c)
	case opAttach:
		return s.attach(c, in)
	case opWait:
		if err := errors.Join(writeLine(c, Reply{}), c.SetDeadline(time.Time{})); err != nil {
			return err
		}
		_, _ = in.ReadByte() // until the peer has enough, or Close
		return nil
	}
	return writeLine(c, Reply{Error: fmt.Sprintf("no operation %.40q: another release of winvm?", req.Op)})
}

func (s *Server) screenshot(c *net.UnixConn) error {
	png, err := s.h.Screenshot(s.ctx)
	if err == nil && len(png) > maxScreenshot {
		err = fmt.Errorf("the screenshot has %d bytes", len(png))
	}
	if err != nil {
		return writeLine(c, Reply{Error: err.Error()})
	}
	if err := writeLine(c, Reply{Size: int64(len(png))}); err != nil {
		return err
	}
	_, err = c.Write(png)
	return err
}

func (s *Server) attach(c *net.UnixConn, in *bufio.Reader) error {
	begun := false
	err := s.h.Attach(s.ctx, &stream{Reader: in, UnixConn: c}, func() error {
		begun = true
		return errors.Join(writeLine(c, Reply{}), c.SetDeadline(time.Time{}))
	})
	if err != nil && !begun {
		return writeLine(c, Reply{Error: err.Error()})
	}
	return err
}

// A stream is a connection whose first bytes have been read already.
type stream struct {
	io.Reader
	*net.UnixConn
}

// Read is of the buffer.
func (s *stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }
