package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"winvm/hostagent/control"
	"winvm/hostagent/rundir"
)

// LogFiles are the names of a run's logs that are text, and Dir where all of them lie.
type LogFiles struct {
	ID, Dir string
	Names   []string
}

// consoleSuffix ends the names of the consoles' logs.
const consoleSuffix = ".console"

// Logs finds a run's logs, whether it runs or is over.
func (h *Host) Logs(id string) (LogFiles, error) {
	l := LogFiles{}
	var err error
	if l.ID, l.Dir, err = rundir.FindLogs(h.StateDir, id); err != nil {
		return l, err
	}
	entries, err := os.ReadDir(l.Dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), consoleSuffix) {
			l.Names = append(l.Names, e.Name())
		}
	}
	sort.Strings(l.Names)
	return l, err
}

// FollowLogs gives tell the pieces of a run's logs, those that are there and those that
// come, until the run has ended or ctx has.
func (h *Host) FollowLogs(ctx context.Context, l LogFiles, tell func(name string, piece []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := watch(l.Dir)
	if err != nil {
		return err
	}
	dir, err := os.OpenRoot(l.Dir) // also when it is moved, at the run's end
	if err != nil {
		return errors.Join(err, changes.Close())
	}
	defer func() { _ = dir.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = changes.Close() })
	defer stop()
	defer func() { _ = changes.Close() }()
	over := true
	if r, err := rundir.Find(h.StateDir, l.ID); err == nil {
		wait, err := control.Wait(ctx, r.Dir)
		if err != nil && !errors.Is(err, control.ErrGone) {
			return err
		}
		if over = err != nil; !over {
			ended := make(chan struct{})
			defer func() { cancel(); <-ended }()
			go func() {
				_ = wait()
				_ = changes.Close() // ends the read below
				close(ended)
			}()
		}
	}
	at := map[string]int64{}
	buf := make([]byte, 4096)
	for {
		if err := newPieces(dir, l.Names, at, tell); err != nil {
			return err
		}
		if over {
			return ctx.Err()
		}
		if _, err := changes.Read(buf); err != nil { // closed; the last pieces are there
			over = true
		}
	}
}

// watch is an inotify descriptor that can be read when a file in dir has grown.
func watch(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE); err != nil {
		_ = f.Close()
		return nil, &os.PathError{Op: "inotify", Path: dir, Err: err}
	}
	return f, nil
}

// newPieces tells what the files have beyond the offsets, which it moves on.
func newPieces(dir *os.Root, names []string, at map[string]int64, tell func(string, []byte) error) error {
	buf := make([]byte, 64<<10)
	for _, name := range names {
		f, err := dir.Open(name)
		if os.IsNotExist(err) { // not yet
			continue
		}
		if err != nil {
			return err
		}
		for {
			n, err := f.ReadAt(buf, at[name])
			if n > 0 {
				at[name] += int64(n)
				if err := tell(name, buf[:n]); err != nil {
					_ = f.Close()
					return err
				}
			}
			if err != nil && !errors.Is(err, io.EOF) {
				_ = f.Close()
				return err
			}
			if n == 0 || err != nil {
				break
			}
		}
		_ = f.Close()
	}
	return nil
}
