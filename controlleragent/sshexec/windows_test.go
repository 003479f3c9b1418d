package sshexec

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"winvm/transport/agentrpc"
)

// TestWindowsExits: an SSH server on Windows sends exit statuses of 32 bits and
// does what sshd on Linux can't be made to do. (sshd refuses signals for root.)
func TestWindowsExits(t *testing.T) {
	g := guest(t, fakeServer(t))
	connect(t, g)
	for _, n := range []uint32{0, 256, 300, 1<<31 - 1, 1 << 31, 0xC0000005, 1<<32 - 1} {
		begin(t, g, agentrpc.ExecStart{Command: fmt.Sprint("status ", n)}).status(n)
	}
	begin(t, g, agentrpc.ExecStart{Command: "silent"}).fails("without an exit status")
	begin(t, g, agentrpc.ExecStart{Command: "refuse"}).fails(`start "refuse" in the guest`)
	begin(t, g, agentrpc.ExecStart{Command: "status 1", PTY: &agentrpc.PTY{Term: "t", Cols: 1, Rows: 1}}).fails("terminal")
	for _, name := range []string{"INT", "TERM", "KILL"} {
		c := begin(t, g, agentrpc.ExecStart{Command: "signal"})
		c.send(agentrpc.FrameSignal, name)
		c.fails("ended by signal " + name)
	}
}

// fakeServer runs an SSH server with these commands: "status N" exits so,
// "signal" is ended by the signal it is sent, "silent" ends without a status,
// "refuse" isn't started.
func fakeServer(t *testing.T) agentrpc.GuestConfig {
	t.Helper()
	key := ed25519Key()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	_, public := keyPair(t, key)
	private, _ := keyPair(t, ed25519Key())
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	cfg.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, chans, reqs, err := ssh.NewServerConn(conn, cfg)
		if err != nil {
			t.Error(err)
			return
		}
		go ssh.DiscardRequests(reqs)
		for ch := range chans {
			wg.Go(func() { fakeSession(ch) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait() // the Guest was closed before
	})
	return agentrpc.GuestConfig{
		Addresses: []string{"127.0.0.1"}, Port: l.Addr().(*net.TCPAddr).Port, User: "u",
		HostKey: public, PrivateKey: private,
	}
}

func fakeSession(open ssh.NewChannel) {
	ch, reqs, err := open.Accept()
	if err != nil {
		return
	}
	for req := range reqs {
		var arg struct{ Value string }
		_ = ssh.Unmarshal(req.Payload, &arg)
		var status uint32
		switch {
		case req.Type == "exec" && arg.Value == "signal":
			_ = req.Reply(true, nil)
		case req.Type == "exec" && arg.Value == "silent":
			_ = req.Reply(true, nil)
			_ = ch.Close()
		case req.Type == "exec" && strings.HasPrefix(arg.Value, "status "):
			_, _ = fmt.Sscanf(arg.Value, "status %d", &status)
			_ = req.Reply(true, nil)
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			_ = ch.Close()
		case req.Type == "signal":
			_, _ = ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
				Name       string
				Dump       bool
				Text, Lang string
			}{arg.Value, false, "", ""}))
			_ = ch.Close()
		default:
			_ = req.Reply(false, nil)
		}
	}
	_ = ch.Close()
}
