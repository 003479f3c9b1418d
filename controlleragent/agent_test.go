package controlleragent

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"winvm/controlleragent/samba"
	"winvm/controlleragent/sshexec"
	"winvm/transport/agentrpc"
	"winvm/transport/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newGuest is a guest that nobody connects to.
func newGuest(t *testing.T) *sshexec.Guest {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "test")
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	g, err := sshexec.New(agentrpc.GuestConfig{
		Addresses: []string{"127.0.0.1"}, Port: 1, User: "nobody",
		HostKey: string(ssh.MarshalAuthorizedKey(host)), PrivateKey: string(pem.EncodeToMemory(block)),
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func startSMBD(t *testing.T) *samba.Server {
	t.Helper()
	needs.Root(t)
	needs.Tool(t, "smbd")
	needs.Tool(t, "smbpasswd")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	dir, err := os.MkdirTemp("", "smb") // short: smbd makes sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := samba.Start(t.Context(), samba.Config{
		Dir: dir, Interfaces: []string{"127.0.0.1"}, Port: port, MinProtocol: "SMB3_11",
		User: "nobody", Password: "secret", Shares: []samba.Share{{Name: "one", Path: t.TempDir()}},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// A host agent that watches is told when smbd dies, and of nothing before.
func TestWatchTellsOfSMBD(t *testing.T) {
	s := startSMBD(t)
	h := &handler{agent: &agent{smbd: s, guest: newGuest(t), log: slog.New(slog.DiscardHandler)}}
	quiet, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if r, err := h.Watch(quiet); err == nil {
		t.Fatalf("told while nothing was wrong: %q", r.Failure)
	}
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := h.Watch(ctx)
	if err != nil || !strings.Contains(r.Failure, "SMB server") || !strings.Contains(r.Failure, "killed") {
		t.Errorf("told %q, %v", r.Failure, err)
	}
}

// Agents of different versions name both.
func TestHelloRefusesOtherVersion(t *testing.T) {
	h := &handler{agent: &agent{}}
	_, err := h.Hello(t.Context(), agentrpc.HelloRequest{Version: agentrpc.Version + 1})
	if err == nil || !strings.Contains(err.Error(), "hostagent suspend") {
		t.Errorf("Hello: %v", err)
	}
	_, err = h.Hello(t.Context(), agentrpc.HelloRequest{Version: agentrpc.Version, Seed: make([]byte, 3)})
	if err == nil || !strings.Contains(err.Error(), "seed") {
		t.Errorf("a short seed: %v", err)
	}
}
