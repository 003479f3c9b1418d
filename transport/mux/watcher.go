package mux

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// A Side is one of the two ends of a link.
type Side uint8

// The sides of a link.
const (
	SideHost  = Side(roleHost)
	SideGuest = Side(roleGuest)
)

func (s Side) String() string {
	switch s {
	case SideHost:
		return "host"
	case SideGuest:
		return "guest"
	default:
		return fmt.Sprintf("side %d", uint8(s))
	}
}

// Other is the side that reads what s writes.
func (s Side) Other() Side { return SideHost + SideGuest - s }

// A Sight is one thing that a [Watcher] has seen on the link. Data is valid until the
// function that is given the Sight returns.
type Sight struct {
	From   Side
	At     time.Time // when the last of its bytes passed
	Offset int64     // of its first byte, in what From wrote
	Len    int       // on the link
	Kind   SightKind

	Resync Resync // SightResync

	// Of records.
	Epoch, Seq uint32
	Joined     bool // the first of a session whose resync was not seen

	// Of frames. Name is empty if the stream was opened before the Watcher looked.
	Bulk   bool
	Stream uint32
	Name   string
	Type   string // "data", "window", "ping", "go-away"
	Opens  bool   // the frame that opens the stream, or that ends its name
	FIN    bool
	RST    bool
	Window uint32
	Data   []byte // what is the stream's: without its name

	// Err says what is wrong: with garbage why it is none, with a record what is missing
	// before it or what rule it breaks.
	Err error
}

// SightKind is the kind of a [Sight].
type SightKind uint8

// The kinds of Sight.
const (
	SightGarbage SightKind = iota + 1 // bytes that are nothing, to where something begins again
	SightPadding
	SightResync
	SightClose
	SightFrame
	SightCut // the beginning of something whose end was not seen
)

// A Resync is a resync record as it is shown.
type Resync struct {
	Kind                   string // "SYN", "ACK", "GO", "REFUSE", "HELLO"
	MinVersion, MaxVersion uint16
	Features               uint64
	Nonce, Echo            [16]byte
	Build                  string
}

