package fsrpc_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/shm/shmtest"
	"winvm/transport/virtioserial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quietLog = slog.New(slog.DiscardHandler)

// links are the connections the suites run over.
var links = map[string]func(testing.TB) (client, server net.Conn){
	"socketpair": socketpair,
	"mux":        func(t testing.TB) (net.Conn, net.Conn) { return muxStreams(t, false) },
	"mux, lane":  func(t testing.TB) (net.Conn, net.Conn) { return muxStreams(t, true) },
}

func socketpair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	c, f, err := virtioserial.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	s, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return c, s
}

// muxStreams returns the two ends of a stream between two agents.
func muxStreams(t testing.TB, lane bool) (net.Conn, net.Conn) {
	t.Helper()
	h, g := socketpair(t)
	hcfg := mux.Config{Logger: quietLog, Build: "test"}
	gcfg := hcfg
	if lane { // of fewer slots than there are requests at times
		hcfg.Lane, gcfg.Lane = shmtest.Regions(t, 3)
	}
	host, err := mux.NewEndpoint(h.(mux.Link), hcfg)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := mux.NewEndpoint(g.(mux.Link), gcfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = host.Close(), guest.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var accepted net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		s, err := host.Dial(ctx)
		if err == nil {
			_, accepted, err = s.Accept(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	})
	s, err := guest.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if (s.Lane() != nil) != lane {
		t.Errorf("lane %v, want %v", s.Lane() != nil, lane)
	}
	c, err := s.Open(ctx, fsrpc.StreamName(fsrpc.ShareXchg))
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return c, accepted
}

// background runs a Serve until the test ends; it has to end then.
func background(t testing.TB, serve func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the server doesn't end")
		}
	})
}

// treeOver serves tree and returns a client of it.
func treeOver(t testing.TB, link func(testing.TB) (net.Conn, net.Conn), tree fsrpc.Tree) *fsrpc.TreeClient {
	t.Helper()
	cc, sc := link(t)
	background(t, func(ctx context.Context) error { return fsrpc.ServeTree(ctx, sc, tree, quietLog) })
	c, err := fsrpc.AttachTree(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// storeOver serves store and returns a client of it.
func storeOver(t testing.TB, link func(testing.TB) (net.Conn, net.Conn), store fsrpc.Store) *fsrpc.StoreClient {
	t.Helper()
	cc, sc := link(t)
	background(t, func(ctx context.Context) error { return fsrpc.ServeStore(ctx, sc, store, quietLog) })
	c, err := fsrpc.AttachStore(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var _ io.Closer = (*fsrpc.TreeClient)(nil)
