package treefs

import (
	"log/slog"
	"sync"

	"winvm/transport/fsrpc"
)

// A forgetter gives lookup references back, because the kernel forgets nodes by
// the thousand and waits for none of it. What comes while one request is on its
// way goes with the next.
type forgetter struct {
	log  *slog.Logger
	wake chan struct{} // something was added
	end  chan struct{} // closed by close
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	s       *session // whose nodes are pending
	pending map[fsrpc.NodeID]uint64
}

func newForgetter(log *slog.Logger) *forgetter {
	f := &forgetter{
		log: log, wake: make(chan struct{}, 1), end: make(chan struct{}), done: make(chan struct{}),
		pending: map[fsrpc.NodeID]uint64{},
	}
	go f.run()
	return f
}

// add gives back count references on n. What is pending for another session is
// moot: that session is over.
func (f *forgetter) add(s *session, n fsrpc.NodeID, count uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.s != s {
		f.s = s
		clear(f.pending)
	}
	f.pending[n] += count
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take returns what is pending, at most one request's worth.
func (f *forgetter) take() (*session, []fsrpc.Forget) {
	f.mu.Lock()
	defer f.mu.Unlock()
	batch := make([]fsrpc.Forget, 0, min(len(f.pending), fsrpc.MaxForgets))
	for n, count := range f.pending {
		if len(batch) == cap(batch) {
			break
		}
		batch = append(batch, fsrpc.Forget{Node: n, Count: count})
		delete(f.pending, n)
	}
	return f.s, batch
}

func (f *forgetter) run() {
	defer close(f.done)
	for {
		select {
		case <-f.wake:
			f.flush()
		case <-f.end:
			f.flush()
			return
		}
	}
}

// flush gives back what is pending.
func (f *forgetter) flush() {
	for {
		s, batch := f.take()
		if len(batch) == 0 || s.over() {
			return
		}
		if err := s.tree.Forget(s.ctx, batch); err != nil && !s.over() {
			f.log.Warn("treefs: forget failed", "nodes", len(batch), "err", err)
			return
		}
	}
}

// close gives back what is pending and ends.
func (f *forgetter) close() {
	select {
	case <-f.end:
	default:
		close(f.end)
	}
	<-f.done
}
