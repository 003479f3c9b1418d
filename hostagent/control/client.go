package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// A conn is a connection whose request has been answered.
type conn struct {
	*net.UnixConn
	in *bufio.Reader
}

// ask sends a request to the run in dir and reads the reply. It ends with ctx,
// whatever the other end does.
func ask(ctx context.Context, dir, op string) (_ *conn, r Reply, err error) {
	c, err := dial(ctx, dir)
	if err != nil {
		return nil, r, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		if !stop() && err != nil {
			err = fmt.Errorf("%w: %w", ErrGone, context.Cause(ctx))
		}
		if err != nil {
			_ = c.Close()
		}
	}()
	if err := writeLine(c, request{Op: op}); err != nil {
		return nil, r, fmt.Errorf("%w: %w", ErrGone, err)
	}
	in := bufio.NewReader(c)
	if err := readLine(in, maxReply, &r); err != nil {
		return nil, r, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if r.Error != "" {
		return nil, r, errors.New(r.Error)
	}
	return &conn{c, in}, r, nil
}

// dial connects to the socket in dir, if it is our own user's.
func dial(ctx context.Context, dir string) (*net.UnixConn, error) {
	f, path, err := throughFD(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer func() { _ = f.Close() }()
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s/%s is no socket", dir, SocketName)
	}
	owner := os.Geteuid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok && owner != 0 && int(st.Uid) != owner {
		return nil, fmt.Errorf("%s/%s: %w (%d)", dir, SocketName, ErrNotOurs, st.Uid)
	} else if ok {
		owner = int(st.Uid)
	}
	// Go's socket doesn't block: a server whose queue is full is EAGAIN at once.
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	u := c.(*net.UnixConn)
	if err := checkPeer(u, owner, true); err != nil {
		_ = u.Close()
		return nil, fmt.Errorf("%s/%s: %w", dir, SocketName, err)
	}
	return u, nil
}

// Ask is the status of the run in dir.
func Ask(ctx context.Context, dir string) (Status, error) {
	c, r, err := ask(ctx, dir, opStatus)
	if err != nil {
		return Status{}, err
	}
	_ = c.Close()
	if r.Status == nil {
		return Status{}, errors.New("the host agent's answer has no status")
	}
	return *r.Status, nil
}

// Kill has the run in dir end, and waits until it has.
func Kill(ctx context.Context, dir string) error {
	wait, err := Wait(ctx, dir)
	if err != nil {
		return err
	}
	c, _, err := ask(ctx, dir, opKill)
	if err != nil {
		return err
	}
	_ = c.Close()
	return wait()
}

// Wait returns a function that waits until the run in dir has ended, or ctx has.
func Wait(ctx context.Context, dir string) (func() error, error) {
	c, _, err := ask(ctx, dir, opWait)
	if err != nil {
		return nil, err
	}
	return func() error {
		defer func() { _ = c.Close() }()
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
		_, err := c.in.ReadByte()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			return errors.New("the host agent said more than it should")
		}
		return nil // EOF, or a reset
	}, nil
}

// Screenshot is the guest's screen of the run in dir, a PNG.
func Screenshot(ctx context.Context, dir string) ([]byte, error) {
	c, r, err := ask(ctx, dir, opScreenshot)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if r.Size <= 0 || r.Size > maxScreenshot {
		return nil, fmt.Errorf("a screenshot of %d bytes", r.Size)
	}
	png := make([]byte, r.Size)
	if _, err := io.ReadFull(c.in, png); err != nil {
		return nil, fmt.Errorf("the screenshot: %w", errors.Join(err, context.Cause(ctx)))
	}
	return png, nil
}

// Attach is an exec stream in the kept pair of the run in dir. ctx bounds the
// asking alone.
func Attach(ctx context.Context, dir string) (io.ReadWriteCloser, error) {
	c, _, err := ask(ctx, dir, opAttach)
	if err != nil {
		return nil, err
	}
	return &stream{Reader: c.in, UnixConn: c.UnixConn}, nil
}
