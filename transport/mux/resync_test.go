package mux

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"winvm/transport/virtioserial"
)

var update = flag.Bool("update", false, "write the golden files anew")

func someNonce(first byte) (n nonce) {
	for i := range n {
		n[i] = first + byte(i)
	}
	return n
}

// samples are resync records for golden bytes and as seeds.
func samples() map[string]resync {
	host, guest := someNonce(0x10), someNonce(0x80)
	return map[string]resync{
		"syn":    {kind: kindSYN, role: roleHost, minVersion: 1, maxVersion: 1, features: 0x0102030405060708, nonce: host, build: "hostagent 1.0"},
		"ack":    {kind: kindACK, role: roleGuest, minVersion: 1, maxVersion: 2, features: 1, nonce: guest, echo: host, build: "controlleragent 1.0"},
		"go":     {kind: kindGO, role: roleHost, minVersion: 1, maxVersion: 1, nonce: host, echo: guest},
		"refuse": {kind: kindREFUSE, role: roleGuest, minVersion: 7, maxVersion: 9, echo: host, build: strings.Repeat("b", buildLen)},
		"hello":  {kind: kindHELLO, role: roleGuest, minVersion: 1, maxVersion: 1},
	}
}

func TestResyncGolden(t *testing.T) {
	for name, r := range samples() {
		b := r.append([]byte("before"))[len("before"):]
		if len(b) != resyncLen {
			t.Fatalf("%s: %d bytes", name, len(b))
		}
		golden(t, name, b)
		got, err := decodeResync(b)
		if err != nil || got != r {
			t.Errorf("%s: decoded %+v, %v; want %+v", name, got, err, r)
		}
		for i := range b { // no single bit may be wrong
			bad := bytes.Clone(b)
			bad[i] ^= 1 << (i % 8)
			if _, err := decodeResync(bad); err == nil {
				t.Errorf("%s: damaged at %d and taken", name, i)
			}
		}
	}
}

func TestRecordGolden(t *testing.T) {
	hs := handshake{host: someNonce(0x10), guest: someNonce(0x80)}
	k := hs.keys()
	l := lane{epoch: k.epoch, seal: k.hostSeal}
	var b []byte
	opened := make([]byte, frameLen, frameLen+1)
	frame{typ: frameData, flags: flagSYN, stream: 1, length: 1}.put(opened)
	for i, payload := range [][]byte{[]byte("\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x00\x00"), append(opened, 'x'), nil} {
		typ := []byte{typeData, typeBulk, typeClose}[i]
		var h [headerLen]byte
		var tr [trailerLen]byte
		l.putHeader(h[:], typ, len(payload))
		l.putTrailer(tr[:])
		gotTyp, n, err := l.header(h[:])
		if err != nil || gotTyp != typ || n != len(payload) || l.trailer(tr[:]) != nil {
			t.Fatalf("header: %d, %d, %v", gotTyp, n, err)
		}
		b = append(append(append(b, h[:]...), payload...), tr[:]...)
		l.seq++
	}
	golden(t, "records", b)
}

func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".hex")
	got := hex.Dump(b)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: the bytes on the wire have changed:\n%swant:\n%s", name, got, want)
	}
}

func TestMagic(t *testing.T) {
	if len(magic) != 16 || strings.LastIndexByte(magic, magic[0]) != 0 {
		t.Error("magic's first byte must be in it once")
	}
	if magic[0] == typeData || magic[0] == typeClose || magic[0] == 0 {
		t.Error("magic could be the header of a record")
	}
}

func TestNextResync(t *testing.T) {
	syn := samples()["syn"]
	whole := syn.append(nil)
	for name, before := range map[string][]byte{
		"nothing":       nil,
		"1 MB":          garbage(1 << 20),
		"half a SYN":    whole[:70],
		"half and half": append(bytes.Clone(whole[:127]), whole[:16]...),
		"wrong CRC":     append(bytes.Clone(whole[:127]), whole[127]^1),
		"magics":        bytes.Repeat([]byte(magic), 1000),
		"firsts":        bytes.Repeat([]byte{magic[0]}, 1000),
		"pad":           make([]byte, padLen),
	} {
		in := append(bytes.Clone(before), whole...)
		for chunk, r := range map[string]io.Reader{
			"whole": bytes.NewReader(in), "half": iotest.HalfReader(bytes.NewReader(in)),
			"bytes": iotest.OneByteReader(bytes.NewReader(in)),
		} {
			br := bufio.NewReaderSize(r, readBuf)
			got, n, err := nextResync(br)
			if err != nil || got != syn || n != len(before) || br.Buffered() != 0 {
				t.Errorf("%s, %s: %+v, %d discarded, %v", name, chunk, got, n, err)
			}
			if _, _, err := nextResync(br); !errors.Is(err, io.EOF) {
				t.Errorf("%s, %s: at the end: %v", name, chunk, err)
			}
		}
	}
}

