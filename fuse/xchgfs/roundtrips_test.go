package xchgfs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"winvm/fuse/xchgfs"
	"winvm/transport/fsrpc"
)

// far is a Tree at the end of a link: every request takes a while, and is counted.
type far struct {
	fsrpc.Tree
	delay time.Duration

	mu    sync.Mutex
	count map[string]int
}

func newFar(t fsrpc.Tree, delay time.Duration) *far {
	return &far{Tree: t, delay: delay, count: map[string]int{}}
}

func (f *far) trip(op string) {
	f.mu.Lock()
	f.count[op]++
	f.mu.Unlock()
	if f.delay > 0 {
		time.Sleep(f.delay)
	}
}

// take returns the counts and begins anew.
func (f *far) take() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.count
	f.count = map[string]int{}
	return c
}

func (f *far) Lookup(ctx context.Context, p fsrpc.NodeID, name string) (fsrpc.Attr, error) {
	f.trip("lookup")
	return f.Tree.Lookup(ctx, p, name)
}

func (f *far) Getattr(ctx context.Context, n fsrpc.NodeID, h fsrpc.HandleID) (fsrpc.Attr, error) {
	f.trip("getattr")
	return f.Tree.Getattr(ctx, n, h)
}

func (f *far) Setattr(ctx context.Context, n fsrpc.NodeID, h fsrpc.HandleID, s fsrpc.SetAttr) (fsrpc.Attr, error) {
	f.trip("setattr")
	return f.Tree.Setattr(ctx, n, h, s)
}

func (f *far) Create(ctx context.Context, p fsrpc.NodeID, name string, flags, mode uint32) (fsrpc.Attr, fsrpc.HandleID, error) {
	f.trip("create")
	return f.Tree.Create(ctx, p, name, flags, mode)
}

func (f *far) Mkdir(ctx context.Context, p fsrpc.NodeID, name string, mode uint32) (fsrpc.Attr, error) {
	f.trip("mkdir")
	return f.Tree.Mkdir(ctx, p, name, mode)
}

func (f *far) Open(ctx context.Context, n fsrpc.NodeID, flags uint32) (fsrpc.HandleID, error) {
	f.trip("open")
	return f.Tree.Open(ctx, n, flags)
}

func (f *far) Read(ctx context.Context, h fsrpc.HandleID, off uint64, buf []byte) (int, error) {
	f.trip("read")
	return f.Tree.Read(ctx, h, off, buf)
}

func (f *far) Write(ctx context.Context, h fsrpc.HandleID, off uint64, data []byte) (int, error) {
	f.trip("write")
	return f.Tree.Write(ctx, h, off, data)
}

func (f *far) Readdir(ctx context.Context, h fsrpc.HandleID, off uint64, n int, attrs bool) ([]fsrpc.DirEntry, error) {
	f.trip("readdir")
	return f.Tree.Readdir(ctx, h, off, n, attrs)
}

func (f *far) Release(ctx context.Context, h fsrpc.HandleID) error {
	f.trip("release")
	return f.Tree.Release(ctx, h)
}

func (f *far) Unlink(ctx context.Context, p fsrpc.NodeID, name string) error {
	f.trip("unlink")
	return f.Tree.Unlink(ctx, p, name)
}

func (f *far) Rename(ctx context.Context, p fsrpc.NodeID, name string, q fsrpc.NodeID, newName string, flags uint32) error {
	f.trip("rename")
	return f.Tree.Rename(ctx, p, name, q, newName, flags)
}

func (f *far) Fsync(ctx context.Context, h fsrpc.HandleID, dataOnly bool) error {
	f.trip("fsync")
	return f.Tree.Fsync(ctx, h, dataOnly)
}

// A workload is something that programs do to each of many files.
type workload struct {
	name string
	do   func(dir string, i int) error
}

var block = []byte(strings.Repeat("0123456789abcdef", 256))

func path(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("f%04d", i)) }

