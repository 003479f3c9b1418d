package event

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// A Span is one piece of work on a timeline.
type Span struct {
	Name  string        `json:"name"`
	Start time.Duration `json:"start_ns"` // since the timeline's beginning
	Took  time.Duration `json:"took_ns"`
}

// A Timeline collects spans. Its methods may be called from many goroutines; on
// a nil Timeline they do nothing.
type Timeline struct {
	zero time.Time

	mu    sync.Mutex // guards the rest
	spans []Span
	open  []*string // the names of spans that have begun and not ended
}

// NewTimeline begins a timeline at zero, which may lie before now: when the
// process was started, say.
func NewTimeline(zero time.Time) *Timeline { return &Timeline{zero: zero} }

// Begin starts a span; the function it returns ends it.
func (t *Timeline) Begin(name string) (end func()) {
	if t == nil {
		return func() {}
	}
	start := time.Now()
	mine := &name
	t.mu.Lock()
	t.open = append(t.open, mine)
	t.mu.Unlock()
	return func() {
		t.add(name, start, time.Now())
		t.mu.Lock()
		defer t.mu.Unlock()
		if i := slices.Index(t.open, mine); i >= 0 {
			t.open = slices.Delete(t.open, i, i+1)
		}
	}
}

// Current is the span that began last of those that have not ended, "" if none is
// open.
func (t *Timeline) Current() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) == 0 {
		return ""
	}
	return *t.open[len(t.open)-1]
}

// Mark adds a moment.
func (t *Timeline) Mark(name string) {
	if t != nil {
		now := time.Now()
		t.add(name, now, now)
	}
}

func (t *Timeline) add(name string, start, end time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, Span{Name: name, Start: start.Sub(t.zero), Took: end.Sub(start)})
}

// Spans returns the spans in the order in which they ended.
func (t *Timeline) Spans() []Span {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Span(nil), t.spans...)
}

// Print writes the timeline as a table: from, to and length in milliseconds.
func (t *Timeline) Print(w io.Writer) {
	fmt.Fprintf(w, "%9s %9s %9s\n", "from ms", "to ms", "ms")
	for _, s := range t.Spans() {
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		fmt.Fprintf(w, "%9.1f %9.1f %9.1f  %s\n", ms(s.Start), ms(s.Start+s.Took), ms(s.Took), s.Name)
	}
}
