package virtioserial

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func addPort(t *testing.T, root, dev, name string) {
	t.Helper()
	dir := filepath.Join(root, "sys/class/virtio-ports", dev)
	for _, d := range []string{dir, filepath.Join(root, "dev")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dev", dev), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	if _, err := Find(root, "winvm.0"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("no sysfs at all: %v", err)
	}
	addPort(t, root, "vport1p1", "winvm.bulk")
	addPort(t, root, "vport1p2", "winvm.0")
	if err := os.MkdirAll(filepath.Join(root, "sys/class/virtio-ports/vport1p3"), 0o755); err != nil {
		t.Fatal(err) // a port without its name yet
	}
	got, err := Find(root, "winvm.0")
	if err != nil || got != filepath.Join(root, "dev/vport1p2") {
		t.Fatalf("Find = %q, %v", got, err)
	}
	if _, err := Find(root, "winvm"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("part of a name must not do: %v", err)
	}
}

func TestWait(t *testing.T) {
	root := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := Wait(ctx, root, "winvm.0"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNotFound) {
		t.Fatalf("Wait without a port: %v", err)
	}
	type result struct {
		path string
		err  error
	}
	c := make(chan result)
	go func() {
		p, err := Wait(context.Background(), root, "winvm.0")
		c <- result{p, err}
	}()
	addPort(t, root, "vport0p1", "winvm.0")
	if r := <-c; r.err != nil || r.path != filepath.Join(root, "dev/vport0p1") {
		t.Fatalf("Wait = %q, %v", r.path, r.err)
	}
}
