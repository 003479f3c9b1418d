package inspect

import (
	"fmt"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"winvm/transport/agentrpc"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/rpc"
)

// stream is what is known of a stream: what it carries, and what is in flight on it.
type stream struct {
	l      *link
	name   string
	id     uint32
	bulk   bool
	caller mux.Side // who makes requests; 0: it carries none
	exec   bool

	split   [2]rpc.Splitter // of the host and the guest
	part    [2][]byte       // of an exec frame
	lost    [2]bool         // not at the beginning of a frame
	fins    [2]bool
	pending map[uint32]pending
}

// pending is a request that has not been answered.
type pending struct {
	op   uint16
	at   time.Time
	body []byte // of operations whose response can't be understood without
}

func newStream(l *link, s *mux.Sight) *stream {
	st := &stream{l: l, name: s.Name, id: s.Stream, bulk: s.Bulk, pending: map[uint32]pending{}}
	limit := uint32(fsrpc.MaxFrame)
	switch {
	case strings.HasPrefix(s.Name, fsrpc.StreamName("")):
		st.caller = mux.SideGuest
	case s.Name == agentrpc.StreamAgent:
		st.caller, limit = mux.SideHost, agentrpc.MaxMessage
	case s.Name == agentrpc.StreamExec:
		st.exec = true
	case s.Name == "" && s.Bulk:
		st.caller, st.lost = mux.SideGuest, [2]bool{true, true}
	}
	for i := range st.split {
		st.split[i] = rpc.Splitter{MaxBody: limit, Responses: mux.Side(i)+mux.SideHost != st.caller}
	}
	return st
}

// lose says that bytes of one side are missing.
func (st *stream) lose(from mux.Side) {
	i := from - mux.SideHost
	st.lost[i] = true
	st.split[i].Reset()
	st.part[i] = nil
}

func (st *stream) opName(op uint16) string {
	name := ""
	if st.name == agentrpc.StreamAgent {
		name = agentrpc.OpName(op)
	} else {
		name = fsrpc.OpName(op)
	}
	if name == "" {
		name = fmt.Sprintf("op%d", op)
	}
	return name
}

func (st *stream) known(op uint16) bool {
	if st.name == agentrpc.StreamAgent {
		return agentrpc.OpName(op) != ""
	}
	return fsrpc.OpName(op) != ""
}

func (st *stream) event(s *mux.Sight, layer, kind string) *Event {
	return &Event{At: s.At, From: s.From, Epoch: s.Epoch, Seq: s.Seq, StreamID: st.id, Stream: st.name, Layer: layer, Kind: kind, Latency: -1}
}

// data takes bytes of the stream.
func (st *stream) data(s *mux.Sight) {
	switch i := s.From - mux.SideHost; {
	case st.exec:
		st.execData(s)
	case st.caller == 0:
	case st.lost[i] && !st.split[i].Plausible(s.Data, st.known):
	default:
		st.lost[i] = false
		err := st.split[i].Write(s.Data, func(f rpc.Frame) { st.frame(s, &f) })
		if err != nil {
			st.lost[i] = true
			e := st.event(s, LayerRPC, "problem")
			e.Problem = err.Error()
			st.l.send(e)
		}
	}
}

func (st *stream) frame(s *mux.Sight, f *rpc.Frame) {
	if s.From == st.caller {
		st.request(s, f)
	} else {
		st.response(s, f)
	}
}

func (st *stream) request(s *mux.Sight, f *rpc.Frame) {
	e := st.event(s, LayerRPC, KindRequest)
	e.Op, e.Tag, e.Bytes, e.Slot, e.Frame = st.opName(f.Op), f.Tag, f.Length, f.InSlot > 0, f
	var err error
	if st.name == agentrpc.StreamAgent {
		e.Text = jsonText(f.Body)
	} else {
		e.Fields, err = fsrpc.DescribeRequest(f.Op, f.Body, int(f.InSlot))
	}
	if err != nil {
		e.Problem = err.Error()
	}
	p := pending{op: f.Op, at: s.At}
	if e.Op == "storebatch" {
		p.body = append(p.body, f.Body...)
	}
	if len(st.pending) < maxPending {
		st.pending[f.Tag] = p
	}
	st.l.send(e)
}

func (st *stream) response(s *mux.Sight, f *rpc.Frame) {
	e := st.event(s, LayerRPC, KindResponse)
	e.Op, e.Tag, e.Bytes, e.Slot, e.Frame = st.opName(f.Op), f.Tag, f.Length, f.InSlot > 0, f
	p, ok := st.pending[f.Tag]
	switch {
	case ok && p.op == f.Op:
		delete(st.pending, f.Tag)
		e.Latency = s.At.Sub(p.at)
	case ok:
		e.Problem = fmt.Sprintf("tag %d is that of %s", f.Tag, st.opName(p.op))
	}
	var err error
	switch {
	case f.Errno != 0:
		if e.Errno = unix.ErrnoName(syscall.Errno(f.Errno)); e.Errno == "" {
			e.Errno = fmt.Sprintf("errno %d", f.Errno)
		}
		e.Text = value(string(f.Body))
	case st.name == agentrpc.StreamAgent:
		e.Text = jsonText(f.Body)
	default:
		e.Fields, err = fsrpc.DescribeResponse(f.Op, p.body, f.Body, int(f.InSlot))
	}
	if err != nil {
		e.Problem = err.Error()
	}
	st.l.send(e)
}

// maxText bounds what is shown of a message.
const maxText = 200

// jsonText is a message as it is shown.
func jsonText(b []byte) string {
	if len(b) <= maxText {
		return string(b)
	}
	b = b[:maxText]
	for !utf8.Valid(b) && len(b) > maxText-utf8.UTFMax {
		b = b[:len(b)-1]
	}
	return string(b) + "..."
}

func (st *stream) execData(s *mux.Sight) {
	i := s.From - mux.SideHost
	if st.lost[i] {
		return // nothing tells where a frame begins
	}
	st.part[i] = append(st.part[i], s.Data...)
	for {
		kind, payload, n, err := agentrpc.CutExecFrame(st.part[i])
		if err != nil {
			e := st.event(s, LayerExec, "problem")
			e.Problem = err.Error()
			st.l.send(e)
			st.lose(s.From)
			return
		}
		if n == 0 {
			return
		}
		e := st.event(s, LayerExec, kind.String())
		e.Bytes, e.Text = len(payload), value(jsonText(payload))
		st.l.send(e)
		st.part[i] = st.part[i][n:]
	}
}
