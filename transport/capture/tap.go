package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/mux"
	"winvm/transport/virtioserial"
)

const (
	// headMax is how many of the first bytes of each direction of a link are kept for
	// who connects later.
	headMax = 128 << 10
	// queueMax is how many bytes wait for a reader before packets are left out.
	queueMax = 16 << 20
	// maxReaders bounds those who may read at once.
	maxReaders = 8
	// lingerTime is how long readers may take over what is left when all ends.
	lingerTime = 2 * time.Second
)

// A Tap sees what passes over links and tells it to whoever connects. Its methods may
// be called by any goroutine.
type Tap struct {
	self   mux.Side
	cancel context.CancelFunc // of Listen
	served chan struct{}      // closed when Serve has returned

	mu      sync.Mutex
	links   map[*tapped]struct{}
	last    uint32
	readers map[*reader]struct{}
	ended   bool
}

// NewTap returns a Tap of the links of one side.
func NewTap(self mux.Side) *Tap {
	return &Tap{self: self, links: map[*tapped]struct{}{}, readers: map[*reader]struct{}{}}
}

// Listen returns a Tap that gives captures to whoever connects to a socket at path, until
// Close, whatever becomes of ctx. Without a path there is no Tap (nil), whose methods do nothing.
func Listen(ctx context.Context, path string, self mux.Side) (*Tap, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // a Tap may be nil
	}
	l, err := virtioserial.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("debug socket: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := NewTap(self)
	t.cancel, t.served = cancel, make(chan struct{})
	go func() {
		defer close(t.served)
		_ = t.Serve(ctx, l)
	}()
	return t, nil
}

// Close lets every reader have what is left, for a short time, and removes the socket.
func (t *Tap) Close() {
	if t == nil {
		return
	}
	t.End()
	t.cancel()
	<-t.served
}

// Wrap returns link with the tap on it; without a tap (nil), link itself.
func (t *Tap) Wrap(link mux.Link) mux.Link {
	if t == nil {
		return link
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &tapped{Link: link, tap: t, number: t.last}
	t.last++
	t.links[l] = struct{}{}
	return l
}

// tapped is a link with a tap. Its fields are guarded by Tap.mu.
type tapped struct {
	mux.Link
	tap    *Tap
	number uint32
	sent   [2]int64  // bytes of the host and of the guest
	kept   [2]int    // of them in head
	head   []*Packet // the first of each direction
	ended  bool
}

func (l *tapped) Read(p []byte) (int, error) {
	n, err := l.Link.Read(p)
	if n > 0 {
		l.note(l.tap.self.Other(), p[:n], time.Now())
	}
	return n, err
}

func (l *tapped) Write(p []byte) (int, error) {
	// Before it is written: the answer can be read before Write has returned.
	l.note(l.tap.self, p, time.Now())
	return l.Link.Write(p)
}

func (l *tapped) Close() error {
	l.end()
	return l.Link.Close()
}

// note tells the readers of bytes that pass.
func (l *tapped) note(from mux.Side, b []byte, at time.Time) {
	l.tap.mu.Lock()
	defer l.tap.mu.Unlock()
	i := from - mux.SideHost
	for len(b) > 0 {
		part := b[:min(len(b), MaxData)]
		b = b[len(part):]
		keep := l.kept[i] == int(l.sent[i]) && l.kept[i]+len(part) <= headMax
		offset := l.sent[i]
		l.sent[i] += int64(len(part))
		if !keep && len(l.tap.readers) == 0 {
			continue
		}
		p := &Packet{At: at, Link: l.number, From: from, Offset: offset, Data: append([]byte(nil), part...)}
		if keep {
			l.kept[i] += len(part)
			l.head = append(l.head, p)
		}
		for r := range l.tap.readers {
			r.put(p)
		}
	}
}

// end tells that the link has ended.
func (l *tapped) end() {
	l.tap.mu.Lock()
	defer l.tap.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	delete(l.tap.links, l)
	for _, from := range []mux.Side{mux.SideHost, mux.SideGuest} {
		p := &Packet{At: time.Now(), Link: l.number, From: from, Offset: l.sent[from-mux.SideHost], End: true}
		for r := range l.tap.readers {
			r.put(p)
		}
	}
}

// A reader is a connection to the debug socket.
type reader struct {
	ready chan struct{}
	done  chan struct{} // closed when nobody takes packets any more

	mu    sync.Mutex
	queue []*Packet
	bytes int
	lost  map[way]bool // directions of which packets were left out
	ended bool
}

type way struct {
	link uint32
	from mux.Side
}

// put adds a packet, if there is room.
func (r *reader) put(p *Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := way{p.Link, p.From}
	if r.bytes+len(p.Data) > queueMax {
		r.lost[k] = true
		return
	}
	if r.lost[k] {
		marked := *p
		marked.Missing = true
		p = &marked
		delete(r.lost, k)
	}
	r.bytes += len(p.Data)
	r.queue = append(r.queue, p)
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

func (r *reader) take() (list []*Packet, ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list, r.queue, r.bytes = r.queue, nil, 0
	return list, r.ended
}

// attach adds a reader, with what there is of the links' beginnings.
func (t *Tap) attach() (*reader, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.readers) >= maxReaders {
		return nil, fmt.Errorf("%d read already", maxReaders)
	}
	r := &reader{ready: make(chan struct{}, 1), done: make(chan struct{}), lost: map[way]bool{}}
	for l := range t.links {
		for _, p := range l.head {
			r.put(p)
		}
		for _, from := range []mux.Side{mux.SideHost, mux.SideGuest} {
			if i := from - mux.SideHost; l.sent[i] > int64(l.kept[i]) {
				r.lost[way{l.number, from}] = true
			}
		}
	}
	if r.ended = t.ended; !r.ended {
		t.readers[r] = struct{}{}
	}
	return r, nil
}

func (t *Tap) detach(r *reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.readers, r)
	close(r.done)
}

