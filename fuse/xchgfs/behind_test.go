package xchgfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/xchgfs"
	"winvm/hostagent/hostfs"
	"winvm/transport/fsrpc"
)

// broken is a Tree whose writes fail, or wait.
type broken struct {
	fsrpc.Tree
	fail atomic.Pointer[error]
	gate chan struct{} // nil, or what every write waits for
	got  atomic.Int64  // bytes that arrived
}

func (b *broken) Write(ctx context.Context, h fsrpc.HandleID, off uint64, data []byte) (int, error) {
	if b.gate != nil {
		select {
		case <-b.gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if err := b.fail.Load(); err != nil {
		return 0, *err
	}
	b.got.Add(int64(len(data)))
	return b.Tree.Write(ctx, h, off, data)
}

func mountBroken(t *testing.T, gate chan struct{}) (*xchgfs.FS, *broken, string) {
	tree, host := newTree(t)
	b := &broken{Tree: tree, gate: gate}
	m := newMount(t, xchgfs.Config{})
	m.SetTree(b)
	return m, b, host
}

// What a write was answered for and could not be done is told by what comes next.
func TestWriteErrorTold(t *testing.T) {
	for _, errno := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO} {
		for what, next := range map[string]func(*os.File) error{
			"close": (*os.File).Close,
			"fsync": (*os.File).Sync,
			"next write": func(f *os.File) (err error) {
				for i := 0; i < 200 && err == nil; i++ {
					_, err = f.WriteAt([]byte("x"), 9)
					time.Sleep(time.Millisecond)
				}
				return err
			},
		} {
			m, b, _ := mountBroken(t, nil)
			f, err := os.Create(filepath.Join(m.Dir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			b.fail.Store(&errno)
			if _, err := f.WriteAt([]byte("lost"), 0); err != nil {
				t.Errorf("%v: the first write, which nothing was known of: %v", errno, err)
			}
			wantErr(t, next(f), what+" after a failed write", errno)
			_ = f.Close()
			closeFS(t, m)
		}
	}
}

// An error that only a close told is told by Sync, too, once.
func TestSyncTells(t *testing.T) {
	m, b, _ := mountBroken(t, nil)
	errno := error(unix.ENOSPC)
	b.fail.Store(&errno)
	_ = os.WriteFile(filepath.Join(m.Dir(), "f"), []byte("x"), 0o644)
	wantErr(t, m.Sync(t.Context()), "Sync", unix.ENOSPC)
	b.fail.Store(nil)
	if err := m.Sync(t.Context()); err != nil {
		t.Errorf("told again: %v", err)
	}
}

// A session's end before the data is with the host is an error of the close.
func TestWriteLostWithSession(t *testing.T) {
	gate := make(chan struct{})
	m, _, _ := mountBroken(t, gate)
	f, err := os.Create(filepath.Join(m.Dir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("never arrives"); err != nil {
		t.Fatal(err)
	}
	m.ClearTree()
	wantErr(t, f.Close(), "close", unix.EIO)
}

// Until the writer asks, nobody is told: a reader in the next session finds the file as the
// host has it, which is without what was lost.
func TestLostWriteInNextSession(t *testing.T) {
	m, _, host := mountBroken(t, make(chan struct{}))
	p := filepath.Join(m.Dir(), "f")
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("new, and more"); err != nil {
		t.Fatal(err)
	}
	next, err := hostfs.New(hostfs.Config{Root: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	m.ClearTree()
	m.SetTree(next)
	wantRead(t, p, "old")
	if st, err := os.Lstat(p); err != nil || st.Size() != 3 {
		t.Errorf("%v, %v", st, err)
	}
	wantErr(t, f.Close(), "close", unix.EIO)
	wantRead(t, filepath.Join(host, "f"), "old")
}

// What waits is bounded; writers wait then.
func TestBehindBounded(t *testing.T) {
	gate := make(chan struct{})
	m, b, host := mountBroken(t, gate)
	const size = 24 << 20
	var wrote atomic.Int64
	var wg sync.WaitGroup
	done := make(chan error, 1)
	wg.Go(func() {
		f, err := os.Create(filepath.Join(m.Dir(), "f"))
		chunk := make([]byte, 128<<10)
		for err == nil && wrote.Load() < size {
			_, err = f.Write(chunk)
			wrote.Add(int64(len(chunk)))
		}
		done <- errors.Join(err, f.Close())
	})
	last := int64(-1)
	for tick := time.NewTicker(300 * time.Millisecond); ; <-tick.C {
		now := wrote.Load()
		if now > 0 && now == last {
			tick.Stop()
			break
		}
		last = now
	}
	if last > 10<<20 {
		t.Errorf("%d bytes were taken while the host took none", last)
	}
	close(gate)
	wg.Wait()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(host, "f")); err != nil || st.Size() != size || b.got.Load() != size {
		t.Errorf("%v, %v, %d bytes arrived", st, err, b.got.Load())
	}
}

// Everything that looks at a file finds what was written before, wherever that is.
func TestSeenAtOnce(t *testing.T) {
	tree, _ := newTree(t)
	m := newMount(t, xchgfs.Config{})
	m.SetTree(newFar(tree, 2*time.Millisecond))
	p := filepath.Join(m.Dir(), "f")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := ""
	for i := range 60 {
		line := fmt.Sprintf("line %d\n", i)
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		want += line
		switch i % 4 {
		case 0:
			wantRead(t, p, want)
		case 1:
			if st, err := os.Lstat(p); err != nil || st.Size() != int64(len(want)) {
				t.Fatalf("%v, %v, want %d bytes", st, err, len(want))
			}
		case 2:
			// The name is looked up anew, with attributes.
			to := p + fmt.Sprint(i)
			if err := os.Link(p, to); err != nil {
				t.Fatal(err)
			}
			if st, err := os.Lstat(to); err != nil || st.Size() != int64(len(want)) {
				t.Fatalf("%v, %v, want %d bytes", st, err, len(want))
			}
		case 3:
			list, err := os.ReadDir(m.Dir())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				if st, err := e.Info(); err != nil || st.Size() != int64(len(want)) {
					t.Fatalf("%s: %v, %v, want %d bytes", e.Name(), st, err, len(want))
				}
			}
		}
	}
}

// Names that are known not to be there: those that are made through the mount are seen at
// once, those that the host makes after a second.
func TestAbsentNames(t *testing.T) {
	tree, host := newTree(t, "d/there", "")
	m := newMount(t, xchgfs.Config{})
	f := newFar(tree, 0)
	m.SetTree(f)
	d := filepath.Join(m.Dir(), "d")
	missing := func(i int) {
		if _, err := os.Lstat(filepath.Join(d, fmt.Sprintf("none%d", i))); !errors.Is(err, unix.ENOENT) {
			t.Errorf("none%d: %v", i, err)
		}
	}
	for i := range 20 {
		missing(i)
		time.Sleep(time.Millisecond)
	}
	f.take()
	for i := range 100 {
		missing(i)
	}
	if n := f.take()["lookup"]; n > 20 {
		t.Errorf("%d lookups for 100 names that are known not to be there", n)
	}
	if err := os.WriteFile(filepath.Join(host, "d/new"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for i := 0; ; i++ {
		missing(i % 50)
		if _, err := os.Lstat(filepath.Join(d, "new")); err == nil {
			break
		}
		if time.Since(begin) > 1200*time.Millisecond {
			t.Fatal("what the host made isn't seen after a second")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("seen after %v", time.Since(begin))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 150 {
				missing(i)
				p := filepath.Join(d, fmt.Sprintf("w%d-%d", w, i))
				if err := os.WriteFile(p, nil, 0o644); err != nil {
					t.Error(err)
				}
				if err := os.Rename(p, p+"r"); err != nil {
					t.Error(err)
				}
				if _, err := os.Lstat(p + "r"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// What a listing has shown is found, though the directory was known to lack it a moment ago.
func TestListedNamesFound(t *testing.T) {
	const files = 1000 // more than come with their attributes
	tree, host := newTree(t)
	m := newMount(t, xchgfs.Config{EntryTimeout: time.Minute})
	m.SetTree(tree)
	d := filepath.Join(m.Dir(), "d")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(host, "d", fmt.Sprintf("made on the host %d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list, err := os.ReadDir(d)
	if err != nil || len(list) != files {
		t.Fatalf("%d names, %v", len(list), err)
	}
	missing := 0
	for _, e := range list {
		if _, err := os.Lstat(filepath.Join(d, e.Name())); err != nil {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d names of %d that were listed aren't found", missing, files)
	}
}
