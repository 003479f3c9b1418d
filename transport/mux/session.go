package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"winvm/transport/shm"
)

const (
	// settleTicks and settleTick bound how long the answer to the peer's close waits for
	// the streams the peer opened just before. Many short waits, since after one
	// long one in which this process didn't run the streams would be given up at once.
	settleTicks = 100
	settleTick  = 10 * time.Millisecond

	// maxFINs bounds what is kept of streams that the peer has ended. Above it a
	// stream that ends with its session may look cut though it was whole.
	maxFINs = 4096
)

// named is a stream of either kind.
type named interface {
	net.Conn
	Name() string
}

// Session is a set of streams between the host agent and the controller agent.
// All its methods may be called by any goroutine.
type Session struct {
	ep   *Endpoint
	conn *recordConn
	ym   *yamux.Session
	lane *shm.Lane

	bulk *bulk

	slots    chan struct{} // full: MaxStreams of the peer's streams are open
	accepted chan named

	opened atomic.Int64  // streams the peer has opened,
	taken  atomic.Int64  // and those that yamux has given to us
	tick   chan struct{} // after taken was counted up

	done chan struct{}
	err  error // once done is closed

	yamuxErr error // why acceptLoop ended; once wg is done

	mu    sync.Mutex
	fins  map[uint32]struct{} // streams the peer has ended
	ended bool                // spawn does nothing any more
	wg    sync.WaitGroup      // all goroutines but yamux's and finish
}

// newSession returns a session whose turn to write is taken.
func (e *Endpoint) newSession(hs handshake) *Session {
	s := &Session{
		ep:       e,
		conn:     newRecordConn(e, hs),
		lane:     e.openLane(&hs),
		slots:    make(chan struct{}, e.cfg.MaxStreams),
		accepted: make(chan named, e.cfg.MaxStreams),
		tick:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		fins:     make(map[uint32]struct{}),
	}
	s.bulk = newBulks(s, hs.role)
	s.conn.s = s
	s.conn.turn <- struct{}{}
	e.log.Debug("session begins", "epoch", s.Epoch(), "version", hs.version,
		"features", hs.features, "lane", s.lane != nil, "peer", hs.peerBuild)

	cfg := &yamux.Config{
		AcceptBacklog:          e.cfg.Backlog,
		KeepAliveInterval:      time.Hour, // off, but must be set
		ConnectionWriteTimeout: 2 * e.cfg.WriteTimeout,
		MaxStreamWindowSize:    e.cfg.Window,
		Logger:                 &yamuxLogger{log: e.log, conn: s.conn},
	}
	start := yamux.Server
	if hs.role == roleHost {
		start = yamux.Client
	}
	// recordConn needs s.ym only for streams, of which there are none yet.
	ym, err := start(s.conn, cfg)
	if err != nil {
		panic("mux: yamux refused its configuration: " + err.Error()) // ours is checked
	}
	s.ym = ym
	s.wg.Go(s.acceptLoop)
	s.wg.Go(s.bulk.controlLoop)
	go s.finish()

	e.mu.Lock()
	e.session = s
	closed := e.closed
	e.mu.Unlock()
	if closed {
		_ = s.conn.fail(fmt.Errorf("%w: endpoint closed", ErrLink))
	}
	return s
}

// finish waits for everything of the session to end.
func (s *Session) finish() {
	<-s.ym.CloseChan()
	_ = s.ym.Close() // waits for yamux's own Close
	s.bulk.end()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.wg.Wait()
	// Nobody may still write: the link is the next session's soon. A write that is
	// under way has been broken off.
	s.conn.turn <- struct{}{}
	cause := s.conn.why()
	if cause == errYamux && s.yamuxErr != nil { //nolint:errorlint // that very one, with nothing added yet
		cause = fmt.Errorf("%w: %w", errYamux, s.yamuxErr)
	}
	s.err = fmt.Errorf("mux: session %08x: %w", s.Epoch(), cause)
	s.ep.sessionEnded(s, cause)
	close(s.done) // before the release, so that Endpoint.Close waits for it
	s.ep.release()
}

// spawn runs f in a goroutine of the session, if the session hasn't ended.
func (s *Session) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.wg.Go(f)
	}
	return !s.ended
}

// Done is closed when the session has ended, with all its goroutines.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns nil before Done is closed, and after it why the session ended:
// [ErrClosed] if it was closed in order.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Epoch returns the number that tells this session from others on the link.
func (s *Session) Epoch() uint32 { return s.conn.in.epoch }

// Version returns the protocol version both sides speak.
func (s *Session) Version() uint16 { return s.conn.hs.version }

// PeerVersion returns the peer's build, as given in its Config: printable, and
// not to be trusted.
func (s *Session) PeerVersion() string { return s.conn.hs.peerBuild }

// Features returns the optional features that both sides have.
func (s *Session) Features() uint64 { return s.conn.hs.features }

// Shutdown closes the session in order and waits for the peer to do so, too.
// What a stream's Write has returned for arrives; Writes that wait fail. When it
// returns nil, nothing of the session is in flight in either direction.
//
// If ctx ends first, the session ends there and then, and ctx's error is
// returned; if it ended already or ends otherwise, the reason for that.
func (s *Session) Shutdown(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		_ = s.conn.fail(fmt.Errorf("the peer has not answered the close: %w", ctx.Err()))
	})
	defer stop()
	_ = s.conn.sendClose() // its error is the session's, too
	<-s.done
	if s.conn.clean() {
		return nil
	}
	return s.err
}

