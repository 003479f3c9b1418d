package inspect

import (
	"fmt"
	"time"

	"winvm/transport/capture"
	"winvm/transport/mux"
)

const (
	maxLinks   = 1024
	maxStreams = 4096
	maxPending = 1 << 16
)

// A Decoder turns packets into events. It is not for more than one goroutine.
type Decoder struct {
	emit  func(*Event)
	links map[uint32]*link
	start time.Time
	now   time.Time
}

// NewDecoder returns a Decoder that gives its events to emit.
func NewDecoder(emit func(*Event)) *Decoder {
	return &Decoder{emit: emit, links: map[uint32]*link{}}
}

// link is one of the links of a capture.
type link struct {
	d       *Decoder
	number  uint32
	watcher *mux.Watcher
	next    [2]int64
	seen    [2]bool
	streams map[streamKey]*stream
}

type streamKey struct {
	epoch  uint32
	bulk   bool
	stream uint32
}

// Packet takes the next packet.
func (d *Decoder) Packet(p *capture.Packet) {
	if d.start.IsZero() {
		d.start = p.At
	}
	d.now = p.At
	l := d.links[p.Link]
	if l == nil {
		if len(d.links) >= maxLinks {
			return
		}
		l = &link{d: d, number: p.Link, streams: map[streamKey]*stream{}}
		l.watcher = mux.NewWatcher(l.see)
		d.links[p.Link] = l
	}
	l.packet(p)
}

// Problem takes notice of something that is wrong with the capture.
func (d *Decoder) Problem(err error) {
	d.send(&Event{At: d.now, Layer: LayerCapture, Kind: "problem", Problem: err.Error()})
}

// End tells of what has begun and not ended.
func (d *Decoder) End() {
	for _, l := range d.links {
		l.watcher.End(d.now)
	}
}

func (d *Decoder) send(e *Event) {
	if !e.At.IsZero() {
		e.Since = e.At.Sub(d.start)
	}
	d.emit(e)
}

func (l *link) packet(p *capture.Packet) {
	i := p.From - mux.SideHost
	begins := !l.seen[i]
	l.seen[i] = true
	if p.Missing || p.Offset != l.next[i] {
		missing := p.Offset - l.next[i]
		l.watcher.Skip(p.From, p.Offset, p.At)
		l.lose(p.From)
		e := &Event{At: p.At, From: p.From, Layer: LayerCapture, Kind: "missing", Bytes: int(max(missing, 0))}
		e.Problem = fmt.Sprintf("%d bytes are not in the capture", missing)
		if missing < 0 {
			e.Problem = fmt.Sprintf("offset %d comes after offset %d", p.Offset, l.next[i])
		} else if begins {
			e.Problem, e.Text = "", fmt.Sprintf("%d bytes before the capture begins", missing)
		}
		l.send(e)
	}
	l.next[i] = p.Offset + int64(len(p.Data))
	l.watcher.Feed(p.From, p.Data, p.At)
	if p.End {
		l.watcher.End(p.At)
		l.send(&Event{At: p.At, From: p.From, Layer: LayerCapture, Kind: "end", Text: "the link has ended"})
	}
}

func (l *link) send(e *Event) {
	e.Link = l.number
	l.d.send(e)
}

// lose makes all streams look for where a frame begins.
func (l *link) lose(from mux.Side) {
	for _, st := range l.streams {
		st.lose(from)
	}
}

// see takes what the Watcher has seen.
func (l *link) see(s *mux.Sight) {
	e := &Event{At: s.At, From: s.From, Epoch: s.Epoch, Seq: s.Seq, Layer: LayerRecord, Bytes: s.Len, Latency: -1}
	if s.Err != nil {
		e.Problem = s.Err.Error()
	}
	if s.Joined {
		e.Text = "(in the middle of a session)"
	}
	switch s.Kind {
	case mux.SightResync:
		resyncEvent(e, &s.Resync)
	case mux.SightPadding:
		e.Kind, e.Text = "padding", fmt.Sprintf("%d zeros", s.Len)
	case mux.SightGarbage:
		e.Kind, e.Text = "garbage", fmt.Sprintf("%d bytes from offset %d", s.Len, s.Offset)
		l.lose(s.From)
	case mux.SightCut:
		e.Kind, e.Text = "cut", fmt.Sprintf("%d bytes from offset %d", s.Len, s.Offset)
		e.Problem = "the beginning of something whose end is not there"
	case mux.SightClose:
		e.Kind = "close"
	case mux.SightFrame:
		l.frame(e, s)
		return
	}
	l.send(e)
}

func resyncEvent(e *Event, r *mux.Resync) {
	e.Layer, e.Kind = LayerResync, r.Kind
	e.Text = fmt.Sprintf("versions %d-%d features %#x nonce %x", r.MinVersion, r.MaxVersion, r.Features, r.Nonce[:4])
	if r.Echo != [16]byte{} {
		e.Text += fmt.Sprintf(" echo %x", r.Echo[:4])
	}
	if r.Build != "" {
		e.Text += fmt.Sprintf(" build %q", r.Build)
	}
}

// frame tells of a frame and gives its bytes to the stream.
func (l *link) frame(e *Event, s *mux.Sight) {
	e.Layer, e.StreamID, e.Stream, e.Kind, e.Bytes = LayerYamux, s.Stream, s.Name, s.Type, len(s.Data)
	if s.Bulk {
		e.Layer = LayerBulk
	}
	if e.Problem != "" {
		l.lose(s.From)
	}
	switch {
	case s.Opens:
		e.Kind = "open"
	case s.RST:
		e.Kind = "reset"
	case s.FIN && len(s.Data) == 0:
		e.Kind = "fin"
	case s.FIN:
		e.Text += " with the end of its side"
	case s.Type == "window":
		e.Text, e.Bytes = fmt.Sprintf("+%d", s.Window), int(s.Window)
	case s.Type == "data":
		e.Text += fmt.Sprintf("%d bytes", len(s.Data))
	}
	l.send(e)
	if s.Type != "data" && s.Type != "window" {
		return
	}
	k := streamKey{s.Epoch, s.Bulk, s.Stream}
	st := l.streams[k]
	if st == nil {
		if len(l.streams) >= maxStreams || len(s.Data) == 0 && !s.Opens {
			return
		}
		st = newStream(l, s)
		l.streams[k] = st
	}
	if len(s.Data) > 0 {
		st.data(s)
	}
	if s.FIN {
		st.fins[s.From-mux.SideHost] = true
	}
	if s.RST || st.fins[0] && st.fins[1] {
		delete(l.streams, k)
	}
}
