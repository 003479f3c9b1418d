package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"winvm/transport/needs"
)

// smokeSizes are just enough to see that everything works.
var smokeSizes = sizes{
	bulk: 2 << 20, randReads: 5, dirs: 2, perDir: 3, toolchain: "errors",
	storm: 5, tiny: 5, rawEchoes: 20, attachMany: 500,
}

// TestSmoke measures every workload on two sides, once, so that the benchmark can't rot.
// It says nothing about speed. It takes the tests' kernel, which has no 9p.
func TestSmoke(t *testing.T) {
	needs.Tool(t, "qemu-system-x86_64")
	if _, err := os.Stat("/usr/lib/qemu/virtiofsd"); err != nil {
		needs.Missing(t, "no virtiofsd: %v", err)
	}
	needs.Root(t) // virtiofsd
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cfg := &config{
		filter: regexp.MustCompile(`/(ours|ours-wire|virtiofs|raw)$`), samples: 1, sizes: smokeSizes,
		kernel:   needs.Env(t, "WINVM_TEST_KERNEL", "a kernel for the controller VM; `make test` sets it"),
		cacheDir: needs.Env(t, "WINVM_CACHE_DIR", "where root file systems are kept; `make test` sets it"),
		log:      slog.New(slog.DiscardHandler), tell: t.Logf,
	}
	r, err := measure(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Metrics {
		if m.Part == inGuest { // there is no guest here
			continue
		}
		sides := []string{"ours", "ours-wire", "virtiofs"}
		switch m.ID {
		case "attach":
			sides = sides[:1]
		case "attach-memory": // of so few files it is noise
			continue
		}
		for _, side := range sides {
			if v := r.Values(m.ID, side); len(v) != 1 || v[0] <= 0 {
				t.Errorf("%s on %s: %v", m.Name, side, v)
			}
		}
	}
	dir := t.TempDir()
	if err := write(r, dir, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"bench.json", "bench.md", "bench.svg"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// A target names metrics and sides that exist.
func TestTargets(t *testing.T) {
	r := newResults()
	sides := map[string]bool{}
	for _, s := range r.Sides {
		sides[s.ID] = true
	}
	for _, x := range targets {
		if x.Value != nil {
			continue
		}
		if _, ok := r.Metric(x.Metric); !ok || !sides[x.Ours] || !sides[x.Peer] {
			t.Errorf("%s: metric %q, sides %q and %q", x.Name, x.Metric, x.Ours, x.Peer)
		}
	}
}
