package mux

import (
	"context"
	"io"
	"net"
	"sort"
	"testing"
	"time"
)

const benchBlock = 1 << 20

// BenchmarkRaw is what the link itself does, to compare with.
func BenchmarkRaw(b *testing.B) {
	h, g := socketLinks(b)
	defer h.Close()
	defer g.Close()
	transfer(b, h, g)
}

// BenchmarkStream is one stream over the same link.
func BenchmarkStream(b *testing.B) {
	hs, gs := socketSessions(b)
	w, r := openStream(b, hs, gs)
	transfer(b, w, r)
	_ = hs.Close()
}

// BenchmarkBulk is a bulk stream over the same link.
func BenchmarkBulk(b *testing.B) {
	hs, gs := socketSessions(b)
	c, err := hs.OpenBulk(b.Context(), "bulk")
	if err != nil {
		b.Fatal(err)
	}
	_, peer, err := gs.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	transfer(b, c, peer)
	_ = hs.Close()
}

// BenchmarkPortStream is the same where every record needs one copy more and is
// read by the page, as on a virtio-serial port.
func BenchmarkPortStream(b *testing.B) {
	p := newPort()
	hs, gs := connect(b, endpoint(b, p.connect(b, false)), endpoint(b, p))
	w, r := openStream(b, gs, hs)
	transfer(b, w, r)
	_ = hs.Close()
}

// BenchmarkSmallBesideBulk is the round trip of a small request while another
// stream is as full as it gets.
func BenchmarkSmallBesideBulk(b *testing.B) {
	hs, gs := socketSessions(b)
	w, r := openStream(b, hs, gs)
	done := make(chan struct{}, 2)
	go func() {
		buf := make([]byte, benchBlock)
		for {
			if _, err := w.Write(buf); err != nil {
				break
			}
		}
		done <- struct{}{}
	}()
	go func() { _, _ = io.Copy(io.Discard, onlyReader{r}); done <- struct{}{} }()
	small, echo := openStream(b, hs, gs)
	go func() { _, _ = io.Copy(echo, onlyReader{echo}) }()
	buf := make([]byte, 64)
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := small.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(small, buf); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
	_ = hs.Close()
	<-done
	<-done
}

func socketSessions(b *testing.B) (hs, gs *Session) {
	h, g := socketLinks(b)
	return connect(b, endpoint(b, h), endpoint(b, g))
}

func openStream(b *testing.B, from, to *Session) (net.Conn, net.Conn) {
	b.Helper()
	c, err := from.Open(context.Background(), "bulk")
	if err != nil {
		b.Fatal(err)
	}
	_, peer, err := to.Accept(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return c, peer
}

func transfer(b *testing.B, w io.Writer, r io.Reader) {
	b.SetBytes(benchBlock)
	buf, in := make([]byte, benchBlock), make([]byte, benchBlock)
	b.ResetTimer()
	errc := make(chan error, 1)
	go func() {
		for range b.N {
			if _, err := w.Write(buf); err != nil {
				errc <- err
				return
			}
		}
		errc <- nil
	}()
	for range b.N {
		if _, err := io.ReadFull(r, in); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-errc; err != nil {
		b.Fatal(err)
	}
}
