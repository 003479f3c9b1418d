package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/hostmem"
)

// ErrTooLarge is wrapped by the error of a run that this host can never have.
var ErrTooLarge = errors.New("more memory than this host has")

// Config says what a run needs.
type Config struct {
	StateDir string
	// Jobs is how many runs that take a place may be at work; 0 = any number.
	Jobs int
	// NoPlace is a run that takes none.
	NoPlace bool
	// Memory is what the run may come to take, in bytes.
	Memory int64
	// Tell, if not nil, is told when the run has to wait, and when that changes.
	Tell func(Waiting)

	host func() (hostmem.Host, error) // nil = hostmem.Read; for tests
	used func(pid int) int64          // nil = usedBy
}

// Waiting is what a run waits for.
type Waiting struct {
	Position int       `json:"position"` // 1 is next; 0 without a place
	Running  int       `json:"running"`  // runs that have a place
	Jobs     int       `json:"jobs"`
	Since    time.Time `json:"since"`
	// Memory is true if a place is free, and memory is what is missing.
	Memory    bool  `json:"memory"`
	Needed    int64 `json:"needed_bytes,omitempty"`
	Available int64 `json:"available_bytes,omitempty"` // less what runs at work may still take
}

func (w Waiting) String() string {
	since := w.Since.Local().Format("15:04:05")
	if w.Memory {
		return fmt.Sprintf("for memory since %s: it may take %d MiB, and %d MiB can be given away", since, w.Needed>>20, max(0, w.Available>>20))
	}
	return fmt.Sprintf("for a place since %s: number %d in the queue, %d of %d builds run (--jobs)", since, w.Position, w.Running, w.Jobs)
}

// margin is what is left to the host and to what isn't foreseen.
func margin(h hostmem.Host) int64 { return max(256<<20, h.Total/20) }

// recheck is how often everything is looked at without an event, and settle how soon
// after one: the kernel tells of a closed ticket just before it drops its lock.
const (
	recheck = time.Second
	settle  = 20 * time.Millisecond
)

// A Ticket is a run's place in the queue, and later among those at work.
type Ticket struct {
	c     Config
	dir   string
	name  string
	f     *os.File // locked
	entry entry
}

// Take waits until the run may begin. The ticket must be closed when it is over. If
// ctx ends, nothing is left.
func Take(ctx context.Context, c Config) (*Ticket, error) {
	if c.host == nil {
		c.host = hostmem.Read
	}
	if c.used == nil {
		c.used = usedBy
	}
	if err := c.fits(); err != nil {
		return nil, err
	}
	t := &Ticket{c: c, dir: filepath.Join(c.StateDir, "queue")}
	if err := os.MkdirAll(filepath.Join(t.dir, "tickets"), 0o700); err != nil {
		return nil, err
	}
	w, may, err := t.enter(ctx)
	if err == nil && !may {
		err = t.wait(ctx, w)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// fits refuses what can never begin.
func (c *Config) fits() error {
	h, err := c.host()
	if err != nil {
		return err
	}
	if most := h.Total - margin(h); c.Memory > most {
		return fmt.Errorf("%w: the run may come to take %d MiB, and %d MiB is all that can be given to one; an image with less --memory needs less",
			ErrTooLarge, c.Memory>>20, most>>20)
	}
	return nil
}

// wait returns when the run may begin.
func (t *Ticket) wait(ctx context.Context, w Waiting) error {
	changes, err := watch(filepath.Join(t.dir, "tickets"))
	if err != nil {
		return err
	}
	events := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			if _, err := changes.Read(buf); err != nil {
				return // closed
			}
			select {
			case events <- struct{}{}:
			default:
			}
		}
	}()
	defer func() { _ = changes.Close(); <-done }()
	timer := time.NewTimer(0) // something may have changed before there was a watch
	defer timer.Stop()
	for told := (Waiting{}); ; {
		if w != told && t.c.Tell != nil && !sameAs(w, told) {
			t.c.Tell(w)
			told = w
		}
		next := recheck
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-events:
			next = settle
		case <-timer.C:
		}
		timer.Reset(next)
		var may bool
		if w, may, err = t.look(ctx); err != nil || may {
			return err
		}
	}
}

// sameAs reports whether there is nothing new to tell: memory changes all the time.
func sameAs(a, b Waiting) bool {
	if a.Memory && b.Memory {
		a.Available = b.Available
	}
	return a == b
}

// watch is an inotify descriptor for closed and changed tickets.
func watch(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MODIFY|unix.IN_DELETE); err != nil {
		_ = f.Close()
		return nil, &os.PathError{Op: "inotify", Path: dir, Err: err}
	}
	return f, nil
}

// Rest gives the place back and keeps the memory: the run is over, its pair is kept.
func (t *Ticket) Rest(ctx context.Context) error {
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t.entry.State = resting
	return t.write()
}

// Close gives everything back. It may be called again, and on nil.
func (t *Ticket) Close() error {
	if t == nil || t.f == nil {
		return nil
	}
	// Removed first: who looks in between sees no ticket, or one that nobody holds.
	err := os.Remove(filepath.Join(t.dir, "tickets", t.name))
	if os.IsNotExist(err) {
		err = nil
	}
	err = errors.Join(err, t.f.Close())
	t.f = nil
	return err
}
