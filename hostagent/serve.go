package hostagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"winvm/hostagent/event"
	"winvm/hostagent/export"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/nixstore"
	"winvm/transport/capture"
	"winvm/transport/mux"
	"winvm/transport/virtioserial"
)

// ServeOptions say what Serve serves, and where.
type ServeOptions struct {
	Socket string
	Store  string // "" = no share nixstore
	Inputs []string
	Xchg   string // "" = no share xchg
	// DebugSocket is a path for a socket that gives captures of the sessions; "" = none.
	DebugSocket string
}

// Serve serves the shares to whoever connects to the socket, until ctx ends.
// Every connection is a session of its own; `controlleragent mount` makes them.
func (h *Host) Serve(ctx context.Context, o ServeOptions) error {
	if o.Store == "" && o.Xchg == "" {
		return errors.New("nothing to serve: give --store, --xchg or both")
	}
	if _, err := hostfs.RaiseFileLimit(); err != nil {
		return err
	}
	if o.Xchg != "" {
		if st, err := os.Stat(o.Xchg); err != nil {
			return fmt.Errorf("--xchg: %w", err)
		} else if !st.IsDir() {
			return fmt.Errorf("--xchg %s is not a directory", o.Xchg)
		}
	}
	var shares export.Shares
	if o.Store != "" {
		paths, err := nixstore.Closure(ctx, o.Store, o.Inputs)
		if err != nil {
			return err
		}
		store, err := nixstore.Open(ctx, o.Store, paths, h.manifests(), h.Log)
		if err != nil {
			return err
		}
		defer func() { _ = store.Close() }()
		shares.Store = store
	}
	tap, err := capture.Listen(ctx, o.DebugSocket, mux.SideHost)
	if err != nil {
		return fmt.Errorf("--debug-socket: %w", err)
	}
	defer tap.Close()
	l, err := virtioserial.Listen(o.Socket)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	h.Report.Stage("serve", "listening on %s", o.Socket)
	var conns connections
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", o.Socket, err)
		}
		before, ended := conns.add(conn)
		wg.Go(func() {
			defer ended()
			if err := h.serveOne(ctx, tap.Wrap(conn), before, shares, o.Xchg); err != nil && ctx.Err() == nil {
				h.Report.Tell(event.KindWarning, "a session ended: %v", err)
			}
		})
	}
}

// serveOne serves one connection, when those before are done with. NodeIDs and handles
// belong to a session, so each has an export of xchg of its own.
func (h *Host) serveOne(ctx context.Context, conn mux.Link, before []<-chan struct{}, shares export.Shares, xchg string) error {
	for _, done := range before {
		select {
		case <-done:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), conn.Close())
		}
	}
	ep, err := mux.NewEndpoint(conn, mux.Config{Logger: h.Log, Build: h.Version})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() { _ = ep.Close() }()
	if xchg != "" {
		tree, err := hostfs.New(hostfs.Config{Root: xchg, Logger: h.Log})
		if err != nil {
			return err
		}
		defer func() { _ = tree.Close() }()
		shares.Xchg = tree
	}
	s, err := ep.Dial(ctx)
	if err != nil {
		return err
	}
	err = export.Serve(ctx, s, shares, h.Log)
	if errors.Is(err, mux.ErrClosed) || errors.Is(err, mux.ErrPeerGone) {
		return nil
	}
	return err
}
