package mux

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"winvm/transport/shm"
	"winvm/transport/shm/shmtest"
)

// through writes through one side's slot and reads through the other's.
func through(t *testing.T, gs, hs *Session) {
	t.Helper()
	slot, ok := gs.Lane().Take()
	if !ok {
		t.Fatal("no slot")
	}
	defer slot.Free()
	copy(slot.Bytes(5), "bytes")
	b, err := hs.Lane().Lend(slot.Number(), 5)
	if err != nil || string(b) != "bytes" {
		t.Errorf("%q, %v", b, err)
	}
	hs.Lane().Return()
}

// Sessions one after the other use the same memory, each with all of its slots, and
// the streams have it.
func TestLane(t *testing.T) {
	overLinks(t, func(t *testing.T, host, guest Link) {
		hr, gr := shmtest.Regions(t, 2)
		he := endpoint(t, host, func(c *Config) { c.Lane = hr })
		ge := endpoint(t, guest, func(c *Config) { c.Lane = gr })
		for range 3 {
			hs, gs := connect(t, he, ge)
			if hs.Features()&FeatureLane == 0 || hs.Lane() == nil || gs.Lane() == nil {
				t.Fatalf("features %b, lanes %v, %v", hs.Features(), hs.Lane(), gs.Lane())
			}
			through(t, gs, hs)
			through(t, gs, hs)
			if slot, ok := gs.Lane().Take(); ok {
				slot.Lose() // its peer never answers
			}
			c, err := gs.Open(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			if shm.Of(c) != gs.Lane() {
				t.Error("the stream has another lane than its session")
			}
			ping(t, hs, gs, 100)
			closeBoth(t, hs, gs)
		}
	})
}

// A session comes about without a lane if either side has none, if the guest sees
// other memory than the host, or if the host is still at work in it.
func TestNoLane(t *testing.T) {
	hr, gr := shmtest.Regions(t, 2)
	other, otherGuest := shmtest.Regions(t, 3)
	busy, busyGuest := shmtest.Regions(t, 2)
	if _, err := busy.Offer(shm.ID{9}).Lend(0, 1); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		host, guest *shm.Region
		says        string
	}{
		"neither":           {nil, nil, ""},
		"host alone":        {hr, nil, "the peer has none"},
		"guest alone":       {nil, gr, "the peer has none"},
		"not the same":      {hr, otherGuest, "shared memory refused"},
		"not the same size": {other, gr, "shared memory refused"},
		"busy":              {busy, busyGuest, "still at work"},
	} {
		t.Run(name, func(t *testing.T) {
			var said bytes.Buffer
			w := &lockedWriter{w: &said}
			with := func(r *shm.Region) func(c *Config) {
				return func(c *Config) {
					c.Lane = r
					c.Logger = slog.New(slog.NewTextHandler(w, nil))
				}
			}
			host, guest := socketLinks(t)
			hs, gs := connect(t, endpoint(t, host, with(tt.host)), endpoint(t, guest, with(tt.guest)))
			if gs.Lane() != nil {
				t.Error("the guest has a lane")
			}
			ping(t, hs, gs, 100_000)
			closeBoth(t, gs, hs)
			if !strings.Contains(said.String(), tt.says) {
				t.Errorf("said %q, want %q", said.String(), tt.says)
			}
		})
	}
}

// lockedWriter is for two loggers.
type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