// End lets every reader have what is left, for a short time, and returns when all have
// it.
func (t *Tap) End() {
	t.mu.Lock()
	t.ended = true
	readers := make([]*reader, 0, len(t.readers))
	for r := range t.readers {
		readers = append(readers, r)
	}
	t.mu.Unlock()
	for _, r := range readers {
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
	limit := time.NewTimer(lingerTime)
	defer limit.Stop()
	for _, r := range readers {
		select {
		case <-r.done:
		case <-limit.C:
			return
		}
	}
}

// Serve gives captures to whoever connects to l and may, until ctx ends; End should
// have been called before. It closes l.
func (t *Tap) Serve(ctx context.Context, l *virtioserial.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on the debug socket: %w", err)
		}
		wg.Go(func() { t.serve(ctx, c) })
	}
}

func (t *Tap) serve(ctx context.Context, c *net.UnixConn) {
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if err := checkPeer(c); err != nil {
		return
	}
	r, err := t.attach()
	if err != nil {
		return
	}
	defer t.detach(r)
	// Who hangs up is noticed also while nothing passes.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = c.Read(make([]byte, 1))
	}()
	defer func() { _ = c.Close(); <-gone }()
	w, err := NewWriter(c)
	for err == nil {
		list, ended := r.take()
		for _, p := range list {
			if err = w.Write(p); err != nil {
				return
			}
		}
		if ended {
			return
		}
		select {
		case <-r.ready:
		case <-gone:
			return
		case <-ctx.Done():
			return
		}
	}
}

// ErrPeer says that the peer of a socket is another user.
var ErrPeer = errors.New("the socket's peer is another user")

// checkPeer lets our own user and root in. The socket's mode does that already, unless
// somebody has changed it.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	if uid := int(cred.Uid); uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("%w: %d", ErrPeer, uid)
	}
	return nil
}
