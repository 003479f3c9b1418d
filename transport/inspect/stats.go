package inspect

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"winvm/transport/fsrpc"
	"winvm/transport/mux"
)

// A Stats adds events up. It is not for more than one goroutine.
type Stats struct {
	ops     map[opKey]*opStats
	shares  map[string]*shareStats
	flights map[flightKey]int // bytes of each request in flight
	bytes   [2]int64          // on the link, of the host and of the guest

	inFlight, maxInFlight       int
	flightBytes, maxFlightBytes int

	problems, missing int64
	first, last       time.Time
}

type (
	opKey     struct{ stream, op string }
	flightKey struct {
		link, epoch, stream, tag uint32
		name                     string
	}
)

type opStats struct {
	count, answered, failed int64
	bytes                   int64 // of the bodies of requests and responses
	slots                   int64 // how many bodies went through shared memory
	latency                 histogram
}

// shareStats tells how many round trips an opened file costs.
type shareStats struct {
	calls, opened int64
	files         map[fsrpc.FileID]struct{}
}

// maxFiles bounds the files of a store that are told apart.
const maxFiles = 1 << 20

// NewStats returns an empty Stats.
func NewStats() *Stats {
	return &Stats{ops: map[opKey]*opStats{}, shares: map[string]*shareStats{}, flights: map[flightKey]int{}}
}

// Add takes an event of a [Decoder].
func (s *Stats) Add(e *Event) {
	if s.first.IsZero() {
		s.first = e.At
	}
	if e.At.After(s.last) {
		s.last = e.At
	}
	if e.Problem != "" {
		s.problems++
	}
	switch {
	case e.Layer == LayerCapture && e.Kind == "missing":
		s.missing += int64(e.Bytes)
	case e.Layer == LayerRPC:
		s.call(e)
	}
}

// Link counts bytes of the link itself.
func (s *Stats) Link(from mux.Side, n int) { s.bytes[from-mux.SideHost] += int64(n) }

func (s *Stats) call(e *Event) {
	if e.Kind != KindRequest && e.Kind != KindResponse {
		return
	}
	name := e.streamText()
	k := opKey{name, e.Op}
	o := s.ops[k]
	if o == nil {
		o = &opStats{}
		s.ops[k] = o
	}
	o.bytes += int64(e.Bytes)
	if e.Slot {
		o.slots++
	}
	flight := flightKey{e.Link, e.Epoch, e.StreamID, e.Tag, name}
	if e.Kind == KindRequest {
		o.count++
		s.flights[flight] = e.Bytes
		s.inFlight, s.flightBytes = len(s.flights), s.flightBytes+e.Bytes
		s.maxInFlight, s.maxFlightBytes = max(s.maxInFlight, s.inFlight), max(s.maxFlightBytes, s.flightBytes)
		s.file(e, name)
		return
	}
	if n, ok := s.flights[flight]; ok {
		delete(s.flights, flight)
		s.inFlight, s.flightBytes = len(s.flights), s.flightBytes-n
	}
	o.answered++
	if e.Errno != "" {
		o.failed++
	}
	if e.Latency >= 0 {
		o.latency.add(e.Latency)
	}
}

// file counts round trips and files.
func (s *Stats) file(e *Event, name string) {
	if !strings.HasPrefix(name, "fs/") && !strings.HasPrefix(name, "bulk:") || e.Frame == nil {
		return
	}
	sh := s.shares[name]
	if sh == nil {
		sh = &shareStats{files: map[fsrpc.FileID]struct{}{}}
		s.shares[name] = sh
	}
	sh.calls++
	switch e.Op {
	case "open", "create":
		sh.opened++
	case "storeread", "storebatch":
		for _, f := range fsrpc.FilesOf(e.Frame.Op, e.Frame.Body) {
			if len(sh.files) < maxFiles {
				sh.files[f] = struct{}{}
			}
		}
		sh.opened = int64(len(sh.files))
	}
}

// A Report is what a [Stats] has added up.
type Report struct {
	Seconds        float64       `json:"seconds"`
	HostBytes      int64         `json:"host_bytes"`  // written by the host, on the link
	GuestBytes     int64         `json:"guest_bytes"` // by the guest
	Missing        int64         `json:"missing_bytes"`
	Problems       int64         `json:"problems"`
	InFlight       int           `json:"in_flight"` // requests without a response
	MaxInFlight    int           `json:"max_in_flight"`
	FlightBytes    int           `json:"in_flight_bytes"` // of those requests' bodies
	MaxFlightBytes int           `json:"max_in_flight_bytes"`
	Ops            []OpReport    `json:"ops"`
	Shares         []ShareReport `json:"shares"`
}

