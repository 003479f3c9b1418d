package vmsuite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// BenchmarkSmall is what small files of the store cost a program in the controller VM:
// a walk with lstat, reading 1,000 files of 4,000 bytes in 20 directories, and one file
// in each of 20; cold, and once more. Medians of five rounds. Package inside measures.
func BenchmarkSmall(b *testing.B) {
	w := startWire(b, false)
	for d := range 20 {
		for f := range 50 {
			w.smallFile(b, fmt.Sprintf("small-1/dir%02d/file%02d", d, f))
		}
		w.smallFile(b, fmt.Sprintf("single-1/dir%02d/f", d))
		for f := range 10 {
			w.smallFile(b, fmt.Sprintf("single-1/dir%02d/g%d", d, f))
		}
	}
	w.session(b)
	const rounds = 5
	all := map[string][]float64{}
	for range rounds {
		for name, us := range w.ask(b, order{Op: "small"}, func() {}).Figures {
			all[name] = append(all[name], us)
		}
	}
	for name, us := range all {
		slices.Sort(us)
		b.ReportMetric(us[rounds/2], name)
		b.Logf("%s: %.1f, from %.1f to %.1f", name, us[rounds/2], us[0], us[rounds-1])
	}
	b.ReportMetric(0, "ns/op")
}

func (w *wire) smallFile(b *testing.B, name string) {
	b.Helper()
	path := filepath.Join(w.dir, "store", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat(name[len(name)-4:], 1000)), 0o644); err != nil {
		b.Fatal(err)
	}
}
