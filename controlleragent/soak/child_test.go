package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"winvm/controlleragent/mounts"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
)

const childEnv = "WINVM_SOAK_CHILD"

// runChild is a controller agent without VM, guest and smbd: it mounts on DIR/store and
// DIR/xchg what the host agents serve that listen on the socket, one after the other,
// until its standard input ends.
func runChild(socket, dir string) error {
	log := slog.New(slog.DiscardHandler)
	m, err := mounts.Mount(mounts.Config{
		StoreDir: filepath.Join(dir, "store"), XchgDir: filepath.Join(dir, "xchg"),
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
	}, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	first := true
	for ctx.Err() == nil {
		if err := serveLink(ctx, socket, m, log, func() {
			if first {
				fmt.Println("mounted")
			}
			first = false
		}); first && ctx.Err() == nil {
			return errors.Join(err, m.Close())
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return m.Close()
}

// serveLink puts sessions behind the mounts until the link ends.
func serveLink(ctx context.Context, socket string, m *mounts.Mounts, log *slog.Logger, ready func()) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	ep, err := mux.NewEndpoint(conn.(*net.UnixConn), mux.Config{Logger: log, Build: "soak"})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() { _ = ep.Close() }()
	for {
		s, err := ep.Accept(ctx)
		if errors.Is(err, mux.ErrLink) || errors.Is(err, mux.ErrPeerGone) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			continue
		}
		err = serveSession(ctx, s, m, ready)
		m.Detach()
		_ = s.Close()
		if errors.Is(err, mux.ErrPeerGone) {
			return err
		}
	}
}

func serveSession(ctx context.Context, s *mux.Session, m *mounts.Mounts, ready func()) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var shares mounts.Shares
	for _, name := range []string{fsrpc.ShareStore, fsrpc.ShareOutputs, fsrpc.ShareXchg} {
		conn, err := s.OpenBulk(ctx, fsrpc.StreamName(name))
		if err != nil {
			return err
		}
		switch name {
		case fsrpc.ShareStore:
			shares.Store, err = fsrpc.AttachStore(ctx, conn)
		case fsrpc.ShareOutputs:
			shares.Outputs, err = fsrpc.AttachTree(ctx, conn)
		default:
			shares.Xchg, err = fsrpc.AttachTree(ctx, conn)
		}
		if err != nil {
			return err
		}
	}
	if err := m.Attach(ctx, shares); err != nil {
		return err
	}
	ready()
	<-s.Done()
	return s.Err()
}

// startChild runs a controller agent in another process and returns where it mounts.
func startChild(t testing.TB, socket string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{"store", "xchg"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], socket, dir)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the controller agent: %v", err)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "mounted\n" {
		t.Fatalf("no mount: %q, %v", line, err)
	}
	return dir
}
