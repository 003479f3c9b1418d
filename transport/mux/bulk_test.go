package mux

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// numbered returns n bytes of which no two records are alike.
func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16 ^ i>>8 ^ i*7)
	}
	return b
}

// streams opens a stream from the host.
func streams(t *testing.T, hs, gs *Session) (h, g *Bulk) {
	t.Helper()
	c, err := hs.OpenBulk(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	_, peer, err := gs.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Bulk), peer.(*Bulk)
}

// TestFullAndParts moves bytes with the calls that save copies, in pieces of any
// length, more at once than the window holds, both ways at the same time.
func TestFullAndParts(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		small := func(c *Config) { c.Window = minWindow }
		hs, gs := connect(t, endpoint(t, host, small), endpoint(t, guest, small))
		h, g := streams(t, hs, gs)
		want := numbered(3*minWindow + 77)
		errc := make(chan error, 4)
		for _, st := range []*Bulk{h, g} {
			go func() {
				left := want
				for len(left) > 0 {
					n := min(len(left), 1+rand.IntN(1+rand.IntN(300_000)))
					head := rand.IntN(min(n, 100) + 1)
					k, err := st.WriteParts(left[:head], left[head:n])
					if err != nil || k != n {
						errc <- errors.Join(err, io.ErrShortWrite)
						return
					}
					left = left[n:]
				}
				errc <- st.CloseWrite()
			}()
			go func() {
				got := make([]byte, len(want))
				var err error
				for done := 0; done < len(got) && err == nil; {
					part := got[done:min(len(got), done+1+rand.IntN(2*minWindow))]
					if rand.IntN(3) == 0 {
						var n int
						n, err = st.Read(part)
						done += n
						continue
					}
					_, err = st.ReadFull(part)
					done += len(part)
				}
				if err == nil && !bytes.Equal(got, want) {
					err = errors.New("other bytes")
				}
				if n, end := st.ReadFull(make([]byte, 1)); err == nil && (n != 0 || end != io.EOF) { //nolint:errorlint // as io.ReadFull
					err = errors.New("no end")
				}
				errc <- err
			}()
		}
		for range 4 {
			if err := <-errc; err != nil {
				t.Error(err)
			}
		}
		closeBoth(t, hs, gs)
	})
}

// TestFullCut: a ReadFull that can't be filled says so, with what there was.
func TestFullCut(t *testing.T) {
	h, g := socketLinks(t)
	hs, gs := connect(t, endpoint(t, h), endpoint(t, g))
	for name, c := range map[string]struct {
		end  func(w, r *Bulk)
		want error
	}{
		"end":      {func(w, _ *Bulk) { _ = w.Close() }, io.ErrUnexpectedEOF},
		"deadline": {func(_, r *Bulk) { _ = r.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) }, os.ErrDeadlineExceeded},
		"close":    {func(_, r *Bulk) { time.Sleep(20 * time.Millisecond); _ = r.Close() }, net.ErrClosed},
	} {
		w, r := streams(t, hs, gs)
		if _, err := w.Write(numbered(100_000)); err != nil {
			t.Fatal(err)
		}
		go c.end(w, r)
		p := make([]byte, 200_000)
		n, err := r.ReadFull(p)
		if !errors.Is(err, c.want) || n != 100_000 || !bytes.Equal(p[:n], numbered(n)) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		_, _ = w.Close(), r.Close()
	}
	closeBoth(t, hs, gs)
}

// TestStuckInARecord: a peer that stops in the middle of a record, whose bytes were
// going into a Read's buffer, doesn't keep that Read for ever.
func TestStuckInARecord(t *testing.T) {
	h, g := socketLinks(t)
	link := &wrapped{Link: h}
	hs, gs := connect(t, endpoint(t, link), endpoint(t, g, func(c *Config) { c.CloseTimeout = 50 * time.Millisecond }))
	w, r := streams(t, hs, gs)
	done := make(chan error, 1)
	go func() { _, err := r.ReadFull(make([]byte, 100_000)); done <- err }()
	time.Sleep(10 * time.Millisecond)
	link.set(func(at int, b []byte) []byte { return b[:min(len(b), max(0, 20_000-at))] })
	go func() { _, _ = w.Write(make([]byte, 60_000)) }()
	time.Sleep(20 * time.Millisecond)
	go func() { _ = r.Close() }()
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the Read waits for the rest of the record")
	}
	wait(t, gs)
	if !errors.Is(gs.Err(), ErrRecord) {
		t.Error(gs.Err())
	}
	hs.Abort(io.EOF)
}

