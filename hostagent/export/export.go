// Package export serves the shares of one build over a session: for every stream
// "fs/NAME" that the other side opens it runs that share's server.
//
// It is the same code for a build in a VM and for `hostagent serve`, where the
// other side is a process on the same machine.
package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"winvm/transport/fsrpc"
	"winvm/transport/mux"
)

// Shares are what is exported. A nil share does not exist.
type Shares struct {
	Store   fsrpc.Store
	Outputs fsrpc.Tree
	Xchg    fsrpc.Tree
}

// Names lists the shares that exist.
func (s Shares) Names() []string {
	var out []string
	if s.Store != nil {
		out = append(out, fsrpc.ShareStore)
	}
	if s.Outputs != nil {
		out = append(out, fsrpc.ShareOutputs)
	}
	if s.Xchg != nil {
		out = append(out, fsrpc.ShareXchg)
	}
	return out
}

// A Session is what Serve takes streams from: *mux.Session.
type Session interface {
	Accept(ctx context.Context) (name string, conn net.Conn, err error)
}

// Serve answers until the session or ctx ends, and returns when every server
// has. Streams of other names are refused.
func Serve(ctx context.Context, s Session, shares Shares, log *slog.Logger) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		name, conn, err := s.Accept(ctx)
		if err != nil {
			return err
		}
		wg.Go(func() {
			err := shares.serve(ctx, name, conn, log)
			if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, mux.ErrClosed) {
				log.Warn("share ended", "stream", name, "err", err)
			}
		})
	}
}

func (s Shares) serve(ctx context.Context, name string, conn net.Conn, log *slog.Logger) error {
	share, ok := strings.CutPrefix(name, fsrpc.StreamName(""))
	switch {
	case ok && share == fsrpc.ShareStore && s.Store != nil:
		return fsrpc.ServeStore(ctx, conn, s.Store, log)
	case ok && share == fsrpc.ShareOutputs && s.Outputs != nil:
		return fsrpc.ServeTree(ctx, conn, s.Outputs, log)
	case ok && share == fsrpc.ShareXchg && s.Xchg != nil:
		return fsrpc.ServeTree(ctx, conn, s.Xchg, log)
	default:
		_ = conn.Close()
		return fmt.Errorf("a stream called %q was opened; there is no such share", name)
	}
}