// They build on each other, in this order.
var workloads = []workload{
	{"create, write 4 KiB, close", func(dir string, i int) error { return os.WriteFile(path(dir, i), block, 0o644) }},
	{"open, truncate, write 4 KiB, close", func(dir string, i int) error { return os.WriteFile(path(dir, i), block, 0o644) }},
	{"create, 16 x write 4 KiB, close", func(dir string, i int) error {
		f, err := os.Create(path(dir, i) + "m")
		for j := 0; j < 16 && err == nil; j++ {
			_, err = f.Write(block)
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	}},
	{"stat", func(dir string, i int) error { _, err := os.Lstat(path(dir, i)); return err }},
	{"rename", func(dir string, i int) error { return os.Rename(path(dir, i), path(dir, i)+"r") }},
	{"unlink", func(dir string, i int) error { return os.Remove(path(dir, i) + "r") }},
}

func counts(c map[string]int, n int) string {
	var out []string
	total := 0
	for op, k := range c {
		out = append(out, fmt.Sprintf("%s %.2f", op, float64(k)/float64(n)))
		total += k
	}
	sort.Strings(out)
	return fmt.Sprintf("%.2f requests: %s", float64(total)/float64(n), strings.Join(out, ", "))
}

// prepare does what has to be done before a workload.
func prepare(t testing.TB, dir, name string, n int) {
	first := 0
	switch name {
	case "open, truncate, write 4 KiB, close", "stat", "rename":
		first = 1
	case "unlink":
		first = 2
	}
	for i := range n {
		var err error
		if first > 0 {
			err = workloads[0].do(dir, i)
		}
		if first > 1 && err == nil {
			err = os.Rename(path(dir, i), path(dir, i)+"r")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// No more requests reach the host for a file than these, on the average; some are
// made in the background.
func TestRoundTrips(t *testing.T) {
	some := func(c map[string]float64) map[string]float64 { // the names of a directory, now and then
		c["readdir"], c["open"], c["release"] = 0.5, c["open"]+0.3, c["release"]+0.3
		return c
	}
	most := map[string]map[string]float64{
		"create, write 4 KiB, close":         some(map[string]float64{"lookup": 0.5, "create": 1, "write": 1, "getattr": 1.1, "release": 1}),
		"open, truncate, write 4 KiB, close": {"lookup": 1, "open": 1, "write": 1, "getattr": 0.1, "release": 1},
		"create, 16 x write 4 KiB, close":    some(map[string]float64{"lookup": 0.5, "create": 1, "write": 8, "getattr": 1.2, "release": 1}),
		"stat":                               {"lookup": 1, "getattr": 0.1},
		"rename":                             some(map[string]float64{"lookup": 1.7, "rename": 1, "getattr": 1.1}),
		"unlink":                             {"lookup": 1, "unlink": 1, "getattr": 1.1},
	}
	for _, w := range workloads {
		t.Run(w.name, func(t *testing.T) {
			tree, _ := newTree(t)
			m := newMount(t, xchgfs.Config{})
			f := newFar(tree, 300*time.Microsecond)
			m.SetTree(f)
			const n = 100
			prepare(t, m.Dir(), w.name, n)
			time.Sleep(1100 * time.Millisecond) // what is known is forgotten
			f.take()
			for i := range n {
				if err := w.do(m.Dir(), i); err != nil {
					t.Fatal(err)
				}
			}
			got := f.take()
			t.Log(counts(got, n))
			for op, k := range got {
				if float64(k)/n > most[w.name][op] {
					t.Errorf("%d of %s for %d files, want %.0f at most", k, op, n, most[w.name][op]*n)
				}
			}
		})
	}
}

// BenchmarkFar times them at the end of a link on which a round trip takes as long as
// one through a virtio-serial port. Run it with -benchtime 1x: each is one round of 200 files.
func BenchmarkFar(b *testing.B) {
	for _, w := range workloads {
		b.Run(strings.ReplaceAll(w.name, " ", "_"), func(b *testing.B) {
			tree, _ := newTree(b)
			m := newMount(b, xchgfs.Config{})
			f := newFar(tree, 300*time.Microsecond)
			m.SetTree(f)
			const n = 200
			prepare(b, m.Dir(), w.name, n)
			time.Sleep(1200 * time.Millisecond) // what is known is forgotten
			f.take()
			b.ResetTimer()
			for i := range n {
				if err := w.do(m.Dir(), i); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Microseconds())/n, "us/file")
			b.ReportMetric(0, "ns/op")
			b.Log(counts(f.take(), n))
		})
	}
}