// TestQueueMemory: what waits to be read takes no more memory than a few times its
// length, however it came.
func TestQueueMemory(t *testing.T) {
	for _, sizes := range [][]int{{1}, {1, minChunk}, {minChunk, 1, 1}, {fullChunk/2 + 1}, {fullChunk/2 + 1, 1}, {maxPiece, 3}} {
		var q queue
		var want []byte
		for i := 0; q.len < 1<<20; i++ {
			c := newChunk(sizes[i%len(sizes)])
			c.buf = append(c.buf, numbered(sizes[i%len(sizes)])...)
			want = append(want, c.buf...)
			q.put(c)
		}
		held := 0
		for _, c := range q.list {
			held += cap(c.buf)
		}
		if held > 2*q.len+fullChunk {
			t.Errorf("%v: %d bytes hold %d", sizes, held, q.len)
		}
		got := make([]byte, len(want)+1)
		if n := q.take(got); n != len(want) || !bytes.Equal(got[:n], want) || q.len != 0 || q.list != nil {
			t.Errorf("%v: took %d bytes, %d are left", sizes, n, q.len)
		}
	}
}

// TestBulkConn has what TestStreamConn has, for the other kind.
func TestBulkConn(t *testing.T) {
	h, g := socketLinks(t)
	small := func(c *Config) { c.Window = minWindow }
	hs, gs := connect(t, endpoint(t, h, small), endpoint(t, g, small))
	if _, err := hs.OpenBulk(t.Context(), "a b"); err == nil {
		t.Error("OpenBulk took a bad name")
	}
	a, b := streams(t, hs, gs)
	if a.Name() != "s" || b.RemoteAddr().String() != "s" {
		t.Errorf("%q, %q", a.Name(), b.RemoteAddr())
	}
	_ = a.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	_ = a.SetDeadline(time.Time{})
	_ = a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := a.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n != minWindow {
		t.Errorf("Write into a full window: %d, %v", n, err)
	}
	c := make(chan error, 1)
	go func() { _, err := a.Read(make([]byte, 1)); c <- err }()
	time.Sleep(10 * time.Millisecond)
	_, _ = a.Close(), a.Close()
	if err := <-c; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read broken by Close: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if err := a.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetReadDeadline after Close: %v", err)
	}
	if _, err := b.Write(make([]byte, 3*minWindow)); err != nil {
		t.Errorf("Write to a closed peer: %v", err)
	}
	if n, err := io.Copy(io.Discard, b); err != nil || n != minWindow {
		t.Errorf("read %d, %v", n, err)
	}
	_ = b.Close()
	ping(t, hs, gs, 10)
	closeBoth(t, gs, hs)
}

// TestBulkSlots: streams beyond MaxStreams are refused, and slots come back.
func TestBulkSlots(t *testing.T) {
	h, g := socketLinks(t)
	few := func(c *Config) { c.MaxStreams = 3 }
	hs, gs := connect(t, endpoint(t, h, few), endpoint(t, g, few))
	for range 3 {
		var open []*Bulk
		for range 2 { // the third slot is kept for a stream of yamux's
			c, _ := streams(t, hs, gs)
			open = append(open, c)
		}
		c, err := hs.OpenBulk(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
			t.Errorf("one too many: %v", err)
		}
		_ = c.Close()
		for _, c := range open {
			_ = c.Close()
		}
		for len(gs.slots) > 1 {
			gs.bulk.mu.Lock()
			for _, st := range gs.bulk.streams {
				go func() { _ = st.Close() }()
			}
			gs.bulk.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	}
	closeBoth(t, hs, gs)
}

// TestBulkDelivered is TestDeliveredBeforeClose for the other kind.
func TestBulkDelivered(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		he, ge := endpoint(t, host), endpoint(t, guest)
		for i := range 6 {
			hs, gs := connect(t, he, ge)
			c, err := hs.OpenBulk(t.Context(), "s")
			if err != nil {
				t.Fatal(err)
			}
			want := numbered(200_000)
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			whole := i%2 == 0
			if whole {
				_ = c.Close()
			}
			closeBoth(t, hs, gs)
			_, r, err := gs.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if !bytes.Equal(got, want) || whole != (err == nil) || !whole && !errors.Is(err, ErrClosed) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if _, err := hs.OpenBulk(t.Context(), "x"); !errors.Is(err, ErrClosed) {
				t.Fatalf("OpenBulk after the end: %v", err)
			}
		}
	})
}
