package storefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/hostagent/nixstore"
)

// smallTree makes directories of small files, each with other bytes and another size.
func smallTree(t testing.TB, dirs, files int) (dir string, want map[string]string) {
	t.Helper()
	dir, want = t.TempDir(), map[string]string{}
	for d := range dirs {
		for f := range files {
			name := fmt.Sprintf("p/d%02d/f%03d", d, f)
			want[name] = strings.Repeat(name, 1+(d*files+f)%700)
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(want[name]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir, want
}

// readAll reads every file as a walk comes to it.
func readAll(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(dir, "p"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		got, err := os.ReadFile(p)
		if err != nil || string(got) != want[rel] {
			t.Errorf("%s: %d bytes, %v; want %d", rel, len(got), err, len(want[rel]))
		}
		n++
		return nil
	})
	if err != nil || n != len(want) {
		t.Errorf("%d files, %v; want %d", n, err, len(want))
	}
}

// A walk that reads everything gets nearly all of it in batches, and nothing twice.
func TestReadAhead(t *testing.T) {
	dir, want := smallTree(t, 10, 100)
	for _, ro := range []bool{false, true} {
		store := newStore(t, dir, "p")
		m := newMount(t, storefs.Config{ReadOnly: ro})
		setSession(t, m, store, nil)
		readAll(t, m.Dir(), want)
		store.settle()
		single, batches, files := store.reads.Load(), store.batches.Load(), store.batched.Load()
		if single > 30 || batches > 40 {
			t.Errorf("read-only %v: %d files alone and %d in %d batches", ro, single, files, batches)
		}
		if single+files > int64(len(want))+10 {
			t.Errorf("read-only %v: %d files alone and %d in batches, of %d", ro, single, files, len(want))
		}
		// A machine may drop a clean page at any time (one was seen to, of local files, too, and
		// without reclaiming any by its counters). That page is asked for, and the next
		// pass has them all.
		again := int64(-1)
		for pass := 0; again != 0 && pass < 5; pass++ {
			before := store.reads.Load() + store.batches.Load()
			readAll(t, m.Dir(), want)
			store.settle()
			again = store.reads.Load() + store.batches.Load() - before
		}
		if again != 0 {
			t.Errorf("read-only %v: %d requests for what was read before, in each of five passes", ro, again)
		}
	}
}

// One file of a directory is read alone, and so are files that lie apart.
func TestReadAheadNotAsked(t *testing.T) {
	files := []string{}
	for _, d := range []string{"p/a/b/c", "p/d/e/f", "p/g/h/i"} {
		for i := range 10 {
			files = append(files, fmt.Sprintf("%s/f%d", d, i), "content")
		}
	}
	dir := makeTree(t, files...)
	store := newStore(t, dir, "p")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	for _, f := range []string{"p/a/b/c/f3", "p/d/e/f/f5", "p/g/h/i/f1"} {
		wantRead(t, filepath.Join(m.Dir(), f), "content")
	}
	closeFS(t, m) // and what reads ahead has ended
	if s, b := store.reads.Load(), store.batches.Load(); s != 3 || b != 0 {
		t.Errorf("%d reads and %d batches for three files that lie apart", s, b)
	}
}

// Files that nobody looked up, and large ones among small ones.
func TestReadAheadByName(t *testing.T) {
	dir, want := smallTree(t, 1, 200)
	big := filepath.Join(dir, "p/d00/f100big")
	content := bytes.Repeat([]byte("large"), 100_000)
	if err := os.WriteFile(big, content, 0o644); err != nil {
		t.Fatal(err)
	}
	store := newStore(t, dir, "p")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	for i := range 200 {
		name := fmt.Sprintf("p/d00/f%03d", i)
		wantRead(t, filepath.Join(m.Dir(), name), want[name])
	}
	if n := store.reads.Load(); n > 20 {
		t.Errorf("%d of 200 files were read alone", n)
	}
	wantRead(t, filepath.Join(m.Dir(), "p/d00/f100big"), string(content))
}

// A file of a batch that changed underneath is EIO for its reader, whether it comes
// to it ahead or not, and the others are whole.
func TestReadAheadChanged(t *testing.T) {
	dir, want := smallTree(t, 4, 50)
	store := newStore(t, dir, "p")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	var bad []string
	for d := range 4 {
		for _, f := range []int{0, 7, 30, 49} {
			bad = append(bad, fmt.Sprintf("p/d%02d/f%03d", d, f))
		}
	}
	for i, b := range bad {
		var err error
		if i%2 == 0 {
			err = os.Truncate(filepath.Join(dir, b), 1)
		} else {
			err = os.Remove(filepath.Join(dir, b))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(m.Dir(), name))
		changed := false
		for _, b := range bad {
			changed = changed || b == name
		}
		switch {
		case changed:
			if err == nil {
				t.Errorf("%s changed, and was read: %d bytes", name, len(got))
			}
		case err != nil || string(got) != content:
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// Many programs at once, each on its own way, while sessions follow each other.
func TestReadAheadManyReaders(t *testing.T) {
	dir, want := smallTree(t, 8, 40)
	m := newMount(t, storefs.Config{})
	stores := []*dirStore{newStore(t, dir, "p"), newStore(t, dir, "p")}
	setSession(t, m, stores[0], nil)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 3 {
				for name, content := range want { // in random order
					got, err := os.ReadFile(filepath.Join(m.Dir(), name))
					if err != nil { // its session ended
						continue
					}
					if string(got) != content {
						t.Errorf("%s: %d bytes, want %d", name, len(got), len(content))
					}
				}
			}
		})
	}
	for i := range 20 {
		setSession(t, m, stores[i%2], nil)
		if i%5 == 0 { // make the kernel ask again
			d, err := os.Open(m.Dir())
			if err != nil {
				t.Fatal(err)
			}
			for name := range want {
				fd, err := unix.Open(filepath.Join(m.Dir(), name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err == nil {
					_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
					_ = unix.Close(fd)
				}
			}
			_ = d.Close()
		}
	}
	wg.Wait()
	readAll(t, m.Dir(), want)
}

// What was fetched ahead by a session that hangs ends with it.
func TestReadAheadHung(t *testing.T) {
	dir, want := smallTree(t, 1, 100)
	store := newStore(t, dir, "p")
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	p := func(i int) string { return fmt.Sprintf("p/d00/f%03d", i) }
	wantRead(t, filepath.Join(m.Dir(), p(0)), want[p(0)])
	store.hangBatches.Store(true)
	wantRead(t, filepath.Join(m.Dir(), p(1)), want[p(1)]) // not held up
	failed := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(m.Dir(), p(2)))
		failed <- err
	}()
	for store.batches.Load() == 0 {
		runtime.Gosched()
	}
	setSession(t, m, newStore(t, dir, "p"), nil)
	if err := <-failed; err != nil {
		wantErr(t, err, "a file of a batch that didn't come", unix.EIO)
	}
	wantRead(t, filepath.Join(m.Dir(), p(2)), want[p(2)])
	readAll(t, m.Dir(), want)
}

// Files change while a walk reads them through the mount, ahead and not, from a real
// store: their bytes are those of the beginning or EIO; in the next session those of its
// beginning.
func TestChangesWhileRead(t *testing.T) {
	dir, want := smallTree(t, 6, 100)
	var log lockedBuffer
	open := func() *nixstore.Store {
		s, err := nixstore.Open(t.Context(), dir, []string{"p"}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	m := newMount(t, storefs.Config{})
	setSession(t, m, open(), nil)
	var wg sync.WaitGroup
	var refused atomic.Int64
	read := func(now map[string]string) {
		for name := range now {
			got, err := os.ReadFile(filepath.Join(m.Dir(), name))
			switch {
			case err != nil && !errors.Is(err, unix.EIO):
				t.Errorf("%s: %v", name, err)
			case err != nil:
				refused.Add(1)
			case string(got) != want[name]:
				t.Errorf("%s: other bytes than it had", name)
			}
		}
	}
	for range 3 {
		wg.Go(func() { read(want) })
	}
	changed := map[string]string{}
	for name, content := range want {
		if len(changed)%3 != 2 {
			changed[name] = strings.ToUpper(content)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(changed[name]), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			changed[name] = content
		}
	}
	wg.Wait()
	read(want)
	if n := refused.Load(); n == 0 || !strings.Contains(log.String(), dir+"/p/d") {
		t.Errorf("%d reads refused; logged: %.500s", n, log.String())
	}
	want = changed
	setSession(t, m, open(), nil)
	refused.Store(0)
	read(changed)
	if n := refused.Load(); n != 0 {
		t.Errorf("%d reads refused in a session in which nothing changes", n)
	}
}

// A lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
