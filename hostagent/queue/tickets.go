package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/hostmem"
)

// States of a ticket.
const (
	waiting = "waiting"
	running = "running"
	resting = "resting"
)

// entry is what a ticket's file says.
type entry struct {
	State   string    `json:"state"`
	Pid     int       `json:"pid"`
	NoPlace bool      `json:"no_place,omitempty"`
	Memory  int64     `json:"memory_bytes"`
	Since   time.Time `json:"since"`

	number uint64
}

// maxEntry bounds a ticket's file.
const maxEntry = 4 << 10

// lockPoll is how often the queue's lock is asked for: it is held for a fraction of a
// millisecond, and flock(2) can't be waited for together with a context.
const lockPoll = 2 * time.Millisecond

// lock is for reading and changing tickets.
func (t *Ticket) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(t.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		timer := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			_ = f.Close()
			return nil, fmt.Errorf("the queue in %s is locked: %w", t.dir, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

// enter takes a number, and begins if that can be.
func (t *Ticket) enter(ctx context.Context) (w Waiting, may bool, err error) {
	unlock, err := t.lock(ctx)
	if err != nil {
		return w, false, err
	}
	defer unlock()
	all, err := t.scan()
	if err != nil {
		return w, false, err
	}
	t.entry = entry{State: waiting, Pid: os.Getpid(), NoPlace: t.c.NoPlace, Memory: t.c.Memory, Since: time.Now(), number: 1}
	if len(all) > 0 {
		t.entry.number = all[len(all)-1].number + 1
	}
	t.name = fmt.Sprintf("%012d", t.entry.number)
	// With O_RDWR, so that the kernel tells others when it is closed.
	if t.f, err = os.OpenFile(filepath.Join(t.dir, "tickets", t.name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return w, false, err
	}
	if err := unix.Flock(int(t.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return w, false, fmt.Errorf("lock %s: %w", t.f.Name(), err)
	}
	if err := t.write(); err != nil {
		return w, false, err
	}
	return t.decide(all)
}

// look decides anew.
func (t *Ticket) look(ctx context.Context) (w Waiting, may bool, err error) {
	unlock, err := t.lock(ctx)
	if err != nil {
		return w, false, err
	}
	defer unlock()
	all, err := t.scan()
	if err != nil {
		return w, false, err
	}
	return t.decide(all)
}

// decide begins the run if it may. The caller holds the lock; all are the others'
// tickets, or include this one.
func (t *Ticket) decide(all []entry) (w Waiting, may bool, err error) {
	w = Waiting{Jobs: t.c.Jobs, Since: t.entry.Since}
	var reserved []entry
	for _, e := range all {
		switch {
		case e.number == t.entry.number:
		case e.State != waiting:
			reserved = append(reserved, e)
			if e.State == running && !e.NoPlace {
				w.Running++
			}
		case e.number < t.entry.number && !e.NoPlace && !stopped(e.Pid):
			w.Position++ // those before this one
		}
	}
	if t.c.NoPlace {
		w.Position = 0
	} else if w.Position++; w.Position > 1 || t.c.Jobs > 0 && w.Running >= t.c.Jobs {
		return w, false, nil
	}
	h, err := t.c.host()
	if err != nil {
		return w, false, err
	}
	w.Needed, w.Available = t.c.Memory, h.Available-margin(h)
	for _, e := range reserved {
		w.Available -= e.Memory
	}
	// What they have taken already is missing from what is available.
	for i := 0; i < len(reserved) && w.Available < w.Needed; i++ {
		w.Available += min(t.c.used(reserved[i].Pid), reserved[i].Memory)
	}
	if w.Memory = w.Available < w.Needed; w.Memory {
		return w, false, nil
	}
	t.entry.State = running
	return w, true, t.write()
}

// stopped reports whether a process stands still (SIGSTOP, Ctrl-Z): if it is next, it
// can't take its turn. It gets the next one when it goes on.
func stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The name before it may hold anything but ends with the last ')'.
	state := strings.TrimSpace(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return strings.HasPrefix(state, "T") || strings.HasPrefix(state, "t")
}

// write replaces the ticket's content. The caller holds the lock.
func (t *Ticket) write() error {
	b, err := json.Marshal(t.entry)
	if err != nil {
		return err
	}
	if _, err := t.f.WriteAt(b, 0); err != nil {
		return err
	}
	return t.f.Truncate(int64(len(b)))
}

// scan reads all tickets, in their order, and removes those of the dead. The caller
// holds the lock.
func (t *Ticket) scan() ([]entry, error) {
	dir := filepath.Join(t.dir, "tickets")
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, d := range names {
		n, err := strconv.ParseUint(d.Name(), 10, 64)
		if err != nil {
			continue // not ours
		}
		e, alive, err := read(filepath.Join(dir, d.Name()))
		if err != nil {
			return nil, err
		}
		if e.number = n; alive {
			all = append(all, e)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].number < all[j].number })
	return all, nil
}

// read reads a ticket. One whose process has ended is removed.
func read(path string) (e entry, alive bool, err error) {
	// Not for writing: that would tell others of nothing, for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if os.IsNotExist(err) { // closed just now
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	defer func() { _ = f.Close() }()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return e, false, err
		}
		return e, false, nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxEntry))
	if err != nil {
		return e, false, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, false, fmt.Errorf("ticket %s: %w", path, err)
	}
	return e, true, nil
}

// usedBy is what the VMs of a run have taken that was available before: the memory of
// the host agent's children that is theirs alone.
func usedBy(pid int) (sum int64) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l) // ended just now
		for _, child := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(child); err == nil {
				if use, err := hostmem.Of(n); err == nil {
					sum += use.Own
				}
			}
		}
	}
	return sum
}
