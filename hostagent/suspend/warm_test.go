package suspend

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"winvm/hostagent/image"
	"winvm/hostagent/manifest"
)

// What doesn't fit is refused with the figures that would do.
func TestCheckWarm(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"a": 100 << 20, "b": 1, "c": 0} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	m, err := manifest.Scan(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ms := []*manifest.Manifest{m}
	if err := checkWarm(ms, image.DefaultControllerMiB); err != nil {
		t.Errorf("100 MiB: %v", err)
	}
	if err := checkWarm(append(ms, m, m), image.DefaultControllerMiB); err != nil {
		t.Errorf("300 MiB: %v", err)
	}
	four := append(ms, m, m, m)
	err = checkWarm(four, image.DefaultControllerMiB)
	if !errors.Is(err, ErrWarmTooLarge) || !strings.Contains(err.Error(), "--controller-memory 561") {
		t.Errorf("400 MiB: %v", err)
	}
	if err := checkWarm(four, 561); err != nil {
		t.Errorf("with the memory that was asked for: %v", err)
	}
	if err := os.Truncate(filepath.Join(dir, "a"), 1<<43); err == nil {
		if m, err = manifest.Scan(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if err := checkWarm([]*manifest.Manifest{m, m}, 1<<20); !errors.Is(err, ErrWarmTooLarge) {
			t.Errorf("16 TiB: %v", err)
		}
	}
}
