package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"winvm/hostagent/guest"
)

// handshakeLimit bounds one attempt: a key exchange under emulation takes seconds.
const handshakeLimit = 20 * time.Second

// ssh logs in to the guest over what dial returns, and tries again until ctx ends.
// Each attempt has limit, since a guest that is booting may take a connection and never
// answer.
func (w *Windows) ssh(ctx context.Context, i *Image, limit time.Duration, dial func(context.Context) (net.Conn, error)) (commander, error) {
	key, err := ssh.ParsePrivateKey([]byte(i.secrets.ClientKey))
	if err != nil {
		return nil, err
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(i.secrets.HostPub))
	if err != nil {
		return nil, err
	}
	cfg := &ssh.ClientConfig{
		User: i.profile.SSH.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.FixedHostKey(host), HostKeyAlgorithms: []string{host.Type()},
	}
	for {
		c, err := attempt(ctx, cfg, limit, dial)
		if err == nil {
			w.atEnd(func() { _ = c.Close() })
			return &sshCommander{c: c, w: w}, nil
		}
		if e := pause(ctx); e != nil {
			return nil, fmt.Errorf("%w (last: %w)", e, err)
		}
	}
}

func attempt(ctx context.Context, cfg *ssh.ClientConfig, limit time.Duration, dial func(context.Context) (net.Conn, error)) (*ssh.Client, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(limit))
	c, chans, reqs, err := ssh.NewClientConn(conn, guest.GuestIPv4, cfg)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return ssh.NewClient(c, chans, reqs), nil
}

// An sshCommander runs commands over a connection of its own.
type sshCommander struct {
	c *ssh.Client
	w *Windows
}

func (c *sshCommander) run(ctx context.Context, command string) error {
	s, err := c.c.NewSession()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if out, err := s.CombinedOutput(command); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (c *sshCommander) start(command string) (io.Writer, io.Reader, error) {
	s, err := c.c.NewSession()
	if err != nil {
		return nil, nil, err
	}
	s.Stderr = os.Stderr
	in, err := s.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := s.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	c.w.atEnd(func() { _ = s.Close() })
	return in, out, s.Start(command)
}