// An OpReport is of one operation on one stream.
type OpReport struct {
	Stream   string  `json:"stream"`
	Op       string  `json:"op"`
	Count    int64   `json:"count"`
	Answered int64   `json:"answered"`
	Failed   int64   `json:"failed"`
	Bytes    int64   `json:"bytes"`
	Slots    int64   `json:"slots"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
}

// A ShareReport says what the files of a share have cost.
type ShareReport struct {
	Stream     string  `json:"stream"`
	RoundTrips int64   `json:"round_trips"`
	Files      int64   `json:"files"` // opened and created; of a store: read
	PerFile    float64 `json:"round_trips_per_file"`
}

// Report returns what was added up so far.
func (s *Stats) Report() Report {
	r := Report{
		Seconds: s.last.Sub(s.first).Seconds(), HostBytes: s.bytes[0], GuestBytes: s.bytes[1],
		Missing: s.missing, Problems: s.problems, InFlight: s.inFlight, MaxInFlight: s.maxInFlight,
		FlightBytes: s.flightBytes, MaxFlightBytes: s.maxFlightBytes, Ops: []OpReport{}, Shares: []ShareReport{},
	}
	for k, o := range s.ops {
		r.Ops = append(r.Ops, OpReport{
			Stream: k.stream, Op: k.op, Count: o.count, Answered: o.answered, Failed: o.failed, Bytes: o.bytes, Slots: o.slots,
			P50: o.latency.quantile(0.5), P99: o.latency.quantile(0.99), Max: ms(o.latency.max),
		})
	}
	slices.SortFunc(r.Ops, func(a, b OpReport) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Op, b.Op))
	})
	for name, sh := range s.shares {
		rep := ShareReport{Stream: name, RoundTrips: sh.calls, Files: sh.opened}
		if sh.opened > 0 {
			rep.PerFile = float64(sh.calls) / float64(sh.opened)
		}
		r.Shares = append(r.Shares, rep)
	}
	slices.SortFunc(r.Shares, func(a, b ShareReport) int { return cmp.Compare(a.Stream, b.Stream) })
	return r
}

// Print writes the report as a table.
func (r Report) Print(w io.Writer) error {
	fmt.Fprintf(w, "%.3f s, host wrote %d bytes, guest %d; requests in flight %d (most %d, of %d bytes)\n",
		r.Seconds, r.HostBytes, r.GuestBytes, r.InFlight, r.MaxInFlight, r.MaxFlightBytes)
	if r.Missing > 0 || r.Problems > 0 {
		fmt.Fprintf(w, "%d bytes are missing, %d problems: see serialdbg decode --filter problem\n", r.Missing, r.Problems)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "stream\top\tcount\tfailed\tbytes\tslots\tp50 ms\tp99 ms\tmax ms\t")
	for _, o := range r.Ops {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%d\t%.3f\t%.3f\t%.3f\t\n", o.Stream, o.Op, o.Count, o.Failed, o.Bytes, o.Slots, o.P50, o.P99, o.Max)
	}
	for _, s := range r.Shares {
		fmt.Fprintf(tw, "%s\tfiles\t%d\t\t\t\t%.2f round trips a file\t\t\t\n", s.Stream, s.Files, s.PerFile)
	}
	return tw.Flush()
}

// JSON writes the report as one object.
func (r Report) JSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// A histogram holds latencies to 5 %.
type histogram struct {
	counts map[int]int64
	n      int64
	max    time.Duration
}

const step = 1.05

func (h *histogram) add(d time.Duration) {
	if h.counts == nil {
		h.counts = map[int]int64{}
	}
	h.counts[int(math.Log(float64(max(d, 1)))/math.Log(step))]++
	h.n++
	h.max = max(h.max, d)
}

// quantile is in milliseconds.
func (h *histogram) quantile(q float64) float64 {
	if h.n == 0 {
		return 0
	}
	left := int64(math.Ceil(q * float64(h.n)))
	keys := make([]int, 0, len(h.counts))
	for k := range h.counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if left -= h.counts[k]; left <= 0 {
			return min(ms(time.Duration(math.Pow(step, float64(k)+0.5))), ms(h.max))
		}
	}
	return ms(h.max)
}
