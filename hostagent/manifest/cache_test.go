package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// nixTree makes a store path as Nix leaves it.
func nixTree(t testing.TB, dir, name string, files int) {
	t.Helper()
	past := time.Unix(1, 0)
	for i := range files {
		f := filepath.Join(dir, name, fmt.Sprintf("f%03d", i))
		write(t, f, name)
		if err := os.Chtimes(f, past, past); err != nil {
			t.Fatal(err)
		}
	}
}

// A cache doesn't grow without end: the longest unused go.
func TestCachePruned(t *testing.T) {
	dir := t.TempDir()
	c := NewCache(filepath.Join(dir, "cache"))
	c.limit = 8 << 10
	var names []string
	nars := map[string]string{}
	for i := range 40 {
		names = append(names, fmt.Sprintf("p%02d", i))
		nars[names[i]] = fmt.Sprint("nar ", i)
		nixTree(t, dir, names[i], 20)
	}
	for _, n := range names {
		c.added.Store(cacheRoom) // look at the directory every time
		if _, err := ScanAll(t.Context(), dir, []string{n}, Options{NAR: nars, Cache: c}); err != nil {
			t.Fatal(err)
		}
		now := time.Now().Add(-time.Hour) // all but the first are old
		if c.get(dir, names[0], nars[names[0]]) == nil {
			t.Fatalf("after %s the one that is used all the time is gone", n)
		}
		if n != names[0] {
			_ = os.Chtimes(c.path(dir, n, nars[n]), now, now)
		}
	}
	var total int64
	kept, _ := filepath.Glob(c.dir + "/*")
	for _, f := range kept {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > c.limit || len(kept) < 3 {
		t.Errorf("%d files of %d bytes are kept", len(kept), total)
	}
}

// What a large valid path costs when it is kept, and when it isn't.
func BenchmarkKept100k(b *testing.B) {
	dir := b.TempDir()
	past := time.Unix(1, 0)
	const n = 100_000
	for i := range n {
		f := filepath.Join(dir, "p", fmt.Sprintf("d%d", i/100), fmt.Sprintf("some-file-%d.h", i))
		write(b, f, "")
		if err := os.Chtimes(f, past, past); err != nil {
			b.Fatal(err)
		}
	}
	c := NewCache(filepath.Join(dir, "cache"))
	for name, cache := range map[string]*Cache{"kept": c, "scanned": nil} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := ScanAll(b.Context(), dir, []string{"p"}, Options{NAR: map[string]string{"p": "1"}, Cache: cache}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What has to be looked at each time is not kept, and another NAR hash is another path.
func TestCacheKeeps(t *testing.T) {
	dir := t.TempDir()
	nixTree(t, dir, "p", 20)
	nixTree(t, dir, "meddled", 20)
	write(t, filepath.Join(dir, "meddled", "f007"), "x")
	c := NewCache(filepath.Join(dir, "cache"))
	nars := map[string]string{"p": "1", "meddled": "2"}
	ms, err := ScanAll(t.Context(), dir, []string{"meddled", "p"}, Options{NAR: nars, Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	if m := c.get(dir, "p", "1"); m == nil || m.Hash != ms[1].Hash || m.NAR != "1" || m.Name != "p" {
		t.Errorf("p: %+v", m)
	}
	for _, no := range [][3]string{{dir, "p", "2"}, {dir, "p", ""}, {dir, "q", "1"}, {dir + "x", "p", "1"}, {dir, "meddled", "2"}} {
		if c.get(no[0], no[1], no[2]) != nil {
			t.Errorf("%q is kept", no)
		}
	}
	if _, err := ScanAll(t.Context(), dir, []string{"p"}, Options{}); err != nil {
		t.Errorf("without a cache: %v", err)
	}
}
