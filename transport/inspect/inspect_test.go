package inspect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/hostagent/hostfs"
	"winvm/transport/agentrpc"
	"winvm/transport/capture"
	"winvm/transport/fsrpc"
	"winvm/transport/inspect"
	"winvm/transport/mux"
	"winvm/transport/rpc"
	"winvm/transport/virtioserial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorded is a link that notes packets, as a Tap does.
type recorded struct {
	mux.Link
	mu      *sync.Mutex
	packets *[]capture.Packet
	at      [2]int64
}

func (r *recorded) note(from mux.Side, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := from - mux.SideHost
	*r.packets = append(*r.packets, capture.Packet{At: time.Now(), From: from, Offset: r.at[i], Data: bytes.Clone(b)})
	r.at[i] += int64(len(b))
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Link.Read(p)
	if n > 0 {
		r.note(mux.SideGuest, p[:n])
	}
	return n, err
}

func (r *recorded) Write(p []byte) (int, error) {
	r.note(mux.SideHost, p)
	return r.Link.Write(p)
}

// record makes a session in which a guest works on a share, an agent is asked and a
// command runs, and returns what passed. The share has a file "big" of 300,000 bytes.
func record(t testing.TB) []capture.Packet {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "big"), bytes.Repeat([]byte("0123456789"), 30000), 0o644); err != nil {
		t.Fatal(err)
	}
	h, f, err := virtioserial.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	g, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var packets []capture.Packet
	host, err := mux.NewEndpoint(&recorded{Link: h, mu: &mu, packets: &packets}, mux.Config{Build: "host build"})
	if err != nil {
		t.Fatal(err)
	}
	guest, err := mux.NewEndpoint(g.(*net.UnixConn), mux.Config{Build: "guest build"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { playGuest(ctx, t, guest) })
	hs, err := host.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := hs.Open(ctx, agentrpc.StreamAgent)
	if err != nil {
		t.Fatal(err)
	}
	client := agentrpc.NewClient(agent)
	if _, err := client.Info(ctx); err != nil {
		t.Error(err)
	}
	_ = client.Close()
	ex, err := hs.Open(ctx, agentrpc.StreamExec)
	if err != nil {
		t.Fatal(err)
	}
	e := agentrpc.NewExecConn(ex)
	if err := e.WriteJSON(agentrpc.FrameStart, agentrpc.ExecStart{Command: "dir"}); err != nil {
		t.Error(err)
	}
	_, _, _ = e.Read()
	_, _, _ = e.Read()
	_ = e.Close()
	name, share, err := hs.Accept(ctx)
	if err != nil || name != "fs/xchg" {
		t.Fatal(name, err)
	}
	tree, err := hostfs.New(hostfs.Config{Root: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_ = fsrpc.ServeTree(ctx, share, tree, slog.New(slog.DiscardHandler))
	_ = tree.Close()
	<-hs.Done()
	wg.Wait()
	_ = host.Close()
	_ = guest.Close()
	return packets
}

func playGuest(ctx context.Context, t testing.TB, ep *mux.Endpoint) {
	s, err := ep.Accept(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	_, conn, err := s.Accept(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	_ = rpc.Serve(ctx, conn, func(_ context.Context, _ uint16, _, _ []byte, resp *rpc.Response) error {
		resp.Append([]byte(`{"smbd_pid":7}`))
		return nil
	}, fsrpc.ToErrno, rpc.Limits{MaxRequest: 1 << 20, InFlight: 1}, slog.New(slog.DiscardHandler))
	_, conn, err = s.Accept(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	e := agentrpc.NewExecConn(conn)
	_, _, _ = e.Read()
	_ = e.Write(agentrpc.FrameStdout, []byte("hello\r\n"))
	status := uint32(3)
	_ = e.WriteJSON(agentrpc.FrameExit, agentrpc.ExecExit{Status: &status})
	_ = e.Close()
	work(ctx, t, s)
	_ = s.Close()
}

// work is what the guest does with the share.
func work(ctx context.Context, t testing.TB, s *mux.Session) {
	conn, err := s.OpenBulk(ctx, "fs/xchg")
	if err != nil {
		t.Error(err)
		return
	}
	c, err := fsrpc.AttachTree(ctx, conn)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	a, err := c.Lookup(ctx, fsrpc.RootNode, "big")
	if err != nil {
		t.Error(err)
		return
	}
	fh, err := c.Open(ctx, a.Node, 0)
	if err != nil {
		t.Error(err)
		return
	}
	buf := make([]byte, 300000)
	if n, err := c.Read(ctx, fh, 0, buf); err != nil || n != len(buf) {
		t.Error(n, err)
	}
	_ = c.Release(ctx, fh)
	if _, err := c.Lookup(ctx, fsrpc.RootNode, "none"); err == nil {
		t.Error("there is a file called none")
	}
	_, fh, err = c.Create(ctx, fsrpc.RootNode, "new", uint32(os.O_RDWR), 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := c.Write(ctx, fh, 0, bytes.Repeat([]byte("x"), 100000)); err != nil {
		t.Error(err)
	}
	_ = c.Release(ctx, fh)
}

// decode returns the events of packets, by way of a file.
func decode(t testing.TB, packets []capture.Packet) []*inspect.Event {
	t.Helper()
	r, err := capture.NewReader(bytes.NewReader(capture.Bytes(packets)))
	if err != nil {
		t.Fatal(err)
	}
	var events []*inspect.Event
	d := inspect.NewDecoder(func(e *inspect.Event) {
		c := *e
		c.Frame = nil
		events = append(events, &c)
	})
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		d.Packet(&p)
	}
	d.End()
	return events
}

func choose(t testing.TB, events []*inspect.Event, filter string) (out []*inspect.Event) {
	t.Helper()
	f, err := inspect.NewFilter(filter)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if f.Match(e) {
			out = append(out, e)
		}
	}
	return out
}

func lines(events []*inspect.Event) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.String() + "\n")
	}
	return b.String()
}

// Every layer of a session is seen, from its beginning to its end.
func TestDecode(t *testing.T) {
	events := decode(t, record(t))
	all := lines(events)
	for filter, want := range map[string]int{
		"problem":                                      0,
		"kind==GO && layer==resync":                    1,
		"layer==record && kind==close":                 2,
		"kind==open":                                   3,
		"op==info && kind==request":                    1,
		"op==info && text~smbd_pid && ms>=0":           1,
		"layer==exec && kind==stdout && text~hello":    1,
		"layer==exec && kind==exit && text~3":          1,
		"op==lookup && kind==request":                  2,
		"errno==ENOENT":                                1,
		"op==read && kind==request && length==300000":  1,
		"op==read && kind==response && bytes==300000":  1,
		"op==write && kind==request && length==100000": 1,
		"op==create && name==new":                      1,
		"share==xchg && kind==response && !(ms>=0)":    0,
	} {
		if got := choose(t, events, filter); len(got) != want {
			t.Errorf("%s: %d events, want %d:\n%s", filter, len(got), want, lines(got))
		}
	}
	if t.Failed() {
		t.Log(all)
	}
	for _, e := range events {
		b, err := json.Marshal(e)
		if err != nil || !json.Valid(b) {
			t.Errorf("%v: %v", e, err)
		}
		if strings.ContainsAny(e.String(), "\n\r\x1b") {
			t.Errorf("more than a line: %q", e)
		}
	}
}

// What is damaged is named, and what comes after it is there.
func TestDecodeDamaged(t *testing.T) {
	packets := record(t)
	for name, damage := range map[string]func([]capture.Packet) []capture.Packet{
		"a bit of a header": func(p []capture.Packet) []capture.Packet {
			i := busiest(p)
			for i--; p[i].From != mux.SideHost; i-- {
			}
			p[i].Data = bytes.Clone(p[i].Data) // with the header of the record, and perhaps the trailer before it
			p[i].Data[len(p[i].Data)-28] ^= 4  // in the header, with or without a head of 12 bytes behind the frame's
			return p
		},
		"a packet is missing": func(p []capture.Packet) []capture.Packet {
			i := busiest(p)
			return append(append([]capture.Packet(nil), p[:i]...), p[i+1:]...)
		},
		"bytes are missing": func(p []capture.Packet) []capture.Packet {
			i := busiest(p)
			p[i].Data = p[i].Data[:len(p[i].Data)-3]
			shift(p[i+1:], p[i].From, -3)
			return p
		},
		"garbage in between": func(p []capture.Packet) []capture.Packet {
			i := busiest(p)
			p[i].Data = append(bytes.Clone(p[i].Data), "\x01\x02\xf7winvm"...)
			shift(p[i+1:], p[i].From, 8)
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			events := decode(t, damage(append([]capture.Packet(nil), packets...)))
			if len(choose(t, events, "problem")) == 0 {
				t.Error("nothing is wrong")
			}
			for _, filter := range []string{"kind==GO", "op==create && kind==response", "op==write && kind==request", "layer==record && kind==close"} {
				if len(choose(t, events, filter)) == 0 {
					t.Errorf("%s: none in\n%s", filter, lines(events))
				}
			}
		})
	}
}

