package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"
)

// rounds is how often the tests that restart a side do so.
func rounds(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

// serve accepts sessions at the guest and echoes on all their streams.
func serve(t *testing.T, e *Endpoint) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s, err := e.Accept(ctx)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, ErrLink) {
					t.Errorf("Accept: %v", err)
				}
				return
			}
			go echoAll(s)
			<-s.Done()
		}
	}()
	return func() { cancel(); _ = e.Close(); <-done }
}

func echoAll(s *Session) {
	for {
		_, c, err := s.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, onlyReader{c})
			_ = c.Close()
		}()
	}
}

// use dials and proves that the session works.
func use(t *testing.T, e *Endpoint) *Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := e.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	useSession(t, s)
	return s
}

func useSession(t *testing.T, s *Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := s.Open(ctx, "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := bytes.Repeat([]byte("echo"), 2000)
	go func() { _, _ = c.Write(want) }()
	got := make([]byte, len(want))
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("echo: %v", err)
	}
}

// TestHostReconnects replaces the host agent again and again on one port: in
// order, cut off at any moment, and without the port noticing.
func TestHostReconnects(t *testing.T) {
	for name, silent := range map[string]bool{"noticed": false, "unnoticed": true} {
		t.Run(name, func(t *testing.T) {
			p := newPort()
			defer serve(t, endpoint(t, p))()
			for i := range rounds(300) {
				// The link of the one before is closed with whatever it was at.
				link := p.connect(t, silent)
				he := endpoint(t, link, func(c *Config) { c.SYNInterval = 50 * time.Millisecond })
				s := use(t, he)
				switch i % 3 {
				case 0:
					if err := s.Close(); err != nil {
						t.Fatalf("%d: %v", i, err)
					}
				case 1: // in the middle of bulk
					c, err := s.Open(context.Background(), "bulk")
					if err != nil {
						t.Fatal(err)
					}
					go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
					time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
				}
				_ = he.Close()
			}
		})
	}
}

// TestHalfARecord has a host agent die in the middle of a record, and the next
// one's bytes follow without anything in between. They must neither be taken for
// the rest of the record nor be waited for.
func TestHalfARecord(t *testing.T) {
	for _, cut := range []int{1, headerLen, headerLen + 5, 1000, maxRecord - 1} {
		p := newPort()
		ge := endpoint(t, p)
		link := &wrapped{Link: p.connect(t, false)}
		he := endpoint(t, link)
		s, gs := connect(t, he, ge)
		ping(t, s, gs, 10)
		c, err := s.Open(context.Background(), "bulk")
		if err != nil {
			t.Fatal(err)
		}
		_, gc, err := gs.Accept(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(gc); got <- b }()
		// The link lets the first record through up to the cut, and nothing more.
		link.set(func(at int, b []byte) []byte { return b[:min(len(b), max(0, cut-at))] })
		go func() { _, _ = c.Write(bytes.Repeat([]byte{0xaa}, maxPiece)) }()
		time.Sleep(20 * time.Millisecond)
		he2 := endpoint(t, p.connect(t, true), func(c *Config) { c.SYNInterval = 50 * time.Millisecond })
		_ = he.Close()
		start := time.Now()
		hs2, gs2 := connect(t, he2, ge)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("cut after %d: the next session took %v", cut, d)
		}
		if b := <-got; len(b) != 0 {
			t.Errorf("cut after %d: %d bytes of a half record were delivered", cut, len(b))
		}
		ping(t, hs2, gs2, 100)
		closeBoth(t, hs2, gs2)
	}
}

// TestGuestRestarts restarts the controller agent on one port: the host's end
// sees nothing of it but what the new agent says.
func TestGuestRestarts(t *testing.T) {
	h, g := socketLinks(t)
	he := endpoint(t, h)
	var last *Session
	for i := range rounds(300) {
		link := &keepOpen{Link: g}
		ge := endpoint(t, link)
		stop := serve(t, ge)
		if last != nil {
			wait(t, last) // the new agent's HELLO ends it
			if !errors.Is(last.Err(), ErrSuperseded) && !errors.Is(last.Err(), ErrRecord) {
				t.Fatalf("%d: %v", i, last.Err())
			}
		}
		last = use(t, he)
		switch i % 3 {
		case 0:
			if err := last.Close(); err != nil {
				t.Fatal(err)
			}
			last = nil
		case 1:
			c, err := last.Open(context.Background(), "bulk")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
			go func() { _, _ = io.Copy(io.Discard, c) }()
			time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
		}
		stop()
	}
}

// keepOpen is a process that ends: its end of the device stays.
type keepOpen struct{ Link }

func (k *keepOpen) Close() error { return k.SetReadDeadline(aLongTimeAgo) }

