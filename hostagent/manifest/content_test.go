package manifest

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever is done to a file of a plain directory, its Content is another number and
// the section has another hash; if nothing is done both stay.
func TestContentChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	file := filepath.Join(dir, "sub", "file")
	write(t, file, "content")
	write(t, filepath.Join(dir, "sub", "other"), "other")
	before := scan(t, dir)
	other := before.Section.Content(3)
	if scan(t, dir).Hash != before.Hash {
		t.Error("the same files have another hash")
	}
	past := time.Unix(1, 0)
	for _, c := range []struct {
		what string
		f    func() error
	}{
		{"other bytes", func() error { return os.WriteFile(file, []byte("CONTENT"), 0o644) }},
		{"the same bytes", func() error { return os.WriteFile(file, []byte("CONTENT"), 0o644) }},
		{"mtime", func() error { return os.Chtimes(file, past, past) }},
		{"mtime set back", func() error {
			st, err := os.Stat(file)
			if err == nil {
				err = os.WriteFile(file, []byte("written"), 0o644)
			}
			if err == nil {
				err = os.Chtimes(file, st.ModTime(), st.ModTime())
			}
			return err
		}},
		{"replaced", func() error {
			if err := os.WriteFile(file+".new", []byte("another"), 0o644); err != nil {
				return err
			}
			if err := os.Chtimes(file+".new", past, past); err != nil {
				return err
			}
			return os.Rename(file+".new", file)
		}},
	} {
		if err := c.f(); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			t.Fatal(err)
		}
		if before.Unchanged(2, &st) {
			t.Errorf("%s: not noticed", c.what)
		}
		after := scan(t, dir)
		if after.Hash == before.Hash || after.Section.Content(2) == before.Section.Content(2) {
			t.Errorf("%s: the hash or content is as it was", c.what)
		}
		if !after.Unchanged(2, &st) {
			t.Errorf("%s: the file doesn't fit the new manifest", c.what)
		}
		if after.Section.Content(3) != other {
			t.Errorf("%s: the other file's content is another", c.what)
		}
		before = after
	}
}

// A file that is rewritten with the same size at once after it was scanned, again and
// again: a scan returns only when that has to show.
func TestRewrittenAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	file := filepath.Join(dir, "f")
	write(t, file, "000")
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[[32]byte]string{}
	for i := 100; i < 200; i++ {
		text := strconv.Itoa(i)
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
		m := scan(t, dir)
		if was, ok := seen[m.Hash]; ok {
			t.Fatalf("%s has the hash that %s had", text, was)
		}
		seen[m.Hash] = text
	}
}

// What Nix vouches for is known by its NAR hash, wherever it lies and whatever
// inodes it has, unless its files are not as Nix leaves them.
func TestNAR(t *testing.T) {
	past := time.Unix(1, 0)
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, d := range dirs {
		write(t, filepath.Join(d, "p", "f"), "content")
		write(t, filepath.Join(d, "p", "g"), "more")
		for _, f := range []string{"f", "g"} {
			if err := os.Chtimes(filepath.Join(d, "p", f), past, past); err != nil {
				t.Fatal(err)
			}
		}
	}
	get := func(dir, nar string) *Manifest {
		ms, err := ScanAll(t.Context(), dir, []string{"p"}, Options{NAR: map[string]string{"p": nar}})
		if err != nil {
			t.Fatal(err)
		}
		return ms[0]
	}
	a, b := get(dirs[0], "sha256:1"), get(dirs[1], "sha256:1")
	if a.Hash != b.Hash || a.NAR == "" || a.Section.Content(1) == 0 {
		t.Errorf("the same path in two stores: %x %q, %x %q", a.Hash, a.NAR, b.Hash, b.NAR)
	}
	if get(dirs[0], "sha256:2").Hash == a.Hash {
		t.Error("another NAR hash, and the same section")
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dirs[1], "p", "f"), &st); err != nil || !a.Unchanged(1, &st) {
		t.Errorf("an equal file in another place is not the same: %v", err)
	}
	write(t, filepath.Join(dirs[1], "p", "g"), "MORE") // mtime is now
	if err := unix.Stat(filepath.Join(dirs[1], "p", "g"), &st); err != nil || a.Unchanged(2, &st) {
		t.Errorf("a file that was written is the same: %v", err)
	}
	if m := get(dirs[1], "sha256:1"); m.NAR != "" || m.Hash == a.Hash || m.Section.Content(1) == a.Section.Content(1) {
		t.Errorf("a path that was meddled with has NAR hash %q, content %x", m.NAR, m.Section.Content(1))
	}
}
