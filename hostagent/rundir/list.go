package rundir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotFound is wrapped by the error for a run that does not exist.
var ErrNotFound = errors.New("no such run")

// A Run is one that a process is at, or keeps.
type Run struct {
	ID   string
	Dir  string
	Kept bool // in kept/, its pair paused
	// Since is when it began: its lock was made then, and never written to.
	Since time.Time
}

// List returns the runs below a state directory that live, the oldest first.
func List(stateDir string) ([]Run, error) {
	var runs []Run
	for _, sub := range []string{"run", "kept"} {
		entries, err := os.ReadDir(filepath.Join(stateDir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			r := Run{ID: e.Name(), Dir: filepath.Join(stateDir, sub, e.Name()), Kept: sub == "kept"}
			if !idPattern.MatchString(e.Name()) || !Locked(r.Dir) {
				continue
			}
			if lock, err := os.Lstat(filepath.Join(r.Dir, "lock")); err == nil { // else it has just ended
				r.Since = lock.ModTime()
				runs = append(runs, r)
			}
		}
	}
	slices.SortFunc(runs, func(a, b Run) int { // an ID tells seconds alone
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.ID, b.ID))
	})
	return runs, nil
}

// idPattern is what New makes.
var idPattern = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[a-z0-9]{6}$`)

// Find returns the run that lives and has this ID, or whose ID alone begins so.
func Find(stateDir, id string) (Run, error) {
	runs, err := List(stateDir)
	if err != nil {
		return Run{}, err
	}
	ids := make([]string, len(runs))
	for i, r := range runs {
		ids[i] = r.ID
	}
	found, err := match(ids, id)
	if err != nil {
		return Run{}, fmt.Errorf("%w; `hostagent ps` lists those that run", err)
	}
	return runs[found], nil
}

// match finds the one ID that is id, or of which id is a part at one of its ends:
// the last six characters are what people type.
func match(ids []string, id string) (int, error) {
	found := -1
	for i, s := range ids {
		switch {
		case s == id:
			return i, nil
		case id == "" || len(s) < len(id) || s[:len(id)] != id && s[len(s)-len(id):] != id:
		case found >= 0:
			return 0, fmt.Errorf("%w: %q is ambiguous: %s or %s", ErrNotFound, id, ids[found], s)
		default:
			found = i
		}
	}
	if found < 0 {
		return 0, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	return found, nil
}

// Locked reports whether a process holds the lock of a run's directory.
func Locked(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	// Shared: two that look at once don't see each other.
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Logs returns the IDs of all runs that have logs, the newest first.
func Logs(stateDir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(stateDir, "logs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if idPattern.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	runs, err := List(stateDir)
	for _, r := range runs {
		if logs := filepath.Join(stateDir, "logs", r.ID); !isDir(logs) {
			ids = append(ids, r.ID)
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(ids)))
	return ids, err
}

// FindLogs returns the directory of a run's logs, whether it runs or is over.
func FindLogs(stateDir, id string) (full, dir string, err error) {
	ids, err := Logs(stateDir)
	if err != nil {
		return "", "", err
	}
	i, err := match(ids, id)
	if err != nil {
		return "", "", fmt.Errorf("%w; `hostagent logs` lists those with logs", err)
	}
	full = ids[i]
	for _, dir := range []string{
		filepath.Join(stateDir, "logs", full), filepath.Join(stateDir, "run", full, "log"), filepath.Join(stateDir, "kept", full, "log"),
	} {
		if isDir(dir) {
			return full, dir, nil
		}
	}
	return "", "", fmt.Errorf("%w: %q", ErrNotFound, id)
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
