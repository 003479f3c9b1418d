package qmp

import (
	"slices"
	"sync"
	"time"
)

// Event is something that QEMU tells without being asked.
type Event struct {
	Name string         // for example "SHUTDOWN"
	Data map[string]any // as JSON decodes it; may be nil
	Time time.Time      // QEMU's clock, the host's
}

// String is the string in Data[key], or "".
func (e Event) String(key string) string {
	s, _ := e.Data[key].(string)
	return s
}

// Bool is the boolean in Data[key], or false.
func (e Event) Bool(key string) bool {
	b, _ := e.Data[key].(bool)
	return b
}

const (
	recentEvents  = 64  // events kept for Recent
	subscriptions = 256 // events a subscriber may lag behind
)

// Subscription gets events as they come.
type Subscription struct {
	// C is closed by Close, and when the connection ends.
	C <-chan Event

	names   []string
	c       chan Event
	hub     *hub
	dropped int // guarded by hub.mu
}

// Dropped is how many events were lost because C was full.
func (s *Subscription) Dropped() int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.dropped
}

// Close ends the subscription. It can be called more than once.
func (s *Subscription) Close() { s.hub.remove(s) }

// hub hands events to the subscribers and never waits for one.
type hub struct {
	mu     sync.Mutex
	closed bool
	subs   []*Subscription
	recent []Event
}

func (h *hub) add(names []string) *Subscription {
	c := make(chan Event, subscriptions)
	s := &Subscription{C: c, c: c, names: names, hub: h}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(c)
		return s
	}
	h.subs = append(h.subs, s)
	return s
}

func (h *hub) remove(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.subs, s); i >= 0 {
		h.subs = slices.Delete(h.subs, i, i+1)
		close(s.c)
	}
}

func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.recent) == recentEvents {
		h.recent = slices.Delete(h.recent, 0, 1)
	}
	h.recent = append(h.recent, e)
	for _, s := range h.subs {
		if len(s.names) > 0 && !slices.Contains(s.names, e.Name) {
			continue
		}
		select {
		case s.c <- e:
		default:
			s.dropped++
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, s := range h.subs {
		close(s.c)
	}
	h.subs = nil
}

func (h *hub) last() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.recent)
}
