package vmsuite_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// BenchmarkLane compares the shared-memory lane with the channel alone: two views of
// the same shares in one VM and one session, turn by turn. "times" is how many times as
// quick the lane is.
func BenchmarkLane(b *testing.B) {
	w := startWire(b, true)
	w.session(b)
	for _, wire := range []bool{false, true} {
		w.side(b, "attach", wire, 0, 1, 1)
		w.laneCheck(b, wire)
	}
	for _, what := range []string{"fuse-read", "fuse-write"} {
		b.Run(what, func(b *testing.B) { w.race(b, what, benchBytes, 1, 1) })
	}
	if w.profiles != "" {
		for _, what := range []string{"read", "write", "fuse-read", "fuse-write"} {
			w.run(b, "profiled/"+what, func(b *testing.B) {
				b.SetBytes(benchBytes)
				for b.Loop() {
					w.side(b, what, false, benchBytes, 1<<20, 8)
				}
			})
		}
	}
	for _, what := range []string{"read", "write"} {
		for _, kib := range []int{4, 8, 16, 32, 64, 256, 1024} {
			piece := kib << 10
			for _, depth := range []int{1, 8} {
				b.Run(fmt.Sprintf("%s/%dKiB/%d at once", what, kib, depth), func(b *testing.B) {
					w.race(b, what, min(benchBytes, 256*piece), piece, depth)
				})
			}
		}
	}
}

func (w *wire) side(b *testing.B, what string, wire bool, n, piece, depth int) answer {
	b.Helper()
	return w.askFor(b, map[string]any{
		"Op": "lane", "Bytes": n, "What": what, "Wire": wire, "Piece": piece, "Depth": depth,
	}, func() {})
}

// race has both do the same, turn by turn, and reports both and the ratio.
func (w *wire) race(b *testing.B, what string, n, piece, depth int) {
	var took [2]time.Duration
	var cpu [2]int64
	for b.Loop() {
		for i, wire := range []bool{false, true} {
			begun := time.Now()
			r := w.side(b, what, wire, n, piece, depth)
			took[i] += time.Since(begun)
			cpu[i] += r.User + r.System + r.IRQ
		}
	}
	mb := float64(b.N) * float64(n) / 1e6
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(mb/took[0].Seconds(), "lane-MB/s")
	b.ReportMetric(mb/took[1].Seconds(), "channel-MB/s")
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "times")
	b.ReportMetric(float64(cpu[0])/mb, "lane-ms/MB")
	b.ReportMetric(float64(cpu[1])/mb, "channel-ms/MB")
}

// laneCheck compares what is read with what should be.
func (w *wire) laneCheck(b *testing.B, wire bool) {
	b.Helper()
	var sum uint64
	for i := 0; i < benchBytes; i += 8 {
		sum = sum*31 + binary.LittleEndian.Uint64(w.content[i:])
	}
	if got := w.side(b, "fuse-sum", wire, benchBytes, 1, 1).Sum; got != sum {
		b.Errorf("the guest has read other bytes than the file's")
	}
}
