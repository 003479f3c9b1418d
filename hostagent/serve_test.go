package hostagent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/needs"
)

// A session with the host agent that listens on a socket, as `controlleragent mount` has it.
type client struct {
	ep   *mux.Endpoint
	tree *fsrpc.TreeClient
}

func dialServe(ctx context.Context, socket string) (*client, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	ep, err := mux.NewEndpoint(conn.(*net.UnixConn), mux.Config{Build: "test"})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s, err := ep.Accept(ctx)
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	stream, err := s.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareXchg))
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	tree, err := fsrpc.AttachTree(ctx, stream)
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	return &client{ep, tree}, nil
}

func startServe(t *testing.T, xchg string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "sock")
	h := &Host{Log: slog.New(slog.DiscardHandler), Version: "test"}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, ServeOptions{Socket: socket, Xchg: xchg}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	for range 500 {
		if _, err := os.Lstat(socket); err == nil {
			return socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nobody listens")
	return ""
}

// The host is at work on a truncation when the session is cut: the next session must not
// begin before that has ended, else it would fall on what the next one writes. A lease on the
// file holds the truncation up.
func TestServeOldWorkEndsFirst(t *testing.T) {
	xchg := t.TempDir()
	path := filepath.Join(xchg, "f")
	if err := os.WriteFile(path, []byte("the old content"), 0o644); err != nil {
		t.Fatal(err)
	}
	socket := startServe(t, xchg)
	first, err := dialServe(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	a, err := first.tree.Lookup(t.Context(), fsrpc.RootNode, "f")
	if err != nil {
		t.Fatal(err)
	}
	other, err := dialServe(t.Context(), socket) // another mount, which is not to wait
	if err != nil {
		t.Fatal(err)
	}
	defer other.ep.Close()

	lease, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	if _, err := unix.FcntlInt(lease.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		needs.Missing(t, "this file system has no leases: %v", err)
	}
	cut := make(chan error, 1)
	go func() {
		_, err := first.tree.Open(context.Background(), a.Node, unix.O_WRONLY|unix.O_TRUNC)
		cut <- err
	}()
	for state := unix.F_RDLCK; state == unix.F_RDLCK; time.Sleep(time.Millisecond) { // until the host asks for it
		if state, err = unix.FcntlInt(lease.Fd(), unix.F_GETLEASE, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.ep.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-cut; err == nil {
		t.Error("the truncation was answered after the cut")
	}

	type result struct {
		c   *client
		err error
	}
	next := make(chan result, 1)
	go func() {
		c, err := dialServe(t.Context(), socket)
		next <- result{c, err}
	}()
	if _, err := other.tree.Getattr(t.Context(), fsrpc.RootNode, fsrpc.NoHandle); err != nil {
		t.Errorf("the other mount: %v", err)
	}
	select {
	case <-next:
		t.Fatal("the next session began while the host was at work for the one before")
	case <-time.After(500 * time.Millisecond):
	}
	if err := lease.Close(); err != nil {
		t.Fatal(err)
	}
	r := <-next
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.c.ep.Close()
	writeFile(t, r.c.tree, "f", "what the next session has written")
	if got, err := os.ReadFile(path); err != nil || string(got) != "what the next session has written" {
		t.Errorf("%q, %v", got, err)
	}
}

func writeFile(t *testing.T, tree fsrpc.Tree, name, content string) {
	t.Helper()
	a, err := tree.Lookup(t.Context(), fsrpc.RootNode, name)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tree.Open(t.Context(), a.Node, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Write(t.Context(), h, 0, []byte(content)); err != nil {
		t.Error(err)
	}
	if err := tree.Release(t.Context(), h); err != nil {
		t.Error(err)
	}
}
