package vm

import (
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// linkBuffer is the send buffer asked for on the link, in bytes. The kernel gives what
// it allows (net.core.wmem_max), unless the process may force it. A full buffer isn't
// an error: QEMU holds the frame until there is room.
const linkBuffer = 4 << 20

// LinkPair makes the private link between two VMs: give one end to each [Config]. One
// Ethernet frame is one datagram. Nothing else can reach it. Frames wait in it while a
// VM is paused, and are lost when the link's ends are closed.
func LinkPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the link between the VMs: %w", err)
	}
	for _, fd := range fds {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, linkBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, linkBuffer)
		}
	}
	return os.NewFile(uintptr(fds[0]), "link-a"), os.NewFile(uintptr(fds[1]), "link-b"), nil
}

// streamPair makes a socketpair: one end for this process, one for QEMU to inherit.
func streamPair(name string) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the socket %s: %w", name, err)
	}
	theirs := os.NewFile(uintptr(fds[1]), name)
	ours := os.NewFile(uintptr(fds[0]), name)
	defer func() { _ = ours.Close() }() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("make the socket %s: %w", name, err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// sockets are what a VM and this process share.
type sockets struct {
	ports        map[string]*net.UnixConn
	console, qmp *net.UnixConn
	children     []*os.File // QEMU's, from descriptor 3 on
	kept         []*os.File // those of them that are not ours to close
}

// firstFD is the descriptor that the first of exec.Cmd's ExtraFiles gets.
const firstFD = 3

// makeSockets makes all sockets and writes QEMU's descriptor numbers into the machine
// of cfg. It takes over the link, also if it fails.
func makeSockets(cfg *Config) (s *sockets, err error) {
	s = &sockets{ports: map[string]*net.UnixConn{}}
	defer func() {
		if err != nil {
			s.closeAll()
		}
	}()
	give := func(f *os.File) int {
		s.children = append(s.children, f)
		return firstFD + len(s.children) - 1
	}
	m := &cfg.Machine
	if cfg.Link != nil {
		m.NIC.FD = give(cfg.Link)
	}
	if cfg.Lane != nil {
		m.Lane.FD = give(cfg.Lane)
		s.kept = append(s.kept, cfg.Lane)
	}
	for i := range m.Ports {
		conn, file, err := streamPair("port " + m.Ports[i].Name)
		if err != nil {
			return s, err
		}
		s.ports[m.Ports[i].Name], m.Ports[i].FD = conn, give(file)
	}
	for _, x := range []struct {
		name string
		conn **net.UnixConn
		fd   *int
	}{{"console", &s.console, &m.ConsoleFD}, {"monitor", &s.qmp, &m.QMPFD}} {
		conn, file, err := streamPair(x.name)
		if err != nil {
			return s, err
		}
		*x.conn, *x.fd = conn, give(file)
	}
	return s, nil
}

// closeChildren closes QEMU's ends in this process: it would never see EOF otherwise.
func (s *sockets) closeChildren() {
	for _, f := range s.children {
		if !slices.Contains(s.kept, f) {
			_ = f.Close()
		}
	}
	s.children = nil
}

func (s *sockets) closeAll() {
	s.closeChildren()
	for _, c := range s.ports {
		_ = c.Close()
	}
	for _, c := range []*net.UnixConn{s.console, s.qmp} {
		if c != nil {
			_ = c.Close()
		}
	}
}
