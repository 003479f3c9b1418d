package soak

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A fault is something that can happen to a link.
type fault int

const (
	faultNone    fault = iota
	faultCut           // both directions end
	faultHalf          // a record is written in part, then the link ends
	faultJunk          // bytes appear that nobody wrote
	faultLose          // bytes are lost
	faultRepeat        // bytes come twice
	faultStall         // nothing moves for a while
	faultRestart       // the host agent closes the session in order
	faults             // how many there are
)

var faultNames = [faults]string{"none", "cut", "half", "junk", "lose", "repeat", "stall", "restart"}

// A link is the host's end of a connection, to which faults happen.
type link struct {
	*net.UnixConn
	next atomic.Int32 // the fault of the next write
	// torn is called after a fault that leaves half a record, or what is none, on the
	// link: the host agent is gone then, and the next one begins on the same link.
	torn atomic.Pointer[func()]

	mu  sync.Mutex // guards rnd
	rnd *rand.Rand
}

func (l *link) intN(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rnd.IntN(n)
}

func (l *link) tear() {
	if f := l.torn.Load(); f != nil {
		go (*f)()
	}
}

// Write implements mux.Link.
func (l *link) Write(p []byte) (int, error) {
	switch fault(l.next.Swap(int32(faultNone))) {
	case faultHalf:
		n, _ := l.UnixConn.Write(p[:l.intN(len(p))])
		_ = l.Close()
		return n, net.ErrClosed
	case faultJunk:
		junk := make([]byte, 1+l.intN(300))
		for i := range junk {
			junk[i] = byte(l.intN(256))
		}
		defer l.tear()
		if _, err := l.UnixConn.Write(junk); err != nil {
			return 0, err
		}
	case faultLose:
		at := l.intN(len(p))
		n := 1 + l.intN(len(p)-at)
		defer l.tear()
		if _, err := l.UnixConn.Write(append(append([]byte{}, p[:at]...), p[at+n:]...)); err != nil {
			return 0, err
		}
		return len(p), nil
	case faultRepeat:
		defer l.tear()
		if _, err := l.UnixConn.Write(p); err != nil {
			return 0, err
		}
	case faultStall:
		time.Sleep(time.Duration(l.intN(400)) * time.Millisecond)
	case faultNone, faultCut, faultRestart, faults: // not a write's
	}
	return l.UnixConn.Write(p)
}
