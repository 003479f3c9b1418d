package mux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// readBuf is the size of the buffer under everything that is read. It must hold
// a whole record and should hold what a socket has.
const readBuf = 256 << 10

// Endpoint is one end of a link and lives as long as it. All its methods may be
// called by any goroutine; there is one session, or one attempt at one, at a
// time, and further calls wait for their turn.
type Endpoint struct {
	link Link
	cfg  Config
	log  *slog.Logger

	closing chan struct{}

	// turn is held (full) by Dial or Accept and then by their session. It guards
	// br, which keeps what was read too far, and quiet.
	turn   chan struct{}
	br     *bufio.Reader
	source source // under br
	// quiet: nobody can be taking this side for a member of a session that it
	// isn't in, so there is no need for a HELLO, and after a close in order there
	// must be none.
	quiet bool

	mu      sync.Mutex
	session *Session // the newest, may have ended
	closed  bool
}

// NewEndpoint returns an endpoint that owns link.
func NewEndpoint(link Link, cfg Config) (*Endpoint, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Endpoint{
		link:    link,
		cfg:     cfg,
		log:     cfg.Logger,
		closing: make(chan struct{}),
		turn:    make(chan struct{}, 1),
		source:  source{link: link},
	}
	e.br = bufio.NewReaderSize(&e.source, readBuf)
	return e, nil
}

// A source is the link, with what was taken from it and put back in front.
type source struct {
	link io.Reader
	back []byte
	most int // of the next read from the link; 0: no limit
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.back) > 0 {
		n := copy(p, s.back)
		s.back = s.back[n:]
		return n, nil
	}
	if s.most > 0 {
		p = p[:min(len(p), s.most)]
		s.most = 0
	}
	return s.link.Read(p)
}

// Close closes the link and with it the session on it, without the courtesies of
// [Session.Shutdown], and waits until all of it has ended.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	close(e.closing)
	s := e.session
	e.mu.Unlock()

	if s != nil {
		_ = s.conn.fail(fmt.Errorf("%w: endpoint closed", ErrLink))
	}
	err := e.link.Close()
	e.turn <- struct{}{} // for ever: waits for the session, or for Dial or Accept
	if err != nil {
		return fmt.Errorf("mux: close the link: %w", err)
	}
	return nil
}

// acquire waits for the turn.
func (e *Endpoint) acquire(ctx context.Context) error {
	select {
	case <-e.closing:
		return fmt.Errorf("%w: endpoint closed", ErrLink)
	default:
	}
	select {
	case <-e.closing:
		return fmt.Errorf("%w: endpoint closed", ErrLink)
	case <-ctx.Done():
		return fmt.Errorf("another session of this endpoint hasn't ended: %w", ctx.Err())
	case e.turn <- struct{}{}:
		return nil
	}
}

func (e *Endpoint) release() { <-e.turn }

// interruptible clears the link's deadlines and lets the end of ctx break reads
// and writes. restore ends that and clears them again.
func (e *Endpoint) interruptible(ctx context.Context) (restore func()) {
	clear := func() {
		_ = e.link.SetReadDeadline(time.Time{})
		_ = e.link.SetWriteDeadline(time.Time{})
	}
	clear()
	ran := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ran)
		_ = e.link.SetReadDeadline(aLongTimeAgo)
		_ = e.link.SetWriteDeadline(aLongTimeAgo)
	})
	return func() {
		if !stop() {
			<-ran
		}
		clear()
	}
}

// record returns a resync record with what is the same in all of ours.
func (e *Endpoint) record(k kind, r role) resync {
	return resync{
		kind: k, role: r,
		minVersion: e.cfg.MinVersion, maxVersion: e.cfg.MaxVersion,
		features: e.cfg.Features, build: e.cfg.Build,
	}
}

// agree returns the version to speak with peer.
func (e *Endpoint) agree(peer *resync) (uint16, error) {
	v := min(e.cfg.MaxVersion, peer.maxVersion)
	if v < e.cfg.MinVersion || v < peer.minVersion {
		return 0, &VersionError{
			LocalMin: e.cfg.MinVersion, LocalMax: e.cfg.MaxVersion, LocalBuild: e.cfg.Build,
			PeerMin: peer.minVersion, PeerMax: peer.maxVersion, PeerBuild: peer.build,
		}
	}
	return v, nil
}

func (e *Endpoint) handshake(r role, peer *resync, version uint16) handshake {
	return handshake{role: r, version: version, features: e.cfg.Features & peer.features, peerBuild: peer.build}
}

// sessionEnded is called when all of s has ended, with the turn still held.
func (e *Endpoint) sessionEnded(s *Session, cause error) {
	// After ErrSuperseded the next SYN is there already, and a HELLO would only
	// make the host send it again.
	e.quiet = s.conn.clean() || errors.Is(cause, ErrSuperseded)
	level := slog.LevelWarn
	if errors.Is(cause, ErrClosed) {
		level = slog.LevelDebug
	}
	e.log.Log(context.Background(), level, "session ended", "epoch", s.Epoch(), "cause", cause)
}

// resyncError says why there is no session.
func resyncError(ctx context.Context, op, state string, err error) error {
	switch {
	case errors.Is(err, ErrVersion):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("mux: %s: %s: %w", op, state, ctx.Err())
	}
	return fmt.Errorf("mux: %s: %w: %s: %w", op, ErrLink, state, err)
}