// busiest is the packet of the host's that is in the middle of the large read's response.
func busiest(p []capture.Packet) int {
	best := 0
	for i := range p {
		if p[i].From == mux.SideHost && bytes.Contains(p[i].Data, []byte("0123456789")) && len(p[i].Data) > len(p[best].Data) {
			best = i
		}
	}
	return best
}

func shift(p []capture.Packet, from mux.Side, by int64) {
	for i := range p {
		if p[i].From == from {
			p[i].Offset += by
		}
	}
}

// A capture that begins within a session says so, and finds the shares' requests.
func TestDecodeFromTheMiddle(t *testing.T) {
	packets := record(t)
	begin := 0
	for i, e := range decodeAt(packets) {
		if e {
			begin = i
			break
		}
	}
	events := decode(t, packets[begin:])
	if len(choose(t, events, "kind==open")) != 0 || len(choose(t, events, "problem && !kind==missing && !text~middle")) != 0 {
		t.Errorf("got\n%s", lines(events))
	}
	for _, filter := range []string{"text~\"middle of a session\"", "op==open && kind==request", "op==read && kind==response && bytes==300000 && ms>=0"} {
		if len(choose(t, events, filter)) == 0 {
			t.Errorf("%s: none in\n%s", filter, lines(events))
		}
	}
}

