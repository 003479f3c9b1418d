// Package sshexec holds the one SSH connection to the guest and runs commands
// over it.
//
// The connection is made once, before the suspend, and lives on through it: the
// TCP state of both ends is in the snapshot pair. So nothing in here may depend on
// time passing: no keep-alives, no idle limits, no deadlines on the connection once
// the handshake is done. Go's TCP keep-alive is switched off for the same reason:
// after a revive the guest's clock and ours have both stood still, but a probe in
// flight at the wrong moment would only cost a retransmission.
//
// A command can be parked: it was started before the suspend, said its first
// line, and waits for input. A build then needs no SSH channel, no shell and no new
// process to get going.
package sshexec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"winvm/transport/agentrpc"
)

// Timing of one attempt to connect. The guest is one hop away on a link without
// loss; what takes time is a guest that is still booting.
const (
	dialTimeout      = 2 * time.Second
	handshakeTimeout = 20 * time.Second // key exchange under emulation takes seconds
	retryDelay       = 100 * time.Millisecond
)

// A Guest is the SSH connection to the guest and the commands on it.
type Guest struct {
	cfg       agentrpc.GuestConfig
	clientCfg *ssh.ClientConfig
	log       *slog.Logger

	closing context.Context // ended by Close
	close   context.CancelFunc
	work    sync.WaitGroup // what spawn started

	mu     sync.Mutex // guards what follows
	closed bool
	trying chan struct{} // closed when the attempt under way has ended; nil: there is none
	client *ssh.Client
	remote string
	local  string
	state  string
	parked map[string]*process
	lost   chan error // of the connection that ended last, until there is a new one
	ping   *ping      // under way
}

// New checks the configuration. It does not connect.
func New(cfg agentrpc.GuestConfig, log *slog.Logger) (*Guest, error) {
	signer, err := ssh.ParsePrivateKey([]byte(cfg.PrivateKey))
	if err != nil {
		return nil, fmt.Errorf("guest's private key: %w", err)
	}
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cfg.HostKey))
	if err != nil {
		return nil, fmt.Errorf("guest's host key: %w", err)
	}
	if len(cfg.Addresses) == 0 || cfg.Port < 1 || cfg.Port > 65535 || cfg.User == "" {
		return nil, errors.New("guest: address, port and user are needed")
	}
	closing, end := context.WithCancel(context.Background())
	return &Guest{
		closing: closing,
		close:   end,
		cfg:     cfg,
		clientCfg: &ssh.ClientConfig{
			User:              cfg.User,
			Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
			HostKeyCallback:   ssh.FixedHostKey(hostKey),
			HostKeyAlgorithms: algorithms(hostKey),
		},
		log:    log,
		state:  "not tried yet",
		parked: map[string]*process{},
		lost:   make(chan error, 1),
	}, nil
}

// algorithms returns the signatures that a host key can make. An RSA key makes
// several; the last is for servers of Windows XP's time.
func algorithms(hostKey ssh.PublicKey) []string {
	if t := hostKey.Type(); t != ssh.KeyAlgoRSA {
		return []string{t}
	}
	return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
}

// State tells of the connection without trying to make one.
func (g *Guest) State() agentrpc.GuestResponse {
	g.mu.Lock()
	defer g.mu.Unlock()
	return agentrpc.GuestResponse{Connected: g.client != nil, Local: g.local, Remote: g.remote, State: g.state}
}

// Connect returns when there is a connection, or with what was last seen when
// ctx ends. An attempt that is under way then goes on: a handshake that takes
// longer than any caller waits still makes a connection.
func (g *Guest) Connect(ctx context.Context) agentrpc.GuestResponse {
	for {
		done := g.attempt()
		if done == nil {
			return g.State()
		}
		select {
		case <-ctx.Done():
			return g.State()
		case <-done:
		}
		if s := g.State(); s.Connected {
			return s
		}
		t := time.NewTimer(retryDelay)
		select {
		case <-ctx.Done():
			t.Stop()
			return g.State()
		case <-t.C:
		}
	}
}

// attempt returns the end of the attempt to connect that is under way, which it
// starts if there is none; nil if there is a connection or can't be one any more.
func (g *Guest) attempt() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.client != nil || g.closed {
		return nil
	}
	if g.trying == nil {
		done := make(chan struct{})
		g.trying = done
		g.work.Go(func() {
			err := g.try(g.closing)
			g.mu.Lock()
			defer g.mu.Unlock()
			if err != nil {
				g.state = describe(err)
			}
			g.trying = nil
			close(done)
		})
	}
	return g.trying
}