func (k kind) String() string {
	switch k {
	case kindSYN:
		return "SYN"
	case kindACK:
		return "ACK"
	case kindGO:
		return "GO"
	case kindREFUSE:
		return "REFUSE"
	case kindHELLO:
		return "HELLO"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// maxWatched bounds the streams whose names a Watcher remembers.
const maxWatched = 4096

// A Watcher makes sense of the bytes that two others exchange over a link: it has the
// decoders of an [Endpoint] and keeps to none of its rules. What makes no sense is
// passed over, up to where a record of either kind begins; it can begin in the middle of
// a session. It is not for more than one goroutine.
type Watcher struct {
	see     func(*Sight)
	dirs    [2]direction
	streams map[streamKey]*watched
}

type streamKey struct {
	epoch  uint32
	bulk   bool
	stream uint32
}

// watched is a stream whose beginning was seen.
type watched struct {
	name    string
	preface []byte // what there is of a yamux stream's name
	fins    [2]bool
}

// direction is what one side writes.
type direction struct {
	from Side
	buf  []byte
	at   int64 // offset of buf[0]

	lane   lane
	inside bool // lane is that of a session
	sealed bool // its seal is known
	proven bool // and made of the nonces

	other    recordHeader // of the last record of another session
	hasOther bool

	run     int // bytes before buf[0] that are of one kind
	padding bool
	reason  error // why the run is garbage
}

// NewWatcher returns a Watcher that gives see what it sees, from within Feed, Skip and
// End.
func NewWatcher(see func(*Sight)) *Watcher {
	return &Watcher{
		see:     see,
		dirs:    [2]direction{{from: SideHost}, {from: SideGuest}},
		streams: map[streamKey]*watched{},
	}
}

func (w *Watcher) dir(from Side) *direction {
	if from == SideGuest {
		return &w.dirs[1]
	}
	return &w.dirs[0]
}

// Feed takes bytes that a side has written.
func (w *Watcher) Feed(from Side, b []byte, at time.Time) {
	d := w.dir(from)
	d.buf = append(d.buf, b...)
	rest := d.buf
	for {
		n := w.step(d, rest, at)
		if n == 0 {
			break
		}
		rest = rest[n:]
		d.at += int64(n)
	}
	d.buf = append(d.buf[:0], rest...)
}

// Skip says that bytes of a side are missing, and that the next has this offset.
func (w *Watcher) Skip(from Side, offset int64, at time.Time) {
	d := w.dir(from)
	w.cut(d, at)
	d.at = offset
	d.proven = false
}

// End says that no more comes: what has begun is told as cut.
func (w *Watcher) End(at time.Time) {
	for i := range w.dirs {
		w.cut(&w.dirs[i], at)
	}
}

func (w *Watcher) cut(d *direction, at time.Time) {
	w.endRun(d, at)
	if len(d.buf) > 0 {
		w.see(&Sight{From: d.from, At: at, Offset: d.at, Len: len(d.buf), Kind: SightCut})
	}
	d.at += int64(len(d.buf))
	d.buf = d.buf[:0]
}

// step takes the next thing off b and returns its length, 0 if more is needed.
func (w *Watcher) step(d *direction, b []byte, at time.Time) int {
	if len(b) == 0 {
		return 0
	}
	if b[0] == 0 {
		n := len(b) - len(bytes.TrimLeft(b, "\x00"))
		switch {
		case n >= headerLen || d.run > 0 && d.padding:
			return w.runOf(d, n, true, nil, at)
		case n == len(b):
			return 0
		default:
			return w.runOf(d, n, false, ErrRecord, at)
		}
	}
	if b[0] == magic[0] {
		return w.resync(d, b, at)
	}
	if b[0] > typeBulk {
		return w.runOf(d, 1, false, ErrRecord, at)
	}
	if len(b) < headerLen {
		return 0
	}
	h, err := parseHeader(b)
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return w.runOf(d, 1, false, err, at)
	}
	total := headerLen + h.length + trailerLen
	if len(b) < total {
		return 0
	}
	return w.record(d, h, b[:total], at)
}

func (w *Watcher) resync(d *direction, b []byte, at time.Time) int {
	if n := min(len(b), len(magic)); string(b[:n]) != magic[:n] {
		return w.runOf(d, 1, false, ErrRecord, at)
	}
	if len(b) < resyncLen {
		return 0
	}
	r, err := decodeResync(b)
	if err != nil {
		return w.runOf(d, 1, false, fmt.Errorf("%w: a resync record with a wrong checksum", ErrRecord), at)
	}
	w.endRun(d, at)
	w.see(&Sight{From: d.from, At: at, Offset: d.at, Len: resyncLen, Kind: SightResync, Resync: Resync{
		Kind: r.kind.String(), MinVersion: r.minVersion, MaxVersion: r.maxVersion, Features: r.features,
		Nonce: r.nonce, Echo: r.echo, Build: r.build,
	}})
	// Of what a side sends the last record before those of the session has both nonces.
	switch hs := (handshake{}); {
	case r.kind == kindACK && d.from == SideGuest:
		hs.guest, hs.host = r.nonce, r.echo
		k := hs.keys()
		w.begin(d, lane{epoch: k.epoch, seal: k.guestSeal})
	case r.kind == kindGO && d.from == SideHost:
		hs.host, hs.guest = r.nonce, r.echo
		k := hs.keys()
		w.begin(d, lane{epoch: k.epoch, seal: k.hostSeal})
	}
	return resyncLen
}

// begin makes l the session of a direction, unless it is that already.
func (w *Watcher) begin(d *direction, l lane) {
	if d.inside && d.proven && d.lane.epoch == l.epoch {
		return
	}
	d.lane, d.inside, d.sealed, d.proven, d.hasOther = l, true, true, true, false
	w.forgetOthers()
}

// forgetOthers drops the streams of sessions that neither side is in.
func (w *Watcher) forgetOthers() {
	for k := range w.streams {
		if k.epoch != w.dirs[0].lane.epoch && k.epoch != w.dirs[1].lane.epoch {
			delete(w.streams, k)
		}
	}
}

// record takes a record whose header is intact.
func (w *Watcher) record(d *direction, h recordHeader, b []byte, at time.Time) int {
	seal := binary.BigEndian.Uint64(b[len(b)-trailerLen:]) ^ uint64(h.seq)
	s := &Sight{From: d.from, At: at, Offset: d.at, Len: len(b), Epoch: h.epoch, Seq: h.seq}
	switch {
	case !d.inside || h.epoch != d.lane.epoch && (!d.proven || d.hasOther && h.epoch == d.other.epoch && h.seq == d.other.seq+1):
		d.lane, d.inside, d.sealed, d.proven, d.hasOther = lane{epoch: h.epoch, seal: seal, seq: h.seq}, true, true, false, false
		s.Joined = true
		w.forgetOthers()
	case h.epoch != d.lane.epoch:
		d.other, d.hasOther = h, true
		s.Err = fmt.Errorf("%w: epoch %08x, want %08x", ErrEpoch, h.epoch, d.lane.epoch)
	case d.sealed && seal != d.lane.seal:
		if d.proven {
			return w.runOf(d, 1, false, fmt.Errorf("%w: record %d doesn't end where it should", ErrRecord, h.seq), at)
		}
		d.sealed = false // what it was taken from may have been the broken one
		return w.runOf(d, 1, false, fmt.Errorf("%w: the seal of record %d is not that of the one before", ErrRecord, h.seq), at)
	case h.seq != d.lane.seq:
		s.Err = fmt.Errorf("%w: record %d came where %d was due", ErrRecord, h.seq, d.lane.seq)
	}
	w.endRun(d, at)
	if h.epoch == d.lane.epoch {
		d.lane.seq = h.seq + 1
		if !d.sealed {
			d.lane.seal, d.sealed = seal, true
		}
	}
	s.Kind = SightClose
	if h.typ != typeClose {
		w.frame(d, s, h.typ == typeBulk, b[headerLen:len(b)-trailerLen])
	}
	w.see(s)
	return len(b)
}

// frame takes apart what a record carries.
func (w *Watcher) frame(d *direction, s *Sight, isBulk bool, payload []byte) {
	s.Kind, s.Bulk = SightFrame, isBulk
	var f frame
	var err error
	if isBulk {
		f, err = checkBulk(payload[:frameLen], len(payload)-frameLen, role(d.from))
	} else {
		f, err = checkFrame(payload, role(d.from))
	}
	s.Stream, s.FIN, s.RST = f.stream, f.has(flagFIN), f.has(flagRST)
	switch f.typ {
	case frameData:
		s.Type = "data"
		s.Data = payload[frameLen:]
	case frameWindow:
		s.Type, s.Window = "window", f.length
	case framePing:
		s.Type = "ping"
	case frameGoAway:
		s.Type = "go-away"
	default:
		s.Type = fmt.Sprintf("type %d", f.typ)
	}
	if err != nil {
		s.Err = err
		return
	}
	if f.typ <= frameWindow {
		w.stream(d, s, f)
	}
}

// stream keeps account of the stream that a frame belongs to.
func (w *Watcher) stream(d *direction, s *Sight, f frame) {
	k := streamKey{s.Epoch, s.Bulk, f.stream}
	if f.has(flagSYN) && opens(role(d.from), f.stream) && len(w.streams) < maxWatched {
		w.streams[k] = &watched{}
	}
	st := w.streams[k]
	if st == nil {
		return
	}
	if st.name == "" && opens(role(d.from), f.stream) {
		w.name(st, s, f)
	}
	s.Name = st.name
	if s.FIN {
		st.fins[d.from-SideHost] = true
	}
	if s.RST || st.fins[0] && st.fins[1] {
		delete(w.streams, k)
	}
}

// name takes a stream's name off its first bytes.
func (*Watcher) name(st *watched, s *Sight, f frame) {
	if s.Bulk {
		if f.has(flagSYN) {
			st.name, s.Data, s.Opens = string(s.Data), nil, true
			s.Err = checkName(st.name)
		}
		return
	}
	before := len(st.preface)
	st.preface = append(st.preface, s.Data[:min(len(s.Data), 1+maxName-before)]...)
	if len(st.preface) == 0 || len(st.preface) < 1+int(st.preface[0]) && int(st.preface[0]) <= maxName {
		s.Data = nil // not yet all of it
		return
	}
	name, err := readPreface(bytes.NewReader(st.preface))
	s.Opens, s.Err = true, err
	if st.name = name; err != nil {
		st.name = "?"
		return
	}
	s.Data = s.Data[1+len(name)-before:]
}

// runOf takes n bytes that are padding or garbage.
func (w *Watcher) runOf(d *direction, n int, padding bool, why error, at time.Time) int {
	if d.run > 0 && d.padding != padding {
		w.endRun(d, at)
	}
	if d.run == 0 {
		d.padding, d.reason = padding, why
	}
	d.run += n
	return n
}

// endRun tells of the padding or garbage that ends here.
func (w *Watcher) endRun(d *direction, at time.Time) {
	if d.run == 0 {
		return
	}
	s := &Sight{From: d.from, At: at, Offset: d.at - int64(d.run), Len: d.run, Kind: SightGarbage, Err: d.reason}
	if d.padding {
		s.Kind = SightPadding
	}
	d.run = 0
	w.see(s)
}
