package sshexec

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"winvm/transport/agentrpc"
)

func TestConnect(t *testing.T) {
	g, s := connected(t)
	first := g.State()
	if first.State != "connected" || first.Remote != s.relay.listener.Addr().String() || !strings.HasPrefix(first.Local, "127.0.0.1:") {
		t.Errorf("%+v", first)
	}
	if again := connect(t, g); again != first {
		t.Errorf("connected again: %+v, was %+v", again, first)
	}
}

func TestConnectRSA(t *testing.T) {
	s := start(t, rsaKey(t))
	connect(t, guest(t, s.config))
}

// The first of several addresses that answers is used.
func TestConnectManyAddresses(t *testing.T) {
	s := start(t, ed25519Key())
	s.config.Addresses = []string{"127.0.0.2", "::1", "127.0.0.1"} // nobody listens on the others
	connect(t, guest(t, s.config))
}

func TestBadConfig(t *testing.T) {
	private, public := keyPair(t, ed25519Key())
	good := agentrpc.GuestConfig{Addresses: []string{"127.0.0.1"}, Port: 22, User: "u", HostKey: public, PrivateKey: private}
	if g, err := New(good, quietLog); err != nil {
		t.Errorf("%v", err)
	} else {
		g.Close()
		g.Close() // again is no harm
	}
	for what, change := range map[string]func(*agentrpc.GuestConfig){
		"address":     func(c *agentrpc.GuestConfig) { c.Addresses = nil },
		"port":        func(c *agentrpc.GuestConfig) { c.Port = 65536 },
		"no port":     func(c *agentrpc.GuestConfig) { c.Port = 0 },
		"user":        func(c *agentrpc.GuestConfig) { c.User = "" },
		"host key":    func(c *agentrpc.GuestConfig) { c.HostKey = "no key" },
		"private key": func(c *agentrpc.GuestConfig) { c.PrivateKey = "no key" },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad, quietLog); err == nil || !strings.Contains(err.Error(), "guest") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What was last seen on the way to a guest that can't be reached.
func TestNotConnected(t *testing.T) {
	s := start(t, ed25519Key())
	_, otherPublic := keyPair(t, ed25519Key())
	otherPrivate, _ := keyPair(t, ed25519Key())
	_, rsaPublic := keyPair(t, rsaKey(t))
	closed := freeAddr(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	rude := newRelay(t, closed) // takes connections and drops them
	port := func(a net.Addr) int { return a.(*net.TCPAddr).Port }
	closedAddr, err := net.ResolveTCPAddr("tcp", closed)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what   string
		change func(*agentrpc.GuestConfig)
		state  string
	}{
		{"another host key", func(c *agentrpc.GuestConfig) { c.HostKey = otherPublic }, "host key mismatch"},
		{"a host key of another kind", func(c *agentrpc.GuestConfig) { c.HostKey = rsaPublic }, "no common algorithm for host key"},
		{"another private key", func(c *agentrpc.GuestConfig) { c.PrivateKey = otherPrivate }, "unable to authenticate"},
		{"another user", func(c *agentrpc.GuestConfig) { c.User = "nobody-there" }, "unable to authenticate"},
		{"a closed port", func(c *agentrpc.GuestConfig) { c.Port = port(closedAddr) }, "connection refused"},
		{"a silent server", func(c *agentrpc.GuestConfig) { c.Port = port(silent.Addr()) }, "waiting for its SSH handshake"},
		{"a server that hangs up", func(c *agentrpc.GuestConfig) { c.Port = rude.port() }, "EOF"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			config := s.config
			tt.change(&config)
			g := guest(t, config)
			// Until the state says it: the first attempts may still be under way.
			var r agentrpc.GuestResponse
			for end := time.Now().Add(patience); !strings.Contains(r.State, tt.state) && time.Now().Before(end); {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				r = g.Connect(ctx)
				cancel()
			}
			if r.Connected || r.Local != "" || !strings.Contains(r.State, tt.state) || strings.Contains(r.State, "\n") {
				t.Errorf("%+v, want a state with %q", r, tt.state)
			}
			begin(t, g, agentrpc.ExecStart{Command: "true"}).fails("no SSH connection to the guest: ")
		})
	}
}

