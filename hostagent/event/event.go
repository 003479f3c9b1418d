// Package event tells users and programs what is going on: stages with their
// elapsed time, and a timeline of spans afterwards.
//
// A Sink takes events; the command line makes one that prints lines for people to
// standard error, or JSON lines to standard output. Library code emits, and never
// prints.
package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Kinds of event.
const (
	KindStage   = "stage"   // a stage begins; Message says what is done
	KindWaiting = "waiting" // still at it; Message says what for
	KindWarning = "warning"
	KindOutput  = "output" // a piece of the command's output (JSON only)
	KindDone    = "done"   // the operation ended well
	KindFailed  = "failed" // it did not; Message is the error
	KindResult  = "result" // a build's result
)

// An Event is one line of what is told.
type Event struct {
	Time    time.Time     `json:"time"`
	Elapsed time.Duration `json:"elapsed_ns"` // since the operation began
	Kind    string        `json:"kind"`
	Stage   string        `json:"stage,omitempty"`
	Message string        `json:"message,omitempty"`
	Stream  string        `json:"stream,omitempty"` // stdout or stderr
	Data    any           `json:"data,omitempty"`
}

// A Sink takes events. Emit may be called from many goroutines.
type Sink interface{ Emit(e Event) }

// A Reporter stamps events and hands them to a Sink. A nil Reporter drops them.
type Reporter struct {
	sink  Sink
	start time.Time

	mu    sync.Mutex // guards the rest
	stage string
	doing string // what is done in it
}

// NewReporter starts an operation's clock.
func NewReporter(sink Sink) *Reporter { return &Reporter{sink: sink, start: time.Now()} }

// Stage begins a stage.
func (r *Reporter) Stage(stage, format string, args ...any) {
	if r == nil {
		return
	}
	doing := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.stage, r.doing = stage, doing
	r.mu.Unlock()
	r.emit(Event{Kind: KindStage, Message: doing})
}

// Doing is what the last stage began with, "" if there was none.
func (r *Reporter) Doing() string {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doing
}

// Tell emits an event of another kind in the present stage.
func (r *Reporter) Tell(kind, format string, args ...any) {
	if r != nil {
		r.emit(Event{Kind: kind, Message: fmt.Sprintf(format, args...)})
	}
}

// Result emits data for programs, with a line for people.
func (r *Reporter) Result(kind string, data any, format string, args ...any) {
	if r != nil {
		r.emit(Event{Kind: kind, Message: fmt.Sprintf(format, args...), Data: data})
	}
}

// Output emits a piece of the command's output: as Message, or, if it isn't UTF-8
// (a code page's text, half a character at the end of a piece), as Data, which is
// base64 in JSON, so that no byte is lost.
func (r *Reporter) Output(stream string, p []byte) {
	switch {
	case r == nil:
	case utf8.Valid(p):
		r.emit(Event{Kind: KindOutput, Stream: stream, Message: string(p)})
	default:
		r.emit(Event{Kind: KindOutput, Stream: stream, Data: bytes.Clone(p)})
	}
}

func (r *Reporter) emit(e Event) {
	e.Time = time.Now()
	e.Elapsed = e.Time.Sub(r.start)
	r.mu.Lock()
	e.Stage = r.stage
	r.mu.Unlock()
	r.sink.Emit(e)
}

// JSON returns a Sink that writes an event a line.
func JSON(w io.Writer) Sink { return &jsonSink{enc: json.NewEncoder(w)} }

type jsonSink struct {
	mu  sync.Mutex // serialises lines
	enc *json.Encoder
}

func (s *jsonSink) Emit(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.enc.Encode(e) // a reader that went away is no reason to fail the work
}

// Text returns a Sink that writes lines for people. Output is not among them:
// the command's output goes where it belongs. quiet leaves out stages.
// On a terminal a stage is one line that fits, with colours unless NO_COLOR is set.
func Text(w io.Writer, quiet bool) Sink { return &textSink{w: w, quiet: quiet, screen: newScreen(w)} }

type textSink struct {
	mu     sync.Mutex // serialises lines
	w      io.Writer
	quiet  bool
	screen screen
}

func (s *textSink) Emit(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Kind {
	case KindOutput, KindResult, KindFailed:
		return
	case KindWarning:
		fmt.Fprintf(s.w, "hostagent: %s %s\n", s.screen.colour(yellow, "warning:"), e.Message)
	default:
		if !s.quiet {
			stamp := fmt.Sprintf("[%6.1fs]", e.Elapsed.Seconds())
			line := s.screen.fit(fmt.Sprintf("%s %s: %s", stamp, e.Stage, e.Message))
			if rest, ok := strings.CutPrefix(line, stamp); ok {
				line = s.screen.colour(faint, stamp) + rest
			}
			fmt.Fprintln(s.w, line)
		}
	}
}
