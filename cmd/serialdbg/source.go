package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"winvm/transport/capture"
)

// source is a capture that is read.
type source struct {
	*capture.Reader
	close func()
	live  bool // from a debug socket
}

// open opens a CAPTURE. wait is for how long a socket may not be there yet.
func open(ctx context.Context, c *cli.Context, name string, wait time.Duration) (*source, error) {
	if name == "-" {
		r, err := capture.NewReader(c.App.Reader)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return &source{Reader: r, close: func() {}}, nil
	}
	st, err := os.Stat(name)
	if wait > 0 && errors.Is(err, fs.ErrNotExist) {
		st, err = await(ctx, name, wait)
	}
	if err != nil {
		return nil, err
	}
	var from io.ReadCloser
	s := &source{}
	switch {
	case st.Mode().Type() == fs.ModeSocket:
		s.live = true
		from, err = dial(name)
	case st.Mode()&fs.ModeDevice != 0:
		return nil, fmt.Errorf("%s is a device: a capture, or the debug socket of a host agent, is wanted here", name)
	default:
		from, err = os.Open(name)
	}
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = from.Close() })
	s.close = func() { stop(); _ = from.Close() }
	if s.Reader, err = capture.NewReader(from); err != nil {
		s.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if s.live {
			return nil, fmt.Errorf("%s: %w; what answers there is no host agent's debug socket, or lets only its own user in", name, err)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// await waits for a file to appear.
func await(ctx context.Context, name string, wait time.Duration) (fs.FileInfo, error) {
	limit := time.After(wait)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := os.Stat(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return st, err
		}
		select {
		case <-tick.C:
		case <-limit:
			return nil, fmt.Errorf("%w, after %v", err, wait)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// dial connects to a socket, however long its path.
func dial(name string) (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	addr := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(name))
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: addr})
	switch {
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("connect to %s: permission denied: the socket is another user's (%s); run serialdbg as that user or root", name, owner(name))
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("connect to %s: nobody listens there any more", name)
	case errors.Is(err, syscall.EAGAIN):
		return nil, fmt.Errorf("connect to %s: it is taken: another process is connected and more wait", name)
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", name, errors.Unwrap(err))
	}
	return conn, nil
}

func owner(name string) string {
	st, err := os.Stat(name)
	if err != nil {
		return "unknown"
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return "uid " + strconv.FormatUint(uint64(sys.Uid), 10)
	}
	return "unknown"
}

// each reads packets until the capture or ctx ends. A part that is damaged is told of and
// skipped; the first such error is returned at the end.
func (s *source) each(ctx context.Context, packet func(*capture.Packet) error, problem func(error)) error {
	var first error
	for {
		p, err := s.Next()
		switch {
		case err == nil:
			if err := packet(&p); err != nil {
				return err
			}
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return first
		case errors.Is(err, capture.ErrDamaged):
			problem(err)
			if first == nil {
				first = err
			}
		case errors.Is(err, capture.ErrCut):
			problem(err)
			return errors.Join(first, err)
		default:
			return err
		}
	}
}
