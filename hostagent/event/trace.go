package event

import (
	"encoding/json"
	"io"
	"sort"
	"time"
)

// traceEvent is one event of the Trace Event Format ("JSON Object Format" of
// Chromium's document of that name), which chrome://tracing and Perfetto load.
// Times are in microseconds.
type traceEvent struct {
	Name  string            `json:"name"`
	Phase string            `json:"ph"` // X: a span; i: a moment; M: a name for pid or tid
	Start float64           `json:"ts"`
	Took  *float64          `json:"dur,omitempty"`
	Scope string            `json:"s,omitempty"` // of a moment: t, its thread
	Pid   int               `json:"pid"`
	Tid   int               `json:"tid"`
	Args  map[string]string `json:"args,omitempty"`
}

// WriteTrace writes the timeline as a Chrome trace. process is what its one process
// is called. Spans are put on as few threads as it takes to nest them.
func (t *Timeline) WriteTrace(w io.Writer, process string) error {
	spans := t.Spans()
	// The longer of two that begin together is the outer one.
	sort.SliceStable(spans, func(i, j int) bool {
		if spans[i].Start != spans[j].Start {
			return spans[i].Start < spans[j].Start
		}
		return spans[i].Took > spans[j].Took
	})
	events := []traceEvent{{Name: "process_name", Phase: "M", Pid: 1, Tid: 1, Args: map[string]string{"name": process}}}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	var lanes []lane
	for _, s := range spans {
		e := traceEvent{Name: s.Name, Phase: "X", Start: us(s.Start), Pid: 1, Tid: place(&lanes, s)}
		if took := us(s.Took); s.Took > 0 {
			e.Took = &took
		} else {
			e.Phase, e.Scope = "i", "t"
		}
		events = append(events, e)
	}
	return json.NewEncoder(w).Encode(struct {
		Events []traceEvent `json:"traceEvents"`
		Unit   string       `json:"displayTimeUnit"`
	}{events, "ms"})
}

// A lane is the ends of the spans that are open on a thread, the innermost last.
type lane []time.Duration

// place puts a span, which begins no earlier than those before it, on the first
// thread on which it begins after the others or lies within the innermost.
func place(lanes *[]lane, s Span) (tid int) {
	end := s.Start + s.Took
	for i, l := range *lanes {
		for len(l) > 0 && l[len(l)-1] <= s.Start {
			l = l[:len(l)-1]
		}
		if len(l) == 0 || end <= l[len(l)-1] {
			(*lanes)[i] = append(l, end)
			return i + 1
		}
		(*lanes)[i] = l
	}
	*lanes = append(*lanes, lane{end})
	return len(*lanes)
}