// Close is [Session.Shutdown] with a limit of Config.CloseTimeout.
func (s *Session) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.ep.cfg.CloseTimeout)
	defer cancel()
	return s.Shutdown(ctx)
}

// Abort ends the session at once for a reason, without telling the peer, and
// waits until it has ended. It is for who knows from elsewhere that the peer is
// not there any more, such as by QEMU's VSERPORT_CHANGE event.
func (s *Session) Abort(reason error) {
	_ = s.conn.fail(fmt.Errorf("aborted: %w", reason))
	<-s.done
}

// Open opens a stream called name, 1 to 64 bytes of a-z, 0-9, '.', '_', '-' and
// '/'. It doesn't wait for the peer to accept it; a peer that refuses makes reads
// and writes fail with [ErrReset]. If Config.Backlog streams wait to be taken
// over already, Open waits until there are less.
func (s *Session) Open(ctx context.Context, name string) (net.Conn, error) {
	preface, err := encodePreface(name)
	if err != nil {
		return nil, err
	}
	type result struct {
		st  *Stream
		err error
	}
	c := make(chan result, 1)
	started := s.spawn(func() {
		ym, err := s.ym.OpenStream()
		if err != nil {
			c <- result{err: s.streamError(err)}
			return
		}
		st := s.newStream(ym, name, func() {})
		err = ctx.Err() // if nobody wants it any more the peer needn't see a name
		if err == nil {
			_, err = st.Write(preface)
		}
		if err != nil {
			_ = st.Close()
			c <- result{err: err}
			return
		}
		c <- result{st: st}
	})
	if !started {
		return nil, fmt.Errorf("mux: open stream %q: %w", name, s.conn.why())
	}
	select {
	case r := <-c:
		if r.err != nil {
			return nil, fmt.Errorf("mux: open stream %q: %w", name, r.err)
		}
		return r.st, nil
	case <-ctx.Done():
		// Whoever gets to it last throws the stream away.
		s.spawn(func() {
			if r := <-c; r.st != nil {
				_ = r.st.Close()
			}
		})
		return nil, fmt.Errorf("mux: open stream %q: the peer does not take it: %w", name, ctx.Err())
	}
}

// Accept waits for the next stream the peer opens. Streams opened before the
// session was closed in order are returned even after its end.
func (s *Session) Accept(ctx context.Context) (name string, conn net.Conn, err error) {
	select {
	case st := <-s.accepted:
		return st.Name(), st, nil
	default:
	}
	select {
	case st := <-s.accepted:
		return st.Name(), st, nil
	case <-ctx.Done():
		return "", nil, fmt.Errorf("mux: accept stream: %w", ctx.Err())
	case <-s.done:
	}
	select { // nothing is added any more
	case st := <-s.accepted:
		return st.Name(), st, nil
	default:
		return "", nil, fmt.Errorf("mux: accept stream: %w", s.err)
	}
}

// acceptLoop takes over the peer's streams.
func (s *Session) acceptLoop() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ym.CloseChan():
			return
		}
		ym, err := s.ym.AcceptStream()
		if err != nil {
			// The only way to learn why yamux ended by itself.
			s.yamuxErr = err
			_ = s.conn.fail(fmt.Errorf("%w: %w", errYamux, err))
			return
		}
		s.taken.Add(1)
		select {
		case s.tick <- struct{}{}:
		default:
		}
		st := s.newStream(ym, "", func() { <-s.slots })
		s.wg.Go(func() { s.takeOver(st) })
	}
}

// takeOver reads the name of a stream that the peer has opened. It may wait as
// long as the peer likes; the stream's slot is the peer's loss.
func (s *Session) takeOver(st *Stream) {
	name, err := readPreface(st)
	if err != nil {
		if s.conn.why() == nil && !errors.Is(err, io.EOF) { // EOF: the peer gave it up itself
			s.ep.log.Warn("stream refused", "epoch", s.Epoch(), "stream", st.ym.StreamID(), "err", err)
		}
		_ = st.Close()
		return
	}
	st.name = name
	s.accepted <- st // has room for every slot
}

// seen is told, by the reading goroutine, of every frame before yamux gets it.
func (s *Session) seen(f frame) {
	if f.typ == frameGoAway {
		return
	}
	if f.flags&flagSYN != 0 {
		s.opened.Add(1)
	}
	if f.flags&flagFIN != 0 {
		s.mu.Lock()
		if len(s.fins) < maxFINs {
			s.fins[f.stream] = struct{}{}
		}
		s.mu.Unlock()
	}
}

// settle waits until the streams that the peer has opened were taken over from
// yamux, which forgets those that weren't when it ends.
func (s *Session) settle() {
	ticker := time.NewTicker(settleTick)
	defer ticker.Stop()
	for n := 0; n < settleTicks && s.taken.Load() < s.opened.Load(); {
		select {
		case <-s.tick:
		case <-ticker.C:
			n++
		case <-s.conn.dead:
			return
		}
	}
}

// streamError makes an error of yamux's the session's.
func (s *Session) streamError(err error) error {
	switch {
	case errors.Is(err, yamux.ErrConnectionWriteTimeout):
		// yamux would go on, with a frame the caller thinks was not sent.
		return s.conn.fail(fmt.Errorf("the peer took nothing for too long: %w", err))
	case errors.Is(err, yamux.ErrSessionShutdown), s.conn.why() != nil:
		if cause := s.conn.why(); cause != nil {
			return cause
		}
		return ErrClosed
	case errors.Is(err, yamux.ErrConnectionReset):
		return ErrReset
	case errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed
	}
	return err
}
