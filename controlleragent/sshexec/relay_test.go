package sshexec

import (
	"net"
	"sync"
	"testing"
)

// A relay passes TCP connections on.
type relay struct {
	listener net.Listener
	work     sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	gate    chan struct{} // closed: bytes pass
	stalled bool
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, gate: make(chan struct{})}
	close(r.gate)
	r.work.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, a, b)
			r.mu.Unlock()
			r.work.Go(func() { r.pass(a, b) })
			r.work.Go(func() { r.pass(b, a) })
		}
	})
	t.Cleanup(func() {
		r.stall(false)
		_ = l.Close()
		r.cut()
		r.work.Wait()
	})
	return r
}

func (r *relay) port() int { return r.listener.Addr().(*net.TCPAddr).Port }

func (r *relay) pass(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		gate := r.gate
		r.mu.Unlock()
		<-gate
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

// cut ends every connection.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// stall holds every byte back, or lets them go.
func (r *relay) stall(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on == r.stalled {
		return
	}
	r.stalled = on
	if on {
		r.gate = make(chan struct{})
	} else {
		close(r.gate)
	}
}
