package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// MaxLine bounds one line of QEMU's, in bytes. go-qemu's scanner gives up at
// 64 KiB; nothing that is asked here comes near it.
const MaxLine = 60 << 10

// relay passes lines between QEMU (far) and go-qemu (near).
type relay struct {
	near, far *net.UnixConn
	wg        sync.WaitGroup
	once      sync.Once
	done      chan struct{} // closed by end

	// replies has a copy of every reply, made before go-qemu sees it. After each
	// the relay waits for a token in parsed before it reads on, so that go-qemu
	// can't be reading into the buffer that it is parsing.
	replies chan []byte
	parsed  chan struct{}
	// expecting is true from the moment a command is sent until its reply comes.
	expecting atomic.Bool

	mu    sync.Mutex
	cause error // why it ended; set before done is closed
}

func newRelay(near, far *net.UnixConn) *relay {
	r := &relay{
		near: near, far: far, done: make(chan struct{}),
		replies: make(chan []byte, 1), parsed: make(chan struct{}),
	}
	r.wg.Add(2)
	go func() { defer r.wg.Done(); r.end(r.fromQEMU()) }()
	go func() { defer r.wg.Done(); r.end(r.toQEMU()) }()
	return r
}

// end closes both connections; the first cause is kept.
func (r *relay) end(cause error) {
	r.once.Do(func() {
		r.mu.Lock()
		r.cause = cause
		r.mu.Unlock()
		close(r.done)
		_ = r.far.Close()
		_ = r.near.Close()
	})
}

// err is why the relay has ended; only after done is closed.
func (r *relay) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}

// fromQEMU passes on what QEMU says, until one side ends.
func (r *relay) fromQEMU() error {
	in := bufio.NewReaderSize(r.far, MaxLine)
	greeted := false
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w: a line of more than %d bytes", ErrProtocol, MaxLine)
		case errors.Is(err, io.EOF) && len(line) == 0:
			return ErrClosed
		case err != nil:
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			continue
		}
		kind, err := classify(line)
		if err != nil {
			return err
		}
		if (kind == greeting) == greeted {
			return fmt.Errorf("%w: %.200q at the wrong time", ErrProtocol, line)
		}
		greeted = true
		if err := r.forward(line, kind); err != nil {
			return err
		}
	}
}

// forward gives one line to go-qemu; after a reply it waits until that is parsed.
func (r *relay) forward(line []byte, kind lineKind) error {
	if kind == reply {
		if !r.expecting.CompareAndSwap(true, false) {
			return fmt.Errorf("%w: a reply to no command: %.200q", ErrProtocol, line)
		}
		r.replies <- bytes.Clone(line) // has room: the one before it was taken first
	}
	if _, err := r.near.Write(append(line[:len(line):len(line)], '\n')); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	if kind != reply {
		return nil
	}
	select {
	case <-r.parsed:
		return nil
	case <-r.done:
		return ErrClosed
	}
}

// toQEMU passes on commands, with the descriptors that travel beside them.
func (r *relay) toQEMU() error {
	buf := make([]byte, 32<<10)
	oob := make([]byte, unix.CmsgSpace(4)) // room for one descriptor
	for {
		n, oobn, _, _, err := r.near.ReadMsgUnix(buf, oob)
		if n == 0 && oobn == 0 {
			return ErrClosed
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
		fds, err := rights(oob[:oobn])
		if err != nil {
			return err
		}
		err = r.send(buf[:n], fds)
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
	}
}

// send writes all of data; the descriptors go with its first byte.
func (r *relay) send(data []byte, fds []int) error {
	for len(data) > 0 {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		n, _, err := r.far.WriteMsgUnix(data, oob, nil)
		if err != nil {
			return err
		}
		data, fds = data[n:], nil
	}
	return nil
}

func rights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read a descriptor: %w", err)
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, fmt.Errorf("read a descriptor: %w", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

type lineKind int

const (
	greeting lineKind = iota
	reply
	event
)

// classify says what a line of QEMU's is.
func classify(line []byte) (lineKind, error) {
	var l struct {
		QMP    json.RawMessage `json:"QMP"`
		Event  *string         `json:"event"`
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	err := json.Unmarshal(line, &l)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w in %.200q", ErrProtocol, err, line)
	case l.QMP != nil:
		return greeting, nil
	case l.Event != nil && *l.Event != "":
		return event, nil
	case l.Return != nil, l.Error != nil:
		return reply, nil
	}
	return 0, fmt.Errorf("%w: neither event nor reply: %.200q", ErrProtocol, line)
}

// selfConnect gives a listener that only this process can use, for a dialler that
// insists on an address: bind to an abstract name that the kernel chooses, run
// dial with it, and accept only a connection that comes from this very process.
func selfConnect(ctx context.Context, dial func(addr string) error) (*net.UnixConn, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"}) // no name: the kernel's choice
	if err != nil {
		return nil, fmt.Errorf("make a socket for the monitor: %w", err)
	}
	defer func() { _ = l.Close() }()
	deadline := time.Now().Add(10 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := l.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// The connect ends in the backlog: it doesn't wait for the accept below.
	if err := dial(l.Addr().String()); err != nil {
		return nil, fmt.Errorf("dial the monitor's relay: %w", err)
	}
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, fmt.Errorf("accept on the monitor's relay: %w", err)
		}
		if isOwn(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

// isOwn reports whether this process is at the other end of c.
func isOwn(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	own := false
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		own = err == nil && int(cred.Pid) == os.Getpid()
	})
	return own
}