// TestOldBytes puts all kinds of old bytes before the first record of either.
func TestOldBytes(t *testing.T) {
	old := samples()
	oldSYN, oldACK, oldGO := old["syn"], old["ack"], old["go"]
	oldHello := old["hello"]
	var records []byte
	l := lane{epoch: 0x01020304, seal: 5}
	oldSYN.maxVersion = ProtocolVersion
	for range 10 {
		b := make([]byte, headerLen+maxPayload+trailerLen)
		l.putHeader(b, typeData, maxPayload)
		l.putTrailer(b[headerLen+maxPayload:])
		l.seq++
		records = append(records, b...)
	}
	closing := make([]byte, headerLen+trailerLen)
	l.putHeader(closing, typeClose, 0)
	l.putTrailer(closing[headerLen:])
	for name, bytes := range map[string][]byte{
		"1 MB of garbage":      garbage(1 << 20),
		"records":              records,
		"the tail of a record": records[100:maxRecord],
		"a record's beginning": records[:100],
		"a close":              closing,
		"half a SYN":           oldSYN.append(nil)[:100],
		"a whole resync":       oldGO.append(oldACK.append(oldSYN.append(oldHello.append(nil)))),
		"a SYN and a tail":     append(oldSYN.append(nil), records[5000:9000]...),
		"magics":               []byte(magic + magic + magic[:5]),
	} {
		t.Run(name, func(t *testing.T) {
			h, g := socketLinks(t)
			go func() { _, _ = g.Write(bytes) }()
			go func() { _, _ = h.Write(bytes) }()
			time.Sleep(5 * time.Millisecond)
			hs, gs := connect(t, endpoint(t, h), endpoint(t, g))
			ping(t, hs, gs, 1000)
			closeBoth(t, hs, gs)
		})
	}
}

// TestRevive tears a session apart as a snapshot does that was taken without a
// close: the guest lives on in the middle of a session with a host that is gone,
// and what it was writing comes out first.
func TestRevive(t *testing.T) {
	p := newPort()
	defer serve(t, endpoint(t, p))()
	for i := range rounds(300) {
		link := p.connect(t, true)
		tail := garbage(1 + rand.IntN(5000))
		first := &prefixed{Link: link, b: tail}
		he := endpoint(t, first, func(c *Config) { c.SYNInterval = 20 * time.Millisecond })
		s := use(t, he)
		if i%2 == 0 {
			c, err := s.Open(context.Background(), "bulk")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(make([]byte, 200_000))
		}
		_ = he.Close() // no close record
	}
}

// prefixed is a link from which something old comes first.
type prefixed struct {
	Link
	b []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.b) > 0 {
		n := copy(b, p.b)
		p.b = p.b[n:]
		return n, nil
	}
	return p.Link.Read(b)
}

// TestBadLink damages the stream in the middle of a session. The session must
// end with an error, and the next one work.
func TestBadLink(t *testing.T) {
	flip := func(b []byte) []byte { b[rand.IntN(min(len(b), headerLen))] ^= 0x10; return b }
	for name, mangle := range map[string]func([]byte) []byte{
		"garbled":   flip,
		"doubled":   func(b []byte) []byte { return append(b, b...) },
		"shortened": func(b []byte) []byte { return b[:len(b)-1] },
		"lost":      func([]byte) []byte { return nil },
		"inserted":  func(b []byte) []byte { return append([]byte("x"), b...) },
		"echoed":    func(b []byte) []byte { return append(b, garbage(100)...) },
	} {
		t.Run(name, func(t *testing.T) {
			h, g := socketLinks(t)
			link := &wrapped{Link: h}
			he, ge := endpoint(t, link), endpoint(t, g)
			defer serve(t, ge)()
			for i := range 20 {
				s := use(t, he)
				done := false
				link.set(func(at int, b []byte) []byte {
					if at < 3000*i || done {
						return b
					}
					done = true
					return mangle(b)
				})
				c, err := s.Open(context.Background(), "echo")
				if err == nil {
					go func() { _, _ = io.Copy(io.Discard, c) }()
					for err == nil {
						_, err = c.Write(make([]byte, 1000))
					}
				}
				wait(t, s)
				link.set(nil)
				if errors.Is(s.Err(), ErrClosed) {
					t.Fatalf("%d: damage went unnoticed: %v", i, s.Err())
				}
			}
			s := use(t, he)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	speak := func(lo, hi uint16, build string) func(*Config) {
		return func(c *Config) { c.MinVersion, c.MaxVersion, c.Build = lo, hi, build }
	}
	h, g := socketLinks(t)
	he, ge := endpoint(t, h, speak(3, 4, "new")), endpoint(t, g, speak(1, 2, "old"))
	c := make(chan error, 1)
	go func() { _, err := ge.Accept(timeout(t, 10*time.Second)); c <- err }()
	_, err := he.Dial(timeout(t, 10*time.Second))
	for who, err := range map[string]error{"host": err, "guest": <-c} {
		var v *VersionError
		if !errors.Is(err, ErrVersion) || !errors.As(err, &v) {
			t.Fatalf("%s: %v", who, err)
		}
		if v.LocalMin+v.PeerMin != 4 || v.LocalMax+v.PeerMax != 6 || v.LocalBuild+v.PeerBuild != "oldnew" && v.LocalBuild+v.PeerBuild != "newold" {
			t.Errorf("%s: %v", who, err)
		}
	}
	// The same guest goes on, and another host fits.
	h2, g2 := socketLinks(t)
	hs, gs := connect(t, endpoint(t, h2, speak(1, 3, "")), endpoint(t, g2, speak(2, 7, "")))
	if hs.Version() != 3 || gs.Version() != 3 {
		t.Errorf("agreed on %d, %d", hs.Version(), gs.Version())
	}
}
