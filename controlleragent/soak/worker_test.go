package soak

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// counts are what all workers did.
type counts struct {
	ops, bytes, confirmed, checked, told, recovered, lost atomic.Int64
}

// errBroken ends a worker that has found something wrong.
var errBroken = errors.New("broken")

// An open is a file that a worker has open for writing.
type open struct {
	f    *os.File
	file *file
	end  bool // O_APPEND
	path string
}

// A worker works in one directory, alone, one operation after the other.
type worker struct {
	name      string
	host      *host
	dir, real string // in the mount, on the host
	rnd       *rand.Rand
	mapper    *mapper
	n         *counts
	behind    bool // writes are answered before the host has them
	fail      func(format string, args ...any)

	tree  tree
	opens []*open
	seen  int64 // the host's count of faults that are excused already
	last  string

	history history
}

func (w *worker) p(path string) string { return filepath.Join(w.dir, path) }

// sessionOver reports whether err can come of the end of a session.
func sessionOver(err error) bool {
	for _, e := range []error{unix.EIO, unix.ESTALE, unix.ENOTCONN, unix.EINTR, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// run works until done is closed.
func (w *worker) run(done <-chan struct{}) {
	w.tree = tree{}
	w.seen = w.host.began.Load()
	for i := 0; ; i++ {
		select {
		case <-done:
			w.finish()
			return
		default:
		}
		if err := w.step(i); err != nil {
			return
		}
	}
}

// step does one operation. If it fails, and a fault excuses it, the host must be as it was
// or as the operation would have left it.
func (w *worker) step(i int) error {
	before := w.tree.clone()
	begin := time.Now()
	post, what, err := w.do()
	w.last = what
	w.note(begin, what, err)
	w.n.ops.Add(1)
	if err == nil {
		w.tree = post
		if i%200 == 199 {
			err = w.compare()
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errBroken):
		w.fail("%s: %v", what, err)
		return err
	case !sessionOver(err):
		w.fail("%s: %v, which no fault of the link explains", what, err)
		return errBroken
	case w.host.injected.Load() == w.seen:
		w.fail("%s: %v, and the link had no fault", what, err)
		return errBroken
	}
	w.n.told.Add(1)
	return w.recover(before, post)
}

// recover waits for the next session and finds out what became of the operation.
func (w *worker) recover(before, post tree) error {
	w.n.recovered.Add(1)
	var sure []*open // closed without an error of their own
	for _, o := range w.opens {
		err := o.f.Close()
		if err == nil && !o.file.told {
			sure = append(sure, o)
			if o.file.lost {
				w.fail("%s: the mount lacked what was written, and close did not tell", o.path)
				return errBroken
			}
		}
		w.note(time.Now(), fmt.Sprintf("after that: close %s, told %v", o.path, o.file.told), err)
	}
	w.opens = nil
	if !w.nextSession() {
		w.fail("no session for 30 s")
		return errBroken
	}
	asBefore := before.matches(w.real, false)
	if asBefore == "" {
		w.tree = before
		w.history.add(w.seen, "the next session: as before")
	} else if asAfter := post.matches(w.real, false); asAfter == "" {
		w.tree = post
		w.history.add(w.seen, "the next session: as after it (%s)", asBefore)
	} else {
		w.fail("after a failed %q the host is neither as before (%s) nor as after it (%s)", w.last, asBefore, asAfter)
		return errBroken
	}
	for _, o := range sure {
		if !w.hostHas(o, "closed after an error elsewhere") {
			return errBroken
		}
	}
	return w.tree.adopt(w.real)
}

// nextSession waits for a session after the one that ended. What no cache answers tells of
// it: by then nothing of the former session is under way on the host any more.
func (w *worker) nextSession() bool {
	probe := filepath.Join(w.real, "probe")
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		w.seen = w.host.began.Load()
		err := os.Mkdir(w.p("probe"), 0o755)
		if err == nil || errors.Is(err, unix.EEXIST) {
			if unix.Rmdir(w.p("probe")) == nil {
				return true
			}
			_ = os.Remove(probe) // a session later, perhaps
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// hostHas checks that the host has what was confirmed. It reports whether it has.
func (w *worker) hostHas(o *open, what string) bool {
	w.n.confirmed.Add(1)
	o.file.confirm()
	path := w.find(o.file)
	if path == "" {
		return true // removed
	}
	got, err := os.ReadFile(filepath.Join(w.real, path))
	if err != nil {
		w.fail("%s: %s: on the host: %v", what, path, err)
		return false
	}
	if d := difference(got, o.file.data); d != "" {
		w.fail("%s: %s: on the host %s", what, path, d)
		return false
	}
	return true
}

// find returns a name of the file.
func (w *worker) find(f *file) string {
	for _, p := range w.tree.pick(func(_ string, e entry) bool { return e.file == f }) {
		return p
	}
	return ""
}

// compare checks the whole directory, as the mount shows it.
func (w *worker) compare() error {
	w.n.checked.Add(1)
	if d := w.tree.matches(w.dir, true); d != "" {
		if w.host.injected.Load() != w.seen {
			return fmt.Errorf("%s: %w", d, unix.EIO)
		}
		return fmt.Errorf("the mount differs from the model: %s: %w", d, errBroken)
	}
	return nil
}

// finish closes everything and compares both sides.
func (w *worker) finish() {
	for _, o := range w.opens {
		if err := o.f.Close(); err == nil {
			w.hostHas(o, "last close")
		} else if !sessionOver(err) || w.host.injected.Load() == w.seen {
			w.fail("last close: %v", err)
		}
	}
	if d := w.tree.matches(w.real, false); d != "" {
		w.fail("at the end the host differs: %s", d)
	}
}

// Names are few, so that operations meet.
func (w *worker) freshPath() string {
	dirs := w.tree.pick(func(p string, e entry) bool { return e.isDir() && strings.Count(p, "/") < 3 })
	dir := ""
	if len(dirs) > 0 && w.rnd.IntN(2) == 0 {
		dir = dirs[w.rnd.IntN(len(dirs))] + "/"
	}
	name := fmt.Sprintf("n%02d", w.rnd.IntN(24))
	if w.rnd.IntN(20) == 0 {
		name += strings.Repeat("ä\xff", 60)
	}
	return dir + name
}

func (w *worker) some(ok func(string, entry) bool) (string, entry, bool) {
	all := w.tree.pick(ok)
	if len(all) == 0 {
		return "", entry{}, false
	}
	p := all[w.rnd.IntN(len(all))]
	return p, w.tree[p], true
}

func (w *worker) someFile() (string, *file, bool) {
	p, e, ok := w.some(func(_ string, e entry) bool { return e.isFile() })
	return p, e.file, ok
}

func (w *worker) bytes(n int) []byte {
	b := make([]byte, n)
	x := w.rnd.Uint64() | 1
	for i := range b {
		if i%8 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		b[i] = byte(x>>(8*(i%8))) | 1 // never zero, which is a hole
	}
	w.n.bytes.Add(int64(n))
	return b
}

// size is mostly small, sometimes more than one request takes, and sometimes nothing.
func (w *worker) size() int {
	switch w.rnd.IntN(40) {
	case 0:
		return w.rnd.IntN(2 << 20)
	case 1, 2, 3, 4:
		return w.rnd.IntN(200 << 10)
	case 5:
		return 0
	}
	return w.rnd.IntN(9000)
}
