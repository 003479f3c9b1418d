package recipe

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestGarbage(t *testing.T) {
	c := newTest(t)
	s := recipes(tiny)
	if items, err := s.garbage(c.cache, nil, 0); err != nil || len(items) != 0 {
		t.Errorf("of nothing: %v, %v", items, err)
	}
	current, err := c.get(t.Context(), s, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.cache, "recipes")
	const needed, old, young, busy = "fake-11111111111111111111111111111111", "fake-22222222222222222222222222222222", "gone-33333333333333333333333333333333", "fake-44444444444444444444444444444444"
	before := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{needed, old, young, busy, ".fake-55555555555555555555555555555555-123", "." + busy + "-123", "something", "README"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if name != young {
			_ = os.Chtimes(p, before, before)
		}
	}
	_ = os.Chtimes(current.Dir, before, before)
	unlock, err := lock(t.Context(), filepath.Join(dir, busy+".lock"), nil)
	if err != nil {
		t.Fatal(err)
	}
	names := func(age time.Duration) (out []string) {
		items, err := s.garbage(c.cache, []string{needed[5:]}, age)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range items {
			out = append(out, filepath.Base(i.Path))
		}
		return out
	}
	if got := names(24 * time.Hour); !slices.Equal(got, []string{".fake-55555555555555555555555555555555-123", old}) {
		t.Errorf("got %q", got)
	}
	if got := names(0); !slices.Equal(got, []string{".fake-55555555555555555555555555555555-123", old, young}) {
		t.Errorf("of any age: got %q", got)
	}
	items, _ := s.garbage(c.cache, nil, 0)
	for _, i := range items {
		if err := i.Remove(); err != nil {
			t.Error(err)
		}
	}
	unlock()
	for name, want := range map[string]bool{filepath.Base(current.Dir): true, busy: true, "." + busy + "-123": true, "something": true, old: false, young: false, needed: false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s exists: %v", name, err == nil)
		}
	}
	if got := names(0); !slices.Equal(got, []string{"." + busy + "-123", busy}) {
		t.Errorf("when it is not busy any more: got %q", got)
	}
	// One that somebody begins to make meanwhile stays.
	items, _ = s.garbage(c.cache, nil, 0)
	f, err := os.OpenFile(filepath.Join(dir, busy+".lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		if err := i.Remove(); err == nil {
			t.Errorf("removed %s under somebody's lock", i.Path)
		}
	}
}