// spawn runs f in a goroutine that Close waits for. It reports whether it did:
// not after Close.
func (g *Guest) spawn(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.work.Go(f)
	}
	return !g.closed
}

func (g *Guest) setState(s string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = s
}

// try makes one attempt over all addresses at once; the first to take the TCP
// connection is used.
func (g *Guest) try(ctx context.Context) error {
	conn, err := g.dial(ctx)
	if err != nil {
		return err
	}
	g.setState(fmt.Sprintf("%s takes connections, waiting for its SSH handshake", conn.RemoteAddr()))
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	sc, chans, reqs, err := ssh.NewClientConn(conn, conn.RemoteAddr().String(), g.clientCfg)
	if !stop() && err == nil {
		err = ctx.Err()
		_ = sc.Close()
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("SSH to %s: %w", conn.RemoteAddr(), err)
	}
	_ = conn.SetDeadline(time.Time{})
	g.adopt(conn, ssh.NewClient(sc, chans, reqs))
	return nil
}

// adopt makes client the connection.
func (g *Guest) adopt(conn net.Conn, client *ssh.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		_ = client.Close()
		return
	}
	g.client, g.local, g.remote, g.state = client, conn.LocalAddr().String(), conn.RemoteAddr().String(), "connected"
	select {
	case old := <-g.lost:
		g.log.Debug("nobody asked about the end of the former SSH connection", "err", old)
	default:
	}
	g.work.Go(func() { g.watch(client) })
}

// watch forgets the connection when it ends, and the commands that were parked on
// it.
func (g *Guest) watch(client *ssh.Client) {
	err := client.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.client != client { // Close
		return
	}
	g.client, g.local, g.remote = nil, "", ""
	clear(g.parked)
	g.state = fmt.Sprintf("the SSH connection ended: %v", err)
	g.log.Warn("SSH connection to the guest ended", "err", err)
	select {
	case g.lost <- err:
	default: // nobody took the last one yet
	}
}

// Lost delivers the error of a connection that ended without being asked to.
func (g *Guest) Lost() <-chan error { return g.lost }

type dialed struct {
	conn net.Conn
	err  error
}

func (g *Guest) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	results := make(chan dialed)
	for _, a := range g.cfg.Addresses {
		go func() {
			c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a, strconv.Itoa(g.cfg.Port)))
			results <- dialed{c, err}
		}()
	}
	var won net.Conn
	var errs []error
	for range g.cfg.Addresses {
		r := <-results
		switch {
		case r.err != nil:
			errs = append(errs, r.err)
		case won != nil:
			_ = r.conn.Close()
		default:
			won = r.conn
			cancel()
		}
	}
	if won == nil {
		return nil, errors.Join(errs...)
	}
	return won, nil
}

// describe turns the errors of one attempt into one line.
func describe(err error) string {
	var out []byte
	for _, b := range []byte(err.Error()) {
		if b == '\n' {
			out = append(out, "; "...)
			continue
		}
		out = append(out, b)
	}
	return string(out)
}

// Ping returns when the guest's SSH server has answered: a request that no server knows
// and each has to refuse (RFC 4254, 4). While it hasn't, further calls wait for the same
// answer.
func (g *Guest) Ping(ctx context.Context) error {
	g.mu.Lock()
	if g.client == nil {
		defer g.mu.Unlock()
		return fmt.Errorf("no SSH connection to the guest: %s", g.state)
	}
	if g.ping == nil || g.ping.client != g.client {
		p := &ping{client: g.client, done: make(chan struct{})}
		g.ping = p
		g.work.Go(func() {
			_, _, p.err = p.client.SendRequest("keepalive@winvm", true, nil)
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.ping == p {
				g.ping = nil
			}
			close(p.done)
		})
	}
	p := g.ping
	g.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A ping is a question that the guest's SSH server has not answered yet.
type ping struct {
	client *ssh.Client
	done   chan struct{}
	err    error // set before done is closed
}

func (g *Guest) current() (*ssh.Client, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.client == nil {
		return nil, fmt.Errorf("no SSH connection to the guest: %s", g.state)
	}
	return g.client, nil
}

// Close ends the connection and with it every command on it. There will be no
// other.
func (g *Guest) Close() {
	g.mu.Lock()
	client := g.client
	g.client, g.closed, g.state = nil, true, "closed"
	clear(g.parked)
	g.mu.Unlock()
	g.close()
	if client != nil {
		_ = client.Close()
	}
	g.work.Wait()
}
