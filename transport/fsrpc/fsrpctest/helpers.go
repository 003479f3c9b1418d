package fsrpctest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

// SmallTmpfs mounts a tmpfs of size bytes for the test and returns where.
// It needs root.
func SmallTmpfs(t testing.TB, size int) string {
	t.Helper()
	needs.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		needs.Missing(t, "can't mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// OpenFiles counts the descriptors this process has open, to find leaks. Those of
// Go's poller don't count: they appear with the first file and stay.
func OpenFiles(t testing.TB) int {
	t.Helper()
	const dir = "/proc/self/fd"
	names, err := os.ReadDir(dir)
	ok(t, err, "list %s", dir)
	n := 0
	for _, name := range names {
		if to, _ := os.Readlink(filepath.Join(dir, name.Name())); !strings.HasPrefix(to, "anon_inode:[event") {
			n++
		}
	}
	return n
}

func ok(t testing.TB, err error, format string, args ...any) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// wantErr checks that err carries one of the errnos.
func wantErr(t testing.TB, err error, what string, wants ...syscall.Errno) {
	t.Helper()
	for _, w := range wants {
		if errors.Is(err, w) {
			return
		}
	}
	t.Errorf("%s: got %v, want %v", what, err, wants)
}

func wantBytes(t testing.TB, got, want []byte, what string) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	t.Fatalf("%s: %d bytes, want %d; the first difference is at %d", what, len(got), len(want), i)
}

// wantFile checks a file's whole content.
func wantFile(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	ok(t, err, "read %s", path)
	wantBytes(t, got, want, path)
}

// randBytes returns n bytes that are the same for the same seed.
func randBytes(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// eventually polls f until it returns "" and fails the test with the last
// answer after limit.
func eventually(t testing.TB, limit time.Duration, f func() string) {
	t.Helper()
	end := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		msg := f()
		if msg == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v still: %s", limit, msg)
		}
		<-tick.C
	}
}

func lstat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	ok(t, unix.Lstat(path, &st), "lstat %s", path)
	return st
}

// exactModes sets the umask to 0 for the test, so that modes are what was asked for.
func exactModes(t testing.TB) {
	t.Helper()
	old := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(old) })
}

// strangeNames are names that a Linux file system takes and naive code doesn't.
func strangeNames() map[string]string {
	long := bytes.Repeat([]byte("n"), 255)
	names := map[string]string{
		"255 bytes":     string(long),
		"255 in UTF-8":  string(bytes.Repeat([]byte("é"), 127)) + "x",
		"UTF-8":         "Grüße-日本語-🙂",
		"spaces":        "  a b  ",
		"three dots":    "...",
		"dot first":     ".hidden",
		"trailing dot":  "name.",
		"dash":          "-rf",
		"backslash":     `a\b`,
		"colon":         "a:b",
		"newline":       "a\nb\r",
		"reserved":      "NUL.txt",
		"star":          `<>"|?*`,
		"invalid UTF-8": "a\xff\xfe\xc3b",
		"percent":       "%s%n%d",
		"shell":         "$(x)`y`'z'",
	}
	// Every byte that a name can hold, in names of at most 255 bytes.
	var all []byte
	for c := 1; c < 256; c++ {
		if c != '/' {
			all = append(all, byte(c))
		}
	}
	names["every byte"] = string(all)
	return names
}

func remove(t testing.TB, dir string) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(dir, n.Name())); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}
}
