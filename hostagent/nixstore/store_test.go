package nixstore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/fsrpc/fsrpctest"
)

func open(t *testing.T, dir string, names []string, log *slog.Logger) *Store {
	t.Helper()
	before := fsrpctest.OpenFiles(t)
	s, err := Open(t.Context(), dir, names, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if after := fsrpctest.OpenFiles(t); after > before {
			t.Errorf("%d descriptors open, %d before", after, before)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	fsrpctest.TestStore(t, func(t *testing.T, dir string, names []string) fsrpc.Store {
		return open(t, dir, names, nil)
	})
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// No more files stay open than the cache may hold, and which ones does not matter.
func TestOpenFilesBounded(t *testing.T) {
	dir := t.TempDir()
	const n = 3 * maxOpen
	for i := range n {
		write(t, filepath.Join(dir, "p", fmt.Sprint(i)), fmt.Sprint(i))
	}
	s := open(t, dir, []string{"p"}, nil)
	before := fsrpctest.OpenFiles(t)
	for range 2 {
		for e := uint32(1); e <= n; e++ {
			buf := make([]byte, 10)
			got, err := s.Read(t.Context(), 0, e, 0, buf)
			if err != nil || string(buf[:got]) != s.ms[0].Section.Name(e) {
				t.Fatalf("entry %d: %q, %v", e, buf[:got], err)
			}
		}
	}
	if open := fsrpctest.OpenFiles(t) - before; open > maxOpen {
		t.Errorf("%d files open, at most %d allowed", open, maxOpen)
	}
}

func TestChangedFileIsLoggedOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "p", "sub", "file.txt")
	write(t, file, "content")
	var logged bytes.Buffer
	s := open(t, dir, []string{"p"}, slog.New(slog.NewTextHandler(&logged, nil)))
	write(t, file, "CONTENT")
	for range 5 {
		if _, err := s.Read(t.Context(), 0, 2, 0, make([]byte, 10)); !errors.Is(err, unix.EIO) {
			t.Errorf("read: %v", err)
		}
	}
	if n := strings.Count(logged.String(), file); n != 1 {
		t.Errorf("logged %d times:\n%s", n, logged.String())
	}
}

func TestClosed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "p"), "x")
	s, err := New(dir, []string{"p"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(t.Context(), 0, 0, 0, make([]byte, 1)); !errors.Is(err, unix.EIO) {
		t.Errorf("read after close: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		paths []string
		want  error
	}{
		{[]string{"none"}, os.ErrNotExist},
		{[]string{"/etc/passwd"}, ErrOutsideStore},
		{[]string{filepath.Join(dir, "a/b")}, ErrOutsideStore},
		{[]string{".."}, nil},
		{[]string{"a/b"}, nil},
	} {
		s, err := New(dir, c.paths)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.paths, err)
		}
	}
}
