package hostagent

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// connections are those that Serve serves.
//
// A controller agent that has lost its host agent dials again and goes on, while what it asked
// for last may still be at work here: a write that waits for a slow disk would then land on
// what the next session has written. So a connection is served only when nothing is at work
// any more of those whose peer was gone when it came.
type connections struct {
	mu   sync.Mutex
	open map[*net.UnixConn]chan struct{}
}

// add adds a connection and returns what is closed when those are done with that it has to
// wait for. ended is called when nothing of it is at work any more.
func (c *connections) add(conn *net.UnixConn) (before []<-chan struct{}, ended func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, done := range c.open {
		if hungUp(other) {
			before = append(before, done)
		}
	}
	done := make(chan struct{})
	if c.open == nil {
		c.open = map[*net.UnixConn]chan struct{}{}
	}
	c.open[conn] = done
	return before, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, conn)
		close(done)
	}
}

// hungUp reports whether a connection's peer has closed it, as the kernel knows before any
// read does, or we have.
func hungUp(conn *net.UnixConn) bool {
	gone := true
	raw, err := conn.SyscallConn()
	if err != nil {
		return gone
	}
	_ = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR need no asking
		n, err := unix.Poll(p, 0)
		for err == unix.EINTR {
			n, err = unix.Poll(p, 0)
		}
		gone = err != nil || n > 0
	})
	return gone
}
