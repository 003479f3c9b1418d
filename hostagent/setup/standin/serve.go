package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// network gives the one network adapter its address.
func network(address string) error {
	ip, subnet, err := net.ParseCIDR(address)
	if err != nil {
		return err
	}
	name, err := waitFor("network adapter", "/sys/class/net/e*")
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	for _, step := range []struct {
		request uint
		value   net.IP
	}{{unix.SIOCSIFADDR, ip.To4()}, {unix.SIOCSIFNETMASK, net.IP(subnet.Mask)}} {
		r, err := unix.NewIfreq(filepath.Base(name))
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(step.value); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, step.request, r); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	r, err := unix.NewIfreq(filepath.Base(name))
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// serve is the SSH server. A firewall that isn't open lets nobody reach it.
func serve(s state) error {
	if err := network(s.Address); err != nil {
		return err
	}
	if !s.Port22 {
		return errors.New("the firewall is closed")
	}
	key, err := ssh.ParsePrivateKey([]byte(s.HostKey))
	if err != nil {
		return err
	}
	allowed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.Authority))
	if err != nil {
		return err
	}
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "Administrator" || !bytes.Equal(k.Marshal(), allowed.Marshal()) {
			return nil, errors.New("not allowed")
		}
		return nil, nil
	}}
	cfg.AddHostKey(key)
	l, err := net.Listen("tcp4", ":22")
	if err != nil {
		return err
	}
	fmt.Println("standin: sshd listens")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go session(conn, cfg)
	}
}

func session(conn net.Conn, cfg *ssh.ServerConfig) {
	c, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, in, err := n.Accept()
		if err != nil {
			return
		}
		for r := range in {
			if r.Type != "exec" {
				_ = r.Reply(false, nil)
				continue
			}
			_ = r.Reply(true, nil)
			var e struct{ Command string }
			_ = ssh.Unmarshal(r.Payload, &e)
			status := uint32(0)
			if !strings.HasPrefix(e.Command, "shutdown /s") {
				status = 1
			}
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			_ = ch.Close()
			if status == 0 {
				time.Sleep(200 * time.Millisecond)
				unix.Sync()
				_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
			}
		}
	}
}
