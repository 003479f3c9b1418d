package soak

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// makeStore makes one store path of some files.
func (r *run) makeStore() map[string][]byte {
	files := map[string][]byte{}
	rnd := rand.New(rand.NewPCG(r.seed, 77))
	for i := range 60 {
		data := make([]byte, rnd.IntN(1<<(6+i%16)))
		for j := range data {
			data[j] = byte(rnd.Uint32())
		}
		files[fmt.Sprintf("input/d%d/f%d", i%5, i)] = data
	}
	for name, data := range files {
		path := filepath.Join(r.dirs.store, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o444); err != nil {
			r.t.Fatal(err)
		}
	}
	return files
}

// readStore reads files of the store: the right bytes or an error.
func (r *run) readStore(ctx context.Context, files map[string][]byte) {
	fail := r.fail("store")
	for i := 0; ctx.Err() == nil; i++ {
		for name, want := range files {
			h := r.hosts[i%2]
			seen := h.began.Load()
			got, err := os.ReadFile(filepath.Join(r.mounts[i%2], "store", name))
			switch {
			case err != nil && (!sessionOver(err) || h.injected.Load() == seen):
				fail("read %s: %v", name, err)
				return
			case err == nil && !bytes.Equal(got, want):
				fail("read %s: %s", name, difference(got, want))
				return
			}
			if ctx.Err() != nil {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// seenWithin is docs/semantics.md's second, and what a busy machine takes.
const seenWithin = 1500 * time.Millisecond

// watchHost changes a file on the host and waits until the mounts show it.
func (r *run) watchHost(ctx context.Context) {
	fail := r.fail("host's changes")
	real := filepath.Join(r.dirs.xchg, "from-host")
	for i := 0; ctx.Err() == nil; i++ {
		want := fmt.Sprintf("version %d", i)
		if err := os.WriteFile(real, []byte(want), 0o644); err != nil {
			fail("%v", err)
			return
		}
		begin := time.Now()
		h := r.hosts[i%2]
		seen := h.began.Load()
		for {
			got, err := os.ReadFile(filepath.Join(r.mounts[i%2], "xchg", "from-host"))
			if err == nil && string(got) == want || h.injected.Load() != seen {
				break
			}
			if time.Since(begin) > seenWithin {
				fail("%q, %v after %v; want %q", got, err, time.Since(begin), want)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// A log is a file to which all append, through both mounts.
type log struct {
	r *run

	mu        sync.Mutex
	confirmed map[string]bool // line to whether it must be there
}

func newLog(r *run) *log { return &log{r: r, confirmed: map[string]bool{}} }

func (l *log) appender(ctx context.Context, id int) {
	fail := l.r.fail(fmt.Sprintf("appender %d", id))
	h := l.r.hosts[id%2]
	path := filepath.Join(l.r.mounts[id%2], "xchg", "log")
	rnd := rand.New(rand.NewPCG(l.r.seed, uint64(1000+id)))
	for seq := 0; ctx.Err() == nil; {
		seen := h.began.Load()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		var lines []string
		for i := 0; i < 20 && err == nil; i++ {
			line := fmt.Sprintf("%d %d %s", id, seq, bytes.Repeat([]byte{'a' + byte(id)}, rnd.IntN(200)))
			line = fmt.Sprintf("%s %08x\n", line, crc32.ChecksumIEEE([]byte(line)))
			seq++
			lines = append(lines, line)
			_, err = f.WriteString(line)
		}
		if f != nil {
			if err == nil && rnd.IntN(2) == 0 {
				err = f.Sync()
			}
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}
		if err != nil && (!sessionOver(err) || h.injected.Load() == seen) {
			fail("%v", err)
			return
		}
		l.mu.Lock()
		for _, line := range lines {
			l.confirmed[line] = err == nil
		}
		l.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

// check reads the log on the host.
func (l *log) check() {
	got, err := os.ReadFile(filepath.Join(l.r.dirs.xchg, "log"))
	if err != nil {
		l.r.t.Error(err)
		return
	}
	times := map[string]int{}
	for line := range bytes.Lines(got) {
		times[string(line)]++
	}
	lost := 0
	for line, must := range l.confirmed {
		n := times[line]
		delete(times, line)
		if must && n != 1 || n > 1 {
			lost++
			l.r.t.Errorf("seed %d: log: the line %.40q is there %d times, confirmed: %v", l.r.seed, line, n, must)
		}
	}
	for line := range times {
		l.r.t.Errorf("seed %d: log: torn: %.60q", l.r.seed, line)
	}
	l.r.t.Logf("log: %d lines, %d wrong", len(l.confirmed), lost+len(times))
}
