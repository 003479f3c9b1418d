package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"winvm/transport/capture"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/virtioserial"
)

var peerFlags = []cli.Flag{
	&cli.StringFlag{Name: "as", Value: "auto", Usage: "be the `SIDE` that the other end isn't: host, guest, or auto to listen first"},
	&cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, Usage: "give up after `D` without an answer"},
}

// detectTime is for how long auto listens: a host agent begins at once, and again
// within a second.
const detectTime = 1500 * time.Millisecond

// A peer is the session with what is at the other end.
type peer struct {
	*mux.Session
	self mux.Side
	raw  []time.Duration // from our resync records to the answers
	ep   *mux.Endpoint
	link mux.Link
}

func (p *peer) close() {
	_ = p.Close()
	_ = p.ep.Close()
}

// openLink opens a socket's path or a device.
func openLink(name string) (mux.Link, bool, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, false, err
	}
	switch {
	case st.Mode().Type() == fs.ModeSocket:
		conn, err := dial(name)
		if err != nil {
			return nil, false, err
		}
		return conn, false, nil
	case st.Mode()&fs.ModeCharDevice != 0:
		port, err := virtioserial.Open(name)
		if err != nil {
			return nil, false, err
		}
		return port, true, nil
	}
	return nil, false, fmt.Errorf("%s is neither a socket nor a device", name)
}

// connect makes a session with the agent at the other end of name.
func connect(c *cli.Context, name string) (*peer, error) {
	as := c.String("as")
	if !slices.Contains([]string{"auto", "host", "guest"}, as) {
		return nil, fmt.Errorf("--as %s: there are host, guest and auto", as)
	}
	timeout := c.Duration("timeout")
	if timeout <= 0 {
		return nil, errors.New("--timeout must be positive")
	}
	link, device, err := openLink(name)
	if err != nil {
		return nil, err
	}
	var front []byte
	self := mux.SideHost
	switch {
	case as == "guest", as == "auto" && device:
		self = mux.SideGuest
	case as == "auto":
		self, front = detect(link)
		if _, err := capture.NewReader(bytes.NewReader(front)); err == nil {
			_ = link.Close()
			return nil, fmt.Errorf("%s is a debug socket, which only gives captures: see serialdbg capture, decode and stats", name)
		}
	}
	ctx, cancel := context.WithTimeout(c.Context, timeout)
	defer cancel()
	p, err := begin(ctx, link, front, self)
	if err != nil {
		if c.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("%s: nothing there answers the %v agent's resync within %v: %w; is another process connected, or is --as wrong?", name, self, timeout, err)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func begin(ctx context.Context, link mux.Link, front []byte, self mux.Side) (*peer, error) {
	w := &watchedLink{Link: link, front: front, self: self}
	w.watcher = mux.NewWatcher(w.see)
	ep, err := mux.NewEndpoint(w, mux.Config{Build: "serialdbg " + version})
	if err != nil {
		return nil, errors.Join(err, link.Close())
	}
	p := &peer{self: self, ep: ep, link: link}
	if self == mux.SideHost {
		p.Session, err = ep.Dial(ctx)
	} else {
		p.Session, err = ep.Accept(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p.raw, w.done = w.took, true
	return p, nil
}

// detect listens for who is there. What it has read belongs in front of the rest.
func detect(link mux.Link) (self mux.Side, front []byte) {
	self = mux.SideHost
	found := false
	w := mux.NewWatcher(func(s *mux.Sight) {
		switch {
		case s.Kind != mux.SightResync:
		case s.Resync.Kind == "SYN":
			self, found = mux.SideGuest, true
		case s.Resync.Kind == "HELLO":
			self, found = mux.SideHost, true
		}
	})
	_ = link.SetReadDeadline(time.Now().Add(detectTime))
	buf := make([]byte, 64<<10)
	for !found && len(front) < 1<<20 {
		n, err := link.Read(buf)
		front = append(front, buf[:n]...)
		w.Feed(mux.SideHost, buf[:n], time.Now()) // resync records say themselves whose they are
		if err != nil {
			break
		}
	}
	_ = link.SetReadDeadline(time.Time{})
	return self, front
}

// A watchedLink gives back what was read from the link before, and measures the resync.
type watchedLink struct {
	mux.Link
	self mux.Side

	mu      sync.Mutex
	front   []byte
	watcher *mux.Watcher
	sent    time.Time
	took    []time.Duration
	done    bool // the resync is over
}

func (l *watchedLink) see(s *mux.Sight) {
	switch {
	case s.Kind != mux.SightResync:
	case s.From == l.self && (s.Resync.Kind == "SYN" || s.Resync.Kind == "ACK"):
		l.sent = s.At
	case s.From != l.self && !l.sent.IsZero() && (s.Resync.Kind == "ACK" || s.Resync.Kind == "GO"):
		l.took = append(l.took, s.At.Sub(l.sent))
		l.sent = time.Time{}
	}
}

func (l *watchedLink) feed(from mux.Side, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.watcher.Feed(from, b, time.Now())
	}
}

func (l *watchedLink) Read(p []byte) (int, error) {
	l.mu.Lock()
	if len(l.front) > 0 {
		n := copy(p, l.front)
		l.front = l.front[n:]
		l.mu.Unlock()
		return n, nil
	}
	l.mu.Unlock()
	n, err := l.Link.Read(p)
	l.feed(l.self.Other(), p[:n])
	return n, err
}

func (l *watchedLink) Write(p []byte) (int, error) {
	l.feed(l.self, p)
	return l.Link.Write(p)
}

// tree attaches to a share that is a tree.
func (p *peer) tree(ctx context.Context, share string) (*fsrpc.TreeClient, error) {
	if p.self != mux.SideGuest {
		return nil, errors.New("the other end is a controller agent, which serves no files: only a host agent does")
	}
	conn, err := p.OpenBulk(ctx, fsrpc.StreamName(share))
	if err != nil {
		return nil, err
	}
	c, err := fsrpc.AttachTree(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", share, err)
	}
	return c, nil
}

// store attaches to the share nixstore.
func (p *peer) store(ctx context.Context) (*fsrpc.StoreClient, error) {
	if p.self != mux.SideGuest {
		return nil, errors.New("the other end is a controller agent, which serves no files: only a host agent does")
	}
	conn, err := p.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareStore))
	if err != nil {
		return nil, err
	}
	c, err := fsrpc.AttachStore(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", fsrpc.ShareStore, err)
	}
	return c, nil
}
