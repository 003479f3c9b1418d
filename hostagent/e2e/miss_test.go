package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"winvm/hostagent/session"
	"winvm/transport/agentrpc"
	"winvm/transport/fsrpc"
)

// A listingCounter counts the listings that reach the host.
type listingCounter struct {
	fsrpc.Tree
	n atomic.Int64
}

func (c *listingCounter) Readdir(ctx context.Context, h fsrpc.HandleID, off uint64, limit int, attrs bool) ([]fsrpc.DirEntry, error) {
	c.n.Add(1)
	return c.Tree.Readdir(ctx, h, off, limit, attrs)
}

// Windows programs look for many names that don't exist, and for some in another
// case. Nobody lists the directory for each: not Wine, nor smbd. (The controller agent
// does after the fourth miss, in two pieces at most, to answer the others by itself for
// a second: treefs, absent.go.)
func TestMissInGuest(t *testing.T) {
	var listings *listingCounter
	count := func(xchg fsrpc.Tree) fsrpc.Tree {
		listings = &listingCounter{Tree: xchg}
		return listings
	}
	revivedWith(t, count, func(ctx context.Context, s *session.Session, xchg string) {
		for i := range 1000 {
			writeFile(t, filepath.Join(xchg, "bin", fmt.Sprintf("Library-%d.dll", i)), "")
		}
		guest := func(command, want string) {
			t.Helper()
			var out bytes.Buffer
			exit, err := s.Run(ctx, session.Exec{ExecStart: agentrpc.ExecStart{Command: command}, Stdout: &out, Stderr: &out})
			must(t, err)
			if exit.Status == nil || *exit.Status != 0 || lf(out.String()) != want {
				t.Errorf("%s: said %q and exited with %v", command, out.String(), exit)
			}
		}
		guest(`for /l %i in (1,1,10) do @if exist X:\bin\nosuch-%i.dll echo found`, "")
		guest(`for /l %i in (1,1,10) do @if exist X:\bin\no%i.dll echo found`, "") // of the form 8.3
		guest(`if exist X:\BIN\LIBRARY-7.DLL echo found`, "found\n")
		n := listings.n.Load()
		if n > 12 {
			t.Errorf("%d listings reached the host for 21 single names", n)
		}
		guest(`for %f in (X:\bin\library-77*) do @echo found`, strings.Repeat("found\n", 11))
		if listings.n.Load() == n {
			t.Error("a listing wasn't counted")
		}
	})
}
