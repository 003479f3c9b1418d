package soak

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What the model allows a reader to find of a file that has a write which was answered
// before the host had it, and that no close has confirmed.
func TestModelOfLostWrites(t *testing.T) {
	const old, written = "old old old", "new"
	for _, c := range []struct {
		name    string
		behind  bool
		session int64
		got     string
		want    error // nil, EIO: excused, must be told; errBroken
	}{
		{"all, same session", true, 1, "new old old", nil},
		{"lost, same session", true, 1, old, errBroken},
		{"all, next session", true, 2, "new old old", nil},
		{"lost, next session", true, 2, old, unix.EIO},
		{"lost in part, next session", true, 2, "ned old old", unix.EIO},
		{"what nobody wrote", true, 2, "new old odd", errBroken},
		{"less than there was before", true, 2, "old", errBroken},
		{"written through", false, 2, old, errBroken},
	} {
		h := &host{}
		h.sessions.Store(c.session)
		w := &worker{host: h, n: &counts{}}
		f := &file{}
		f.write(0, []byte(old))
		f.confirm()
		f.write(0, []byte(written))
		if c.behind {
			f.behind = 1
		}
		got := []byte(c.got)
		err := w.shown(f, difference(got, f.data), func() string { return f.explains(got) })
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if f.lost != errors.Is(err, unix.EIO) {
			t.Errorf("%s: lost: %v", c.name, f.lost)
		}
		if f.confirm(); f.lost || f.mayLack(c.session) {
			t.Errorf("%s: something can be lost after it was confirmed", c.name)
		}
	}
}

// What a reader has missed has to be told to the writer.
func TestModelWantsLossTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	w := &worker{host: &host{}, n: &counts{}, tree: tree{}}
	w.fail = func(format string, args ...any) { found = fmt.Sprintf(format, args...) }
	w.opens = []*open{{f: f, file: &file{lost: true}, path: "f"}}
	if err := w.recover(tree{}, tree{}); !errors.Is(err, errBroken) || found == "" {
		t.Errorf("%v, %q", err, found)
	}
}

// A write of no bytes behind a file's end leaves it as long as it was, by POSIX, on any file
// system.
func TestModelOfEmptyWrite(t *testing.T) {
	real, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	f := &file{}
	for _, w := range []struct {
		off  int
		data string
	}{{0, "four"}, {3000, ""}, {2, ""}} {
		f.write(w.off, []byte(w.data))
		// os.File's WriteAt asks the kernel for nothing then.
		if _, err := unix.Pwrite(int(real.Fd()), []byte(w.data), int64(w.off)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(real.Name())
		if err != nil {
			t.Fatal(err)
		}
		if d := difference(got, f.data); d != "" {
			t.Errorf("%d bytes written at %d: the file has %s", len(w.data), w.off, d)
		}
	}
}
