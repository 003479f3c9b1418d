package nixstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/manifest"
)

// addTree adds a tree of some files to a Nix store; two of them are equal.
func addTree(t *testing.T, root string, nix func(...string) string, name string) string {
	t.Helper()
	src := filepath.Join(root, name)
	for i := range 20 {
		write(t, filepath.Join(src, "sub", fmt.Sprintf("f%02d", i)), fmt.Sprintf("content %d", i/2*2))
	}
	path := nix("--add", src)
	if err := os.RemoveAll(src); err != nil {
		t.Fatal(err)
	}
	return path
}

func openCached(t *testing.T, dir, cache string, paths ...string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, paths, manifest.NewCache(cache), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// What Nix vouches for is looked at once, and known by its NAR hash. Optimising the
// store changes inodes and ctimes, and nothing here; a write is noticed by its mtime.
func TestValidPaths(t *testing.T) {
	root, dir, nix := newNixStore(t)
	path := addTree(t, root, nix, "tree")
	cache := filepath.Join(root, "cache")
	first := openCached(t, dir, cache, path)
	if m := first.ms[0]; m.NAR != nix("--query", "--hash", path) {
		t.Fatalf("NAR hash %q", m.NAR)
	}
	kept, _ := filepath.Glob(cache + "/*.manifest")
	if len(kept) != 1 {
		t.Fatalf("%q is kept", kept)
	}
	buf := make([]byte, 50)
	readAll := func(s *Store, want error) {
		t.Helper()
		for e := uint32(2); e < 22; e++ {
			n, err := s.Read(t.Context(), 0, e, 0, buf)
			if text := fmt.Sprintf("content %d", (e-2)/2*2); !errors.Is(err, want) || err == nil && string(buf[:n]) != text {
				t.Fatalf("entry %d: %q, %v; want %q, %v", e, buf[:n], err, text, want)
			}
		}
	}
	readAll(first, nil)
	nix("--optimise")
	readAll(first, nil)
	// Were it looked at again there would be one more file.
	if err := os.Chmod(filepath.Join(path, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, "sub", "stray"), "x")
	second := openCached(t, dir, cache, path)
	if second.ms[0].Hash != first.ms[0].Hash {
		t.Error("a valid path was looked at again")
	}
	readAll(second, nil)
	third := openCached(t, dir, cache, path)
	old := time.Unix(1, 0)
	file := filepath.Join(path, "sub", "f00")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	write(t, file, "CONTENT 0")
	if _, err := third.Read(t.Context(), 0, 2, 0, buf); !errors.Is(err, unix.EIO) {
		t.Errorf("a file that was written: %v", err)
	}
	write(t, file, "longer content")
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := third.Read(t.Context(), 0, 2, 0, buf); !errors.Is(err, unix.EIO) {
		t.Errorf("a file of another size: %v", err)
	}
}

// A damaged file in the cache is none: the path is looked at again, and kept again.
func TestCacheDamaged(t *testing.T) {
	root, dir, nix := newNixStore(t)
	path := addTree(t, root, nix, "tree")
	cache := filepath.Join(root, "cache")
	want := openCached(t, dir, cache, path).ms[0].Hash
	kept, _ := filepath.Glob(cache + "/*.manifest")
	whole, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i <= len(whole); i += 40 {
		bad := append([]byte(nil), whole...)
		if i < len(bad) && i%80 == 0 {
			bad[i] ^= 1
		} else {
			bad = bad[:min(i, len(bad)-1)]
		}
		if err := os.WriteFile(kept[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		ms, err := manifest.ScanAll(t.Context(), dir, []string{filepath.Base(path)},
			manifest.Options{NAR: map[string]string{filepath.Base(path): nix("--query", "--hash", path)}, Cache: manifest.NewCache(cache)})
		if err != nil || ms[0].Hash != want {
			t.Fatalf("damaged at %d: %v", i, err)
		}
		if again, err := os.ReadFile(kept[0]); err != nil || string(again) != string(whole) {
			t.Fatalf("damaged at %d: not made anew: %v", i, err)
		}
		if i > 400 {
			i += len(whole) / 8
		}
	}
}

// Of what Nix doesn't know nothing is believed, also among valid paths.
func TestInvalidPath(t *testing.T) {
	root, dir, nix := newNixStore(t)
	path := addTree(t, root, nix, "tree")
	stray := filepath.Join(dir, "0c8bazfh4s7rpwkcdbpnwz5dnjd5xj5q-stray")
	for i := range 20 {
		write(t, filepath.Join(stray, fmt.Sprint(i)), "x")
	}
	s := openCached(t, dir, filepath.Join(root, "cache"), path, stray)
	for _, m := range s.ms {
		if (m.NAR != "") != (m.Name == filepath.Base(path)) {
			t.Errorf("%s has NAR hash %q", m.Name, m.NAR)
		}
	}
	if kept, _ := filepath.Glob(root + "/cache/*"); len(kept) != 1 {
		t.Errorf("%q are kept", kept)
	}
}