// TestNextResyncMemory: a lot of garbage takes no memory.
func TestNextResyncMemory(t *testing.T) {
	br := bufio.NewReaderSize(io.LimitReader(zeros{}, 1<<28), readBuf)
	if allocs := testing.AllocsPerRun(1, func() { _, _, _ = nextResync(br) }); allocs > 2 {
		t.Errorf("%v allocations", allocs)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func garbage(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// FuzzNextResync: whatever comes before, a whole record is found, and only
// whole ones are.
func FuzzNextResync(f *testing.F) {
	for _, r := range samples() {
		b := r.append(nil)
		f.Add(b, uint8(0))
		f.Add(b[:64], uint8(1))
		f.Add(append([]byte("\xf7\xf7winvm"), b...), uint8(7))
	}
	f.Add([]byte(magic), uint8(3))
	f.Add([]byte{}, uint8(0))
	last := resync{kind: kindSYN, role: roleHost, nonce: someNonce(0x33), build: "last"}
	f.Fuzz(func(t *testing.T, before []byte, chunk uint8) {
		in := append(bytes.Clone(before), last.append(nil)...)
		br := bufio.NewReaderSize(&chunked{in, int(chunk)}, readBuf)
		total := 0
		for {
			r, n, err := nextResync(br)
			total += n
			if err != nil {
				t.Fatalf("the record at the end was not found: %v", err)
			}
			total += resyncLen
			if r == last && total == len(in) {
				return
			}
			if again, err := decodeResync(r.append(nil)); err != nil || again != r {
				t.Fatalf("%+v encodes to %+v, %v", r, again, err)
			}
		}
	})
}

type chunked struct {
	b []byte
	n int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	if c.n > 0 && len(p) > c.n {
		p = p[:c.n]
	}
	n := copy(p, c.b)
	c.b = c.b[n:]
	return n, nil
}

// FuzzRecords feeds a session's reader. It must end with one of its errors, have
// handed yamux nothing but checked frames, and have kept what it didn't take.
func FuzzRecords(f *testing.F) {
	hs := handshake{role: roleHost, host: someNonce(0x10), guest: someNonce(0x80)}
	k := hs.keys()
	record := func(seq uint32, typ byte, payload string) []byte {
		l := lane{epoch: k.epoch, seal: k.guestSeal, seq: seq}
		b := make([]byte, headerLen, maxRecord)
		l.putHeader(b, typ, len(payload))
		b = append(b, payload...)
		b = b[:len(b)+trailerLen]
		l.putTrailer(b[len(b)-trailerLen:])
		return b
	}
	open := record(0, typeData, "\x00\x01\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00")
	data := record(1, typeData, "\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x05\x04echo")
	f.Add(append(bytes.Clone(open), data...))
	f.Add(append(bytes.Clone(open), record(1, typeClose, "")...))
	f.Add(append(bytes.Clone(open), open...))
	f.Add(record(0, typeData, "\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")) // ping
	f.Add(append(bytes.Clone(open[:30]), make([]byte, padLen)...))
	bulk := record(0, typeBulk, "\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x01x")
	f.Add(append(bytes.Clone(bulk), record(1, typeBulk, "\x00\x00\x00\x04\x00\x00\x00\x02\x00\x00\x00\x03abc")...))
	f.Add(append(bytes.Clone(bulk), record(1, typeBulk, "\x00\x01\x00\x08\x00\x00\x00\x02\x00\x00\x00\x00")...))
	for _, r := range samples() {
		f.Add(append(bytes.Clone(open), r.append(nil)...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := NewEndpoint(&readOnly{b: bytes.Clone(in)}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		c := newRecordConn(e, hs)
		c.s = &Session{conn: c, ep: e, fins: map[uint32]struct{}{}, slots: make(chan struct{}, 2), accepted: make(chan named, 2)}
		c.s.bulk = newBulks(c.s, roleHost)
		c.s.taken.Store(1 << 40) // nothing to settle
		got, err := io.ReadAll(c)
		if err == nil {
			err = c.why()
		}
		for id, st := range c.s.bulk.streams {
			if !opens(roleGuest, id) || st.queue.len+int(st.window) != minWindow {
				t.Errorf("stream %d: %d bytes wait, %d more may come", id, st.queue.len, st.window)
			}
		}
		known := false
		for _, k := range []error{ErrClosed, ErrPeerGone, ErrSuperseded, ErrEpoch, ErrRecord, ErrProtocol} {
			known = known || errors.Is(err, k)
		}
		if !known {
			t.Errorf("ended with %v", err)
		}
		for len(got) > 0 {
			if len(got) < frameLen {
				t.Fatalf("part of a frame: %x", got)
			}
			n := frameLen
			if h := parseFrame(got); h.hasBody() {
				n += int(h.length)
			}
			if n > len(got) {
				t.Fatalf("part of a frame: %x", got)
			}
			if _, err := checkFrame(got[:n], roleGuest); err != nil {
				t.Fatal(err)
			}
			got = got[n:]
		}
	})
}

type readOnly struct {
	Link
	b []byte
}

func (r *readOnly) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}
func (*readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (*readOnly) SetReadDeadline(time.Time) error  { return nil }
func (*readOnly) SetWriteDeadline(time.Time) error { return nil }

// A late port reads a host's bytes before it knows of the host.
type latePort struct {
	*port
	mu    sync.Mutex
	read  bool
	known chan struct{}
}

func (p *latePort) Read(b []byte) (int, error) {
	n, err := p.port.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > 0 && !p.read {
		p.read = true
		time.AfterFunc(10*time.Millisecond, func() { close(p.known) })
	}
	return n, err
}

func (p *latePort) Write(b []byte) (int, error) {
	select {
	case <-p.known:
		return p.port.Write(b)
	default:
		return 0, virtioserial.ErrPeerGone
	}
}

func (p *latePort) WaitHost() error {
	<-p.known
	return nil
}

// A SYN that overtakes the news of its host is answered all the same, and not only when
// it is repeated.
func TestSYNBeforeTheHostIsKnown(t *testing.T) {
	p := &latePort{port: newPort(), known: make(chan struct{})}
	guest := endpoint(t, p)
	guest.quiet = true // as after a close in order
	defer serve(t, guest)()
	host := endpoint(t, p.connect(t, false), func(c *Config) { c.SYNInterval, c.SYNIntervalMax = time.Hour, time.Hour })
	use(t, host).Abort(ErrClosed)
}
