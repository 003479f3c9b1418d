package xchgfs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"winvm/fuse/xchgfs"
	"winvm/hostagent/hostfs"
)

// Two mounts, as two builds on one directory, and the host append to one file. Each write(2)
// lands whole, also over a page's end.
func TestAppendTwoMounts(t *testing.T) {
	host := t.TempDir()
	dirs := []string{host}
	for range 2 {
		tree, err := hostfs.New(hostfs.Config{Root: host})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tree.Close() })
		m := newMount(t, xchgfs.Config{})
		m.SetTree(tree)
		dirs = append(dirs, m.Dir())
	}
	const lines = 800
	line := func(w, i int) string {
		return fmt.Sprintf("%d %d %s\n", w, i, bytes.Repeat([]byte{'a' + byte(w)}, i*7%900))
	}
	var wg sync.WaitGroup
	for w, dir := range dirs {
		wg.Go(func() {
			flags := []int{os.O_WRONLY, os.O_RDWR}[w%2]
			f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|flags, 0o644)
			for i := 0; i < lines && err == nil; i++ {
				_, err = f.WriteString(line(w, i))
			}
			if err != nil {
				t.Error(err)
			}
			_ = f.Close()
		})
	}
	wg.Wait()
	got, err := os.ReadFile(filepath.Join(host, "log"))
	if err != nil {
		t.Fatal(err)
	}
	next := make([]int, len(dirs))
	for l := range bytes.Lines(got) {
		w := int(l[0] - '0')
		if w < 0 || w >= len(dirs) || string(l) != line(w, next[w]) {
			t.Fatalf("%.60q, want line %v", l, next)
		}
		next[w]++
	}
	for w, n := range next {
		if n != lines {
			t.Errorf("writer %d: %d lines", w, n)
		}
	}
}

// Who has a file open and reads through the cache sees what is appended at once.
func TestAppendSeen(t *testing.T) {
	tree, _ := newTree(t, "log", "")
	m := newMount(t, xchgfs.Config{})
	m.SetTree(tree)
	p := filepath.Join(m.Dir(), "log")
	r, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var want []byte
	for i := range 300 {
		piece := fmt.Appendf(nil, "piece %d;", i)
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		want = append(want, piece...)
		got := make([]byte, len(want)+10)
		if n, _ := r.ReadAt(got, 0); !bytes.Equal(got[:n], want) {
			t.Fatalf("after %d pieces: %d bytes read, want %d", i+1, n, len(want))
		}
	}
}
