package inspect

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/rpc"
)

// Layers of events.
const (
	LayerCapture = "capture" // the file, or the link as a whole
	LayerResync  = "resync"
	LayerRecord  = "record" // records and garbage
	LayerYamux   = "yamux"  // frames of streams
	LayerBulk    = "bulk"
	LayerRPC     = "rpc" // requests and responses
	LayerExec    = "exec"
)

// Kinds of events of requests.
const (
	KindRequest  = "request"
	KindResponse = "response"
)

// An Event is one thing that happened on a link.
type Event struct {
	At    time.Time
	Since time.Duration // since the first event
	Link  uint32
	From  mux.Side // 0: neither
	Layer string
	Kind  string

	Epoch, Seq uint32 // of records and what they carry
	StreamID   uint32
	Stream     string // its name, "" if it isn't known

	// Of requests and responses.
	Op      string
	Tag     uint32
	Errno   string
	Slot    bool          // the bytes went through shared memory
	Latency time.Duration // of a response whose request was seen; else -1
	Fields  []fsrpc.Field

	Bytes   int    // of the body, the payload or what was missed
	Text    string // what else there is to say
	Problem string // what is wrong, "" if nothing is

	// Frame is what the event was made of, if it is a request or a response. It is valid
	// until the function that is given the event returns.
	Frame *rpc.Frame
}

// Quiet reports whether the event is a detail that only who looks at the channel itself
// wants to see.
func (e *Event) Quiet() bool {
	switch {
	case e.Problem != "":
		return false
	case e.Layer == LayerYamux || e.Layer == LayerBulk:
		return e.Kind == "data" || e.Kind == "window"
	default:
		return e.Kind == "padding"
	}
}

func (e *Event) arrow() string {
	switch e.From {
	case mux.SideHost:
		return "host>guest"
	case mux.SideGuest:
		return "guest>host"
	default:
		return "-"
	}
}

func (e *Event) streamText() string {
	if e.StreamID == 0 {
		return ""
	}
	if e.Stream == "" {
		return fmt.Sprintf("%s:%d", map[bool]string{true: "bulk", false: "yamux"}[e.Layer == LayerBulk], e.StreamID)
	}
	return e.Stream
}

// String is the event as one line.
func (e *Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%12.6f %s %-12s ", e.Since.Seconds(), e.arrow(), e.streamTextOr(e.Layer))
	switch e.Kind {
	case KindRequest:
		fmt.Fprintf(&b, "#%d %s", e.Tag, e.Op)
	case KindResponse:
		fmt.Fprintf(&b, "#%d %s =", e.Tag, e.Op)
		if e.Errno != "" {
			b.WriteString(" " + e.Errno)
		}
	default:
		b.WriteString(e.Kind)
	}
	for _, f := range e.Fields {
		fmt.Fprintf(&b, " %s=%s", f.Name, value(f.Value))
	}
	if e.Text != "" {
		b.WriteString(" " + e.Text)
	}
	if e.Slot {
		b.WriteString(" (slot)")
	}
	if e.Kind == KindResponse {
		if e.Latency >= 0 {
			fmt.Fprintf(&b, " %.3f ms", ms(e.Latency))
		} else {
			b.WriteString(" (request not seen)")
		}
	}
	if e.Problem != "" {
		b.WriteString(" !! " + e.Problem)
	}
	return clean(b.String())
}

func (e *Event) streamTextOr(other string) string {
	if s := e.streamText(); s != "" {
		return s
	}
	return other
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// value quotes what isn't a plain word.
func value(v any) string {
	s, ok := v.(string)
	if !ok {
		return fmt.Sprint(v)
	}
	for _, r := range s {
		if r <= ' ' || r == '"' || !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

// clean keeps what a peer has written from being understood by a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// MarshalJSON makes the event an object whose keys are those of a [Filter], too.
func (e *Event) MarshalJSON() ([]byte, error) {
	m := struct {
		Time    time.Time      `json:"time"`
		Since   float64        `json:"t"`
		Link    uint32         `json:"link"`
		From    string         `json:"from,omitempty"`
		Layer   string         `json:"layer"`
		Kind    string         `json:"kind"`
		Epoch   string         `json:"epoch,omitempty"`
		Seq     uint32         `json:"seq,omitempty"`
		ID      uint32         `json:"stream_id,omitempty"`
		Stream  string         `json:"stream,omitempty"`
		Op      string         `json:"op,omitempty"`
		Tag     uint32         `json:"tag,omitempty"`
		Errno   string         `json:"errno,omitempty"`
		Slot    bool           `json:"slot,omitempty"`
		MS      *float64       `json:"ms,omitempty"`
		Bytes   int            `json:"bytes"`
		Fields  map[string]any `json:"fields,omitempty"`
		Text    string         `json:"text,omitempty"`
		Problem string         `json:"problem,omitempty"`
	}{
		Time: e.At, Since: e.Since.Seconds(), Link: e.Link, Layer: e.Layer, Kind: e.Kind, Seq: e.Seq,
		ID: e.StreamID, Stream: e.Stream, Op: e.Op, Tag: e.Tag, Errno: e.Errno, Slot: e.Slot,
		Bytes: e.Bytes, Text: e.Text, Problem: e.Problem,
	}
	if e.From != 0 {
		m.From = e.From.String()
	}
	if e.Epoch != 0 {
		m.Epoch = fmt.Sprintf("%08x", e.Epoch)
	}
	if e.Kind == KindResponse && e.Latency >= 0 {
		v := ms(e.Latency)
		m.MS = &v
	}
	if len(e.Fields) > 0 {
		m.Fields = map[string]any{}
		for _, f := range e.Fields {
			m.Fields[f.Name] = f.Value
		}
	}
	return json.Marshal(m)
}
