package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// historyLen is how many operations of a worker are remembered.
const historyLen = 80

// A history is what a worker did last, told when it finds something wrong.
type history struct {
	begin time.Time
	ring  [historyLen]string
	n     int
}

// add notes something of a session.
func (h *history) add(session int64, format string, args ...any) {
	if h.begin.IsZero() {
		h.begin = time.Now()
	}
	h.ring[h.n%historyLen] = fmt.Sprintf("%9.4f s, session %d: %s", time.Since(h.begin).Seconds(), session, fmt.Sprintf(format, args...))
	h.n++
}

func (h *history) String() string {
	var b strings.Builder
	for i := max(0, h.n-historyLen); i < h.n; i++ {
		b.WriteString("\n\t" + h.ring[i%historyLen])
	}
	return b.String()
}

// note adds to the worker's history what it did and how that ended.
func (w *worker) note(begin time.Time, what string, err error) {
	if what == "" {
		return
	}
	result := "ok"
	if err != nil {
		result = err.Error()
	}
	w.history.add(w.host.sessions.Load(), "%s: %s, %v", what, result, time.Since(begin).Round(time.Microsecond))
}

// explain ends the worker with what it knows: what it did, and how each file differs on
// the host and in the mount.
func (w *worker) explain(fail func(string, ...any)) func(string, ...any) {
	return func(format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		w.history.add(w.host.sessions.Load(), "found")
		var b strings.Builder
		for _, p := range w.tree.pick(func(_ string, e entry) bool { return e.isFile() }) {
			f := w.tree[p].file
			for _, side := range []struct{ name, dir string }{{"host", w.real}, {"mount", w.dir}} {
				got, err := os.ReadFile(filepath.Join(side.dir, p))
				d := ranges(got, f.data)
				if err != nil {
					d = err.Error()
				}
				if d != "" {
					fmt.Fprintf(&b, "\n\t%s on the %s, %d changes not confirmed: %s", p, side.name, len(f.since), d)
				}
			}
		}
		fail("%s\nfiles that differ from the model:%s\nhistory:%s", what, b.String(), w.history.String())
	}
}

// ranges tells where got differs from want.
func ranges(got, want []byte) string {
	var b strings.Builder
	if len(got) != len(want) {
		fmt.Fprintf(&b, "%d bytes, want %d;", len(got), len(want))
	}
	n := min(len(got), len(want))
	for i, told := 0, 0; i < n && told < 8; i++ {
		if got[i] == want[i] {
			continue
		}
		from, zeros := i, 0
		for last := i; i < n && i-last < 64; i++ { // equal bytes by chance don't end a range
			if got[i] != want[i] {
				last = i + 1
			}
			if got[i] == 0 {
				zeros++
			}
		}
		fmt.Fprintf(&b, " %d to %d (%d zeros)", from, i, zeros)
		told++
	}
	return b.String()
}