// decodeAt tells of each packet whether the first open request is complete with it.
func decodeAt(packets []capture.Packet) []bool {
	out := make([]bool, len(packets))
	at := 0
	d := inspect.NewDecoder(func(e *inspect.Event) {
		if e.Op == "lookup" && e.Kind == inspect.KindResponse {
			out[at] = true
		}
	})
	for i := range packets {
		at = i
		d.Packet(&packets[i])
	}
	return out
}

func TestStats(t *testing.T) {
	packets := record(t)
	s := inspect.NewStats()
	d := inspect.NewDecoder(s.Add)
	for i := range packets {
		s.Link(packets[i].From, len(packets[i].Data))
		d.Packet(&packets[i])
	}
	r := s.Report()
	ops := map[string]inspect.OpReport{}
	for _, o := range r.Ops {
		ops[o.Stream+" "+o.Op] = o
	}
	if o := ops["fs/xchg lookup"]; o.Count != 2 || o.Answered != 2 || o.Failed != 1 || o.P50 <= 0 || o.P99 < o.P50 || o.Max < o.P99 {
		t.Errorf("%+v", o)
	}
	if o := ops["fs/xchg read"]; o.Bytes < 300000 {
		t.Errorf("%+v", o)
	}
	if len(r.Shares) != 1 || r.Shares[0].Files != 2 || r.Shares[0].PerFile < 2 {
		t.Errorf("%+v", r.Shares)
	}
	if r.InFlight != 0 || r.MaxInFlight < 1 || r.HostBytes < 300000 || r.GuestBytes < 100000 || r.Problems != 0 {
		t.Errorf("%+v", r)
	}
	var b bytes.Buffer
	if err := r.Print(&b); err != nil || !strings.Contains(b.String(), "round trips a file") {
		t.Errorf("%v: %s", err, &b)
	}
}

func TestFilter(t *testing.T) {
	e := &inspect.Event{Kind: inspect.KindResponse, Op: "read", Latency: 7 * time.Millisecond, Stream: "fs/xchg", StreamID: 1, Bytes: 100, From: mux.SideHost}
	for text, want := range map[string]bool{
		"": true, "op==read": true, "op == read && ms > 5": true, "op==read&&ms>7": false, "ms>=7": true, "ms<10": true,
		"op!=write": true, "!op==read": false, "(op==write||op==read)&&bytes==100": true, `stream=="fs/xchg"`: true,
		"stream==fs/xchg": true, "share~xc": true, "problem": false, "bytes": true, "handle==1": false, "handle!=1": true,
		"handle<5": false, "from==host": true, "tag": false, "op==write || op==read && bytes>1000": false,
	} {
		f, err := inspect.NewFilter(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := f.Match(e); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	for _, text := range []string{"op==", "==read", "op=read", "(op==read", "op==read)", "op read", `op=="read`, "&&", "op==read &&", "!", strings.Repeat("(", 1000), strings.Repeat("!", 1000) + "op"} {
		if _, err := inspect.NewFilter(text); !errors.Is(err, inspect.ErrFilter) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzDecode: whatever a capture has, decoding ends, and each event is one line.
func FuzzDecode(f *testing.F) {
	packets := record(f)
	for i := range packets {
		packets[i].Data = packets[i].Data[:min(len(packets[i].Data), 2000)]
	}
	whole := capture.Bytes(packets)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(append(bytes.Clone(whole[:500]), whole[700:]...))
	f.Add(capture.Preamble())
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := capture.NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		s := inspect.NewStats()
		d := inspect.NewDecoder(func(e *inspect.Event) {
			s.Add(e)
			if strings.ContainsAny(e.String(), "\n\r\x1b") {
				t.Errorf("%q", e)
			}
			if _, err := json.Marshal(e); err != nil {
				t.Error(err)
			}
		})
		for range 1 + len(file) {
			p, err := r.Next()
			switch {
			case err == nil:
				d.Packet(&p)
			case errors.Is(err, capture.ErrDamaged):
				d.Problem(err)
			default:
				d.End()
				s.Report()
				return
			}
		}
		t.Error("the capture doesn't end")
	})
}
