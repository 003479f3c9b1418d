package garbage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCollect(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 100<<10), 0o600))
	var removed []string
	item := func(name string, err error) Item {
		return Item{Path: dir, Why: name, Remove: func() error { removed = append(removed, name); return err }}
	}
	items := []Item{item("a", nil), item("busy", ErrInUse), item("bad", errors.New("no luck")), item("b", nil)}
	gone, err := Collect(t.Context(), items, true)
	if err != nil || len(gone) != 4 || len(removed) != 0 || gone[0].Bytes < 100<<10 {
		t.Errorf("dry: %+v, %v; removed %v", gone, err, removed)
	}
	gone, err = Collect(t.Context(), items, false)
	if err == nil || !strings.Contains(err.Error(), "no luck") || len(gone) != 2 || gone[1].Why != "b" || len(removed) != 4 {
		t.Errorf("%+v, %v; removed %v", gone, err, removed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	removed = nil
	if _, err := Collect(ctx, items, false); !errors.Is(err, context.Canceled) || len(removed) != 0 {
		t.Errorf("%v; removed %v", err, removed)
	}
}

// Blocks count, holes don't; what has two names counts once.
func TestSize(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	must(t, f.Truncate(1<<30))
	must(t, f.Close())
	must(t, os.WriteFile(filepath.Join(dir, "one"), make([]byte, 1<<20), 0o600))
	must(t, os.Link(filepath.Join(dir, "one"), filepath.Join(dir, "two")))
	if got := Size(dir); got < 1<<20 || got > 1<<20+64<<10 {
		t.Errorf("%d bytes", got)
	}
	if got := Size(filepath.Join(dir, "none")); got != 0 {
		t.Errorf("%d bytes of nothing", got)
	}
}

func TestTryLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if _, err := TryLock(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	must(t, os.WriteFile(path, nil, 0o600))
	unlock, err := TryLock(path)
	must(t, err)
	if _, err := TryLock(path); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	unlock()
	unlock, err = TryLock(path)
	must(t, err)
	unlock()
	must(t, unix.Symlink("lock", path+"2"))
	if _, err := TryLock(path + "2"); err == nil {
		t.Error("followed a link")
	}
}
