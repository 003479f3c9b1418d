package event

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// readTrace reads what WriteTrace wrote, as a viewer does.
func readTrace(t *testing.T, tl *Timeline) []traceEvent {
	t.Helper()
	var b bytes.Buffer
	if err := tl.WriteTrace(&b, "hostagent build ID"); err != nil {
		t.Fatal(err)
	}
	var f struct {
		TraceEvents     []traceEvent
		DisplayTimeUnit string
	}
	d := json.NewDecoder(&b)
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.DisplayTimeUnit != "ms" || len(f.TraceEvents) == 0 {
		t.Fatalf("%v: %+v", err, f)
	}
	name := f.TraceEvents[0]
	if name.Phase != "M" || name.Name != "process_name" || name.Args["name"] != "hostagent build ID" {
		t.Errorf("the first is %+v", name)
	}
	return f.TraceEvents[1:]
}

func TestWriteTrace(t *testing.T) {
	ms := time.Millisecond
	tl := &Timeline{spans: []Span{
		{Name: "inner", Start: 12 * ms, Took: 3 * ms},
		{Name: "beside", Start: 14 * ms, Took: 20 * ms}, // overlaps, so it is another thread's
		{Name: "moment", Start: 13 * ms},
		{Name: "outer", Start: 10 * ms, Took: 10 * ms},
		{Name: "after", Start: 20 * ms, Took: 1500 * time.Nanosecond},
	}}
	want := []traceEvent{
		{Name: "outer", Phase: "X", Start: 10000, Tid: 1},
		{Name: "inner", Phase: "X", Start: 12000, Tid: 1},
		{Name: "moment", Phase: "i", Start: 13000, Tid: 1},
		{Name: "beside", Phase: "X", Start: 14000, Tid: 2},
		{Name: "after", Phase: "X", Start: 20000, Tid: 1},
	}
	took := []float64{10000, 3000, 0, 20000, 1.5}
	got := readTrace(t, tl)
	if len(got) != len(want) {
		t.Fatalf("%d events", len(got))
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.Name || g.Phase != w.Phase || g.Start != w.Start || g.Tid != w.Tid || g.Pid != 1 {
			t.Errorf("event %d is %+v, want %+v", i, g, w)
		}
		if (g.Took == nil) != (w.Phase == "i") || g.Took != nil && *g.Took != took[i] || (g.Scope == "t") != (w.Phase == "i") {
			t.Errorf("event %d: dur %v, want %v", i, g.Took, took[i])
		}
	}
}

// On one thread spans nest or follow each other, or a viewer shows nonsense.
func TestTraceNests(t *testing.T) {
	tl := &Timeline{}
	seed := uint32(1)
	random := func(n uint32) time.Duration {
		seed = seed*1664525 + 1013904223
		return time.Duration(seed >> 8 % n)
	}
	for range 300 {
		tl.spans = append(tl.spans, Span{Name: "x", Start: random(1000), Took: random(100)})
	}
	got := readTrace(t, tl)
	for i, a := range got {
		for _, b := range got[:i] {
			if a.Tid != b.Tid || a.Took == nil || b.Took == nil {
				continue
			}
			aEnd, bEnd := a.Start+*a.Took, b.Start+*b.Took
			if rounding := 1e-6; a.Start < bEnd-rounding && aEnd > bEnd+rounding {
				t.Fatalf("%+v crosses %+v", a, b)
			}
		}
	}
}

func TestTraceOfNothing(t *testing.T) {
	if got := readTrace(t, nil); len(got) != 0 {
		t.Error(got)
	}
}
