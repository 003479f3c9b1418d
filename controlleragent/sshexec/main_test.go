package sshexec

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"winvm/transport/agentrpc"
	"winvm/transport/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quietLog = slog.New(slog.DiscardHandler)

// patience is how long anything may take; under load OpenSSH is slow.
const patience = 60 * time.Second

// A server is an sshd of our own, reached through a relay that can be cut and
// stalled like the link to a guest that dies.
type server struct {
	relay  *relay
	config agentrpc.GuestConfig
}

// start runs an sshd for the current user, with a host key of that kind.
func start(t *testing.T, hostKey crypto.PrivateKey) *server {
	t.Helper()
	dir := t.TempDir()
	_, clientKey, _ := ed25519.GenerateKey(rand.Reader)
	hostPEM, hostPublic := keyPair(t, hostKey)
	clientPEM, clientPublic := keyPair(t, clientKey)
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	runSSHD(t, addr, write("sshd_config", strings.Join([]string{
		"ListenAddress 127.0.0.1", "Port " + port, "PidFile none", "HostKey " + write("host_key", hostPEM),
		"AuthorizedKeysFile " + write("authorized_keys", clientPublic), "StrictModes no", "UsePAM no",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin yes",
		"UseDNS no", "MaxSessions 50", "MaxStartups 100", "AllowUsers " + me.Username, "",
	}, "\n")))
	r := newRelay(t, addr)
	return &server{relay: r, config: agentrpc.GuestConfig{
		Addresses: []string{"127.0.0.1"}, Port: r.port(), User: me.Username,
		HostKey: hostPublic, PrivateKey: clientPEM,
	}}
}

func keyPair(t *testing.T, key crypto.PrivateKey) (private, public string) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

func ed25519Key() crypto.PrivateKey {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	return &key
}

func rsaKey(t *testing.T) crypto.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// runSSHD runs sshd until the test ends; it returns when it listens on addr.
func runSSHD(t *testing.T, addr, config string) {
	t.Helper()
	path := "/usr/sbin/sshd" // not on everybody's PATH
	if _, err := os.Stat(path); err != nil {
		path = needs.Tool(t, "sshd")
	}
	if os.Geteuid() == 0 {
		// Where root's sshd locks itself in; Debian's service makes it, too.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.Command(path, "-D", "-e", "-f", config)
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // also until the sessions' processes have let go of stderr
		if t.Failed() {
			t.Logf("sshd said:\n%s", log.String())
		}
	})
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("sshd doesn't listen: %v", err)
		}
	}
}

// freeAddr returns an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// guest returns a Guest for config that is closed with the test.
func guest(t *testing.T, config agentrpc.GuestConfig) *Guest {
	t.Helper()
	g, err := New(config, quietLog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { soon(t, "Close", g.Close) })
	return g
}

// connected starts an sshd and returns a Guest that is connected to it.
func connected(t *testing.T) (*Guest, *server) {
	t.Helper()
	s := start(t, ed25519Key())
	g := guest(t, s.config)
	connect(t, g)
	return g, s
}

func connect(t *testing.T, g *Guest) agentrpc.GuestResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := g.Connect(ctx)
	if !r.Connected {
		t.Fatalf("no connection: %s", r.State)
	}
	return r
}

// soon fails the test if f doesn't return.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s doesn't return", what)
	}
}

// A command is one exec stream, seen from the host.
type command struct {
	t      *testing.T
	conn   *agentrpc.ExecConn
	cancel context.CancelFunc
	served chan struct{}

	stdout, stderr bytes.Buffer
}

// begin opens an exec stream and sends the start frame.
func begin(t *testing.T, g *Guest, s agentrpc.ExecStart) *command {
	t.Helper()
	host, controller := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	c := &command{t: t, conn: agentrpc.NewExecConn(host), cancel: cancel, served: make(chan struct{})}
	go func() {
		defer close(c.served)
		g.Serve(ctx, agentrpc.NewExecConn(controller))
	}()
	t.Cleanup(func() {
		cancel()
		_ = c.conn.Close()
		c.ended()
	})
	if err := c.conn.WriteJSON(agentrpc.FrameStart, s); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *command) send(kind agentrpc.FrameKind, payload string) {
	c.t.Helper()
	if err := c.conn.Write(kind, []byte(payload)); err != nil {
		c.t.Fatal(err)
	}
}

// ended waits until Serve has returned.
func (c *command) ended() {
	c.t.Helper()
	soon(c.t, "Serve", func() { <-c.served })
}

// until reads output until standard output holds text.
func (c *command) until(text string) {
	c.t.Helper()
	for !strings.Contains(c.stdout.String(), text) {
		if exit, ended := c.next(); ended {
			c.t.Fatalf("it ended with %+v and said %q, %q; want %q", exit, &c.stdout, &c.stderr, text)
		}
	}
}

// next takes one frame.
func (c *command) next() (agentrpc.ExecExit, bool) {
	c.t.Helper()
	kind, payload, err := c.conn.Read()
	if err != nil {
		c.t.Fatalf("the stream ended without an exit: %v", err)
	}
	var exit agentrpc.ExecExit
	switch kind {
	case agentrpc.FrameStdout:
		c.stdout.Write(payload)
	case agentrpc.FrameStderr:
		c.stderr.Write(payload)
	case agentrpc.FrameExit:
		if err := json.Unmarshal(payload, &exit); err != nil {
			c.t.Fatal(err)
		}
	default:
		c.t.Fatalf("frame of kind %d", kind)
	}
	return exit, kind == agentrpc.FrameExit
}

// exit reads to the end; after the exit frame there is nothing.
func (c *command) exit() agentrpc.ExecExit {
	c.t.Helper()
	for {
		exit, ended := c.next()
		if !ended {
			continue
		}
		if kind, _, err := c.conn.Read(); !errors.Is(err, io.EOF) {
			c.t.Errorf("after the exit frame: kind %d, %v", kind, err)
		}
		c.ended()
		return exit
	}
}

// status wants an exit status.
func (c *command) status(want uint32) {
	c.t.Helper()
	exit := c.exit()
	if exit.Status == nil || *exit.Status != want || exit.Error != "" || exit.Parked {
		c.t.Errorf("exit %s, want status %d; stderr %q", show(exit), want, &c.stderr)
	}
}

// fails wants an exit without a status, whose error holds text.
func (c *command) fails(text string) {
	c.t.Helper()
	exit := c.exit()
	if exit.Status != nil || exit.Parked || !strings.Contains(exit.Error, text) {
		c.t.Errorf("exit %s, want an error with %q", show(exit), text)
	}
}

func show(e agentrpc.ExecExit) string {
	b, err := json.Marshal(e)
	return fmt.Sprint(string(b), err)
}