// A handshake that takes longer than the caller waits makes a connection all the
// same, and several callers share it.
func TestSlowHandshake(t *testing.T) {
	s := start(t, ed25519Key())
	s.relay.stall(true)
	g := guest(t, s.config)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if r := g.Connect(ctx); r.Connected {
			t.Errorf("%+v", r)
		}
		cancel()
	}
	if r := g.State(); !strings.Contains(r.State, "handshake") {
		t.Errorf("%+v", r)
	}
	s.relay.stall(false)
	connect(t, g)
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	if n := len(s.relay.conns) / 2; n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

// Close ends an attempt that is under way.
func TestCloseWhileConnecting(t *testing.T) {
	s := start(t, ed25519Key())
	s.relay.stall(true)
	g := guest(t, s.config)
	done := make(chan agentrpc.GuestResponse, 1)
	go func() { done <- g.Connect(t.Context()) }()
	for !strings.Contains(g.State().State, "handshake") {
		time.Sleep(time.Millisecond)
	}
	soon(t, "Close", g.Close)
	soon(t, "Connect", func() {
		if r := <-done; r.Connected {
			t.Errorf("%+v", r)
		}
	})
	if r := g.Connect(t.Context()); r.Connected {
		t.Errorf("connected after Close: %+v", r)
	}
}

// The connection ends: commands fail, Lost tells, parked commands are gone, and
// there can be a new connection.
func TestConnectionLost(t *testing.T) {
	g, s := connected(t)
	parked := begin(t, g, agentrpc.ExecStart{Command: "echo ready; cat", Park: "p"})
	if exit := parked.exit(); !exit.Parked {
		t.Fatalf("%s", show(exit))
	}
	c := begin(t, g, agentrpc.ExecStart{Command: "echo running; cat"})
	c.until("running")
	waiting := begin(t, g, agentrpc.ExecStart{Command: "cat", Park: "q"})
	s.relay.cut()
	c.fails("without an exit status")
	waiting.fails("")
	select {
	case err := <-g.Lost():
		if err == nil {
			t.Error("Lost delivers no error")
		}
	case <-time.After(patience):
		t.Fatal("Lost delivers nothing")
	}
	if r := g.State(); r.Connected || !strings.Contains(r.State, "the SSH connection ended") {
		t.Errorf("%+v", r)
	}
	connect(t, g)
	begin(t, g, agentrpc.ExecStart{Attach: "p"}).fails("no command is parked")
	begin(t, g, agentrpc.ExecStart{Command: "exit 4"}).status(4)
	again := begin(t, g, agentrpc.ExecStart{Command: "echo ready; cat", Park: "p"})
	if exit := again.exit(); !exit.Parked {
		t.Errorf("%s", show(exit))
	}
}

// A loss that nobody asked about is not told of the next connection.
func TestOldLossIsForgotten(t *testing.T) {
	g, s := connected(t)
	for range 2 {
		s.relay.cut()
		for g.State().Connected {
			time.Sleep(time.Millisecond)
		}
		connect(t, g)
	}
	select {
	case err := <-g.Lost():
		t.Errorf("%v", err)
	default:
	}
	soon(t, "Close", g.Close)
	select {
	case err := <-g.Lost():
		t.Errorf("after Close: %v", err)
	default:
	}
}

// The guest's SSH server answers over the one connection, as long as that passes bytes.
func TestPing(t *testing.T) {
	g, s := connected(t)
	for range 3 {
		if err := g.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.relay.stall(true)
	for range 2 { // both wait for one answer
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := g.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no byte passes, and Ping returns %v", err)
		}
		cancel()
	}
	s.relay.stall(false)
	if err := g.Ping(t.Context()); err != nil {
		t.Errorf("after the stall: %v", err)
	}
	g.Close()
	if err := g.Ping(t.Context()); err == nil {
		t.Error("closed, and it answers")
	}
}
