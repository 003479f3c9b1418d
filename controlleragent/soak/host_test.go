package soak

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"winvm/hostagent/export"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/nixstore"
	"winvm/transport/mux"
	"winvm/transport/virtioserial"
)

// outName is the one name in the share outputs.
const outName = "out"

// dirs are the directories of the host that are shared.
type dirs struct{ store, outputs, xchg string }

// A host serves one controller agent, one host agent after the other.
type host struct {
	t     testing.TB
	dirs  dirs
	store *nixstore.Store
	l     *virtioserial.Listener

	injected atomic.Int64 // faults so far
	// began is what injected was when the present session began: an error is
	// excused by a fault since then.
	began    atomic.Int64
	sessions atomic.Int64
	kinds    [faults]atomic.Int64

	mu   sync.Mutex
	link *link
	mux  *mux.Session

	rnd *rand.Rand // faultsLoop's alone
}

func startHost(ctx context.Context, t testing.TB, wg *sync.WaitGroup, socket string, d dirs, store *nixstore.Store, seed uint64) *host {
	l, err := virtioserial.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dirs: d, store: store, l: l, rnd: rand.New(rand.NewPCG(seed, 1))}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	links := rand.New(rand.NewPCG(seed, 3))
	wg.Go(func() {
		defer stop()
		for ctx.Err() == nil {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			h.serveLink(ctx, conn, links.Uint64())
		}
	})
	return h
}

// serveLink serves sessions on one connection until that ends.
func (h *host) serveLink(ctx context.Context, conn *net.UnixConn, seed uint64) {
	ln := &link{UnixConn: conn, rnd: rand.New(rand.NewPCG(seed, 2))}
	log := slog.New(slog.DiscardHandler)
	ep, err := mux.NewEndpoint(ln, mux.Config{Logger: log, Build: "soak"})
	if err != nil {
		h.t.Error(err)
		return
	}
	defer func() { _ = ep.Close() }()
	for ctx.Err() == nil {
		before := h.injected.Load()
		dial, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := ep.Dial(dial)
		cancel()
		if err != nil {
			return
		}
		h.serveSession(ctx, ln, s, before)
	}
}

func (h *host) serveSession(ctx context.Context, ln *link, s *mux.Session, before int64) {
	outputs, err := hostfs.New(hostfs.Config{Root: h.dirs.outputs, Names: []string{outName}})
	if err != nil {
		h.t.Error(err)
		return
	}
	xchg, err := hostfs.New(hostfs.Config{Root: h.dirs.xchg})
	if err != nil {
		h.t.Error(err)
		return
	}
	h.mu.Lock()
	h.link, h.mux = ln, s
	abort := func() { s.Abort(mux.ErrPeerGone) }
	ln.torn.Store(&abort)
	h.mu.Unlock()
	h.began.Store(before)
	h.sessions.Add(1)
	log := slog.New(slog.DiscardHandler)
	_ = export.Serve(ctx, s, export.Shares{Store: h.store, Outputs: outputs, Xchg: xchg}, log)
	_ = s.Close()
	_, _ = outputs.Close(), xchg.Close()
}

// inject lets a fault happen to the present session.
func (h *host) inject() {
	h.mu.Lock()
	ln, s, f := h.link, h.mux, fault(1+h.rnd.IntN(int(faults)-1))
	h.mu.Unlock()
	if ln == nil {
		return
	}
	h.injected.Add(1)
	h.kinds[f].Add(1)
	switch f {
	case faultCut:
		_ = ln.Close()
	case faultRestart:
		_ = s.Close()
	default:
		ln.next.Store(int32(f))
	}
}

// faultsLoop injects faults until ctx ends.
func (h *host) faultsLoop(ctx context.Context, every time.Duration) {
	for {
		h.mu.Lock()
		wait := every/2 + time.Duration(h.rnd.Int64N(int64(every)))
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			h.inject()
		}
	}
}

// hostPath is where on the host a path in the mounts lies.
func (d dirs) xchgDir(name string) string    { return filepath.Join(d.xchg, name) }
func (d dirs) outputsDir(name string) string { return filepath.Join(d.outputs, outName, name) }
