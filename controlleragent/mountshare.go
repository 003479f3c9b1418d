package controlleragent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"winvm/controlleragent/mounts"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
)

// MountConfig says what MountShare mounts.
type MountConfig struct {
	Socket     string
	Share      string // nixstore or xchg
	Dir        string
	AllowOther bool
	Build      string
	Ready      func() // called when the first session serves the mount
}

// redialDelay is the pause between attempts to reach a host agent that is gone.
const redialDelay = 200 * time.Millisecond

// MountShare mounts one share of the host agent that listens on a socket, until
// ctx ends or somebody unmounts it. When the host agent goes, requests wait for the
// next one on the same socket.
func MountShare(ctx context.Context, c MountConfig, log *slog.Logger) error {
	if c.Share != fsrpc.ShareStore && c.Share != fsrpc.ShareXchg {
		return fmt.Errorf("no share %q: there are %s and %s", c.Share, fsrpc.ShareStore, fsrpc.ShareXchg)
	}
	// The first dial tells the user of a wrong path before anything is mounted.
	conn, err := dial(ctx, c.Socket)
	if err != nil {
		return fmt.Errorf("no host agent: %w; `hostagent serve --socket %s …` starts one", err, c.Socket)
	}
	cfg := mounts.Config{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), AllowOther: c.AllowOther}
	if c.Share == fsrpc.ShareStore {
		cfg.StoreDir, cfg.NoOutputs = c.Dir, true
	} else {
		cfg.XchgDir = c.Dir
	}
	m, err := mounts.Mount(cfg, log)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() {
		if err := m.Close(); err != nil {
			log.Error("unmount", "err", err)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx, which this function ends
		select {
		case <-m.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	first := true
	for {
		err := serveMount(ctx, c, conn, m, log, func() {
			if first && c.Ready != nil {
				c.Ready()
			}
			first = false
		})
		m.Detach()
		if ctx.Err() != nil {
			return nil
		}
		if first {
			return err
		}
		log.Warn("the session with the host agent ended; waiting for the next", "err", err)
		if conn, err = redial(ctx, c.Socket); err != nil {
			return nil //nolint:nilerr // ctx ended: the user unmounted or interrupted
		}
	}
}

func dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

func redial(ctx context.Context, socket string) (*net.UnixConn, error) {
	for {
		t := time.NewTimer(redialDelay)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
		if conn, err := dial(ctx, socket); err == nil {
			return conn, nil
		}
	}
}

// serveMount puts one session behind the mount and returns when it has ended.
func serveMount(ctx context.Context, c MountConfig, conn *net.UnixConn, m *mounts.Mounts, log *slog.Logger, ready func()) error {
	ep, err := mux.NewEndpoint(conn, mux.Config{Logger: log, Build: c.Build})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() { _ = ep.Close() }()
	s, err := ep.Accept(ctx)
	if err != nil {
		return err
	}
	stream, err := s.OpenBulk(ctx, fsrpc.StreamName(c.Share))
	if err != nil {
		return err
	}
	var shares mounts.Shares
	if err := attach(ctx, &shares, c.Share, stream); err != nil {
		return fmt.Errorf("share %s (does the host agent serve it?): %w", c.Share, err)
	}
	if err := m.Attach(ctx, shares); err != nil {
		return err
	}
	ready()
	select {
	case <-s.Done():
		return s.Err()
	case <-ctx.Done():
		return s.Close()
	}
}
