package hostfs

import (
	"sync"
	"time"
)

// quiet lets a message be logged at most once a minute: what it reports, a guest
// can cause as often as it likes.
type quiet struct {
	mu   sync.Mutex
	last time.Time
}

func (q *quiet) due() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if now.Sub(q.last) < time.Minute {
		return false
	}
	q.last = now
	return true
}

// lostError keeps the first error of a write that its writer wasn't told of.
type lostError struct {
	mu  sync.Mutex
	err error
}

func (l *lostError) keep(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

func (l *lostError) take() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	l.err = nil
	return err
}
