package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCopySparse(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	data := make([]byte, 5<<20+17)
	copy(data[copyBlock-3:], "across two blocks")
	copy(data[len(data)-4:], "last")
	if err := os.WriteFile(from, data, 0o600); err != nil { // all zeros are written out
		t.Fatal(err)
	}
	if err := unix.Truncate(from, 9<<20); err != nil { // and a hole at the end
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o600, 0o644} {
		to := filepath.Join(dir, mode.String())
		if err := copyFile(context.Background(), from, to, mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:len(data)], data) || len(got) != 9<<20 || len(bytes.Trim(got[len(data):], "\x00")) > 0 {
			t.Error("the copy differs")
		}
	}
}

func TestBorrowNothing(t *testing.T) {
	s := NewStore(t.TempDir())
	if _, err := s.Borrow(context.Background(), t.TempDir()); !errors.Is(err, ErrNotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "image.json"), []byte(`{"format":1,"name":"x","files":{"../up":{"size":1}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Borrow(context.Background(), bad); !errors.Is(err, ErrDamaged) {
		t.Errorf("an image with a file outside of it: %v", err)
	}
}

func TestExportAndBorrow(t *testing.T) {
	src := &Image{Dir: t.TempDir(), Meta: Meta{
		Format: Format, Name: "x", Files: map[string]File{"guest/vmlinuz": {Size: 1}, secretsFile: {Size: 6}},
		State: &State{Dir: "state-1", QEMU: "7", Files: map[string]File{"guest.memory": {Size: 4}}},
	}}
	for p, text := range map[string]string{"guest/vmlinuz": "k", secretsFile: "secret", "state-1/guest.memory": "RAM!"} {
		if err := os.MkdirAll(filepath.Dir(src.Path(p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(src.Path(p), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := src.Export(context.Background(), out); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(out, secretsFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the secrets went with it: %v", err)
	}
	i, err := NewStore(t.TempDir()).Borrow(context.Background(), out)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Check("7"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(i.StatePath("guest.memory")); err != nil || string(b) != "RAM!" {
		t.Errorf("memory: %q, %v", b, err)
	}
	if err := src.Export(context.Background(), out); err == nil {
		t.Error("a directory that is there is overwritten")
	}
}
