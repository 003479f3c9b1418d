// Package rundir makes the directory of one run below the state directory and
// sees to it that nothing of a run stays behind, also of one that was killed.
//
//	run/ID/
//	  lock      flock, held as long as the process lives
//	  beside    paths outside of run/ID that belong to the run, one a line
//	  log/      consoles, screens
//	  control   the socket of package control
//	  …         whatever the run puts there
//
// A run directory whose lock nobody holds is of a process that was killed; New
// removes all of those first. What is to be looked at later is moved: logs to
// logs/ID, of which the newest are kept, those of failed runs and the others apart;
// a whole run with --keep-failed to kept/ID. Its lock is held there, too, as long as
// its pair is kept.
package rundir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// keepLogs is how many failed runs' logs are kept, and how many others'.
const keepLogs = 20

// failedMark is the file in logs/ID that says that the run failed.
const failedMark = "failed"

// A Dir is one run's directory.
type Dir struct {
	ID    string
	state string
	path  string
	lock  *os.File
	logs  bool
}

// New removes what killed runs left, and makes a directory for a new one.
func New(stateDir string) (*Dir, error) {
	runs := filepath.Join(stateDir, "run")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return nil, err
	}
	sweep(runs)
	id := time.Now().UTC().Format("20060102-150405-") + strings.ToLower(rand.Text()[:6])
	d := &Dir{ID: id, state: stateDir, path: filepath.Join(runs, id)}
	// Made under another name, which no sweep touches before its lock is held.
	tmp := filepath.Join(runs, newPrefix+id)
	if err := os.MkdirAll(filepath.Join(tmp, "log"), 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(tmp, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		d.lock = lock
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(tmp, d.path)
	}
	if err != nil {
		_ = lock.Close() // which may be nil
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return d, nil
}

// newPrefix begins the names of directories that New is still at.
const newPrefix = ".new-"

// newLimit is the age at which such a directory is one of a process that was
// killed between two steps.
const newLimit = time.Hour

// sweep removes the runs of processes that live no more. What can't be removed
// stays for the next time.
func sweep(runs string) {
	entries, _ := os.ReadDir(runs)
	for _, e := range entries {
		dir := filepath.Join(runs, e.Name())
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil || strings.HasPrefix(e.Name(), newPrefix) {
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > newLimit {
				_ = removeAll(dir)
			}
			_ = f.Close() // which may be nil
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = remove(dir)
		}
		_ = f.Close()
	}
}

// remove removes a run's directory and what belongs to it elsewhere.
func remove(dir string) error {
	var errs []error
	for _, p := range besidePaths(dir) {
		errs = append(errs, removeAll(p))
	}
	return errors.Join(append(errs, removeAll(dir))...)
}

// besidePaths lists what Beside made for the run in dir.
func besidePaths(dir string) (paths []string) {
	list, _ := os.ReadFile(filepath.Join(dir, "beside"))
	for p := range strings.SplitSeq(string(list), "\n") {
		// Only what Beside can have written.
		if filepath.IsAbs(p) && strings.HasPrefix(filepath.Base(p), besidePrefix) {
			paths = append(paths, p)
		}
	}
	return paths
}

// removeAll is os.RemoveAll for trees that a guest made: also with directories
// that don't let their owner write.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(p string, e os.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// Path is a path in the directory.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// LogDir is where the run's logs go.
func (d *Dir) LogDir() string {
	if d.logs {
		return filepath.Join(d.state, "logs", d.ID)
	}
	return d.Path("log")
}

const besidePrefix = ".winvm-"

// Beside makes a directory beside path, on the same file system, that is removed
// with the run.
func (d *Dir) Beside(path string) (string, error) {
	dir := filepath.Join(filepath.Dir(path), besidePrefix+d.ID)
	if strings.ContainsRune(dir, '\n') {
		return "", fmt.Errorf("%q has a line break", dir)
	}
	f, err := os.OpenFile(d.Path("beside"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(dir + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o700)
}

// KeepLogs moves the logs of a run that failed to where they stay after it, and
// returns where that is. Only the newest runs' are kept.
func (d *Dir) KeepLogs() string {
	if d.moveLogs() {
		_ = os.WriteFile(filepath.Join(d.LogDir(), failedMark), nil, 0o600)
		d.pruneLogs()
	}
	return d.LogDir()
}

// EndLogs does the same for a run that is over, unless it has no logs. It returns
// "" then.
func (d *Dir) EndLogs() string {
	if entries, err := os.ReadDir(d.LogDir()); err != nil || len(entries) == 0 {
		return ""
	}
	if d.moveLogs() {
		d.pruneLogs()
	}
	return d.LogDir()
}

// moveLogs reports whether it has moved them now.
func (d *Dir) moveLogs() bool {
	if d.logs {
		return false
	}
	all := filepath.Join(d.state, "logs")
	if os.MkdirAll(all, 0o755) != nil || os.Rename(d.Path("log"), filepath.Join(all, d.ID)) != nil {
		return false
	}
	d.logs = true
	return true
}

// pruneLogs removes the logs that are too many: of failed runs, and of others.
func (d *Dir) pruneLogs() {
	all := filepath.Join(d.state, "logs")
	entries, _ := os.ReadDir(all)
	if len(entries) <= keepLogs {
		return
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() > entries[j].Name() })
	seen := map[bool]int{}
	for _, e := range entries {
		dir := filepath.Join(all, e.Name())
		_, err := os.Lstat(filepath.Join(dir, failedMark))
		if seen[err == nil]++; seen[err == nil] > keepLogs {
			_ = os.RemoveAll(dir)
		}
	}
}

// Keep moves the whole directory to where it stays until the user removes it, and
// what was made beside other paths into it. What is on another file system stays
// where it is; the file "beside" names it. The lock is held until Close.
func (d *Dir) Keep() string {
	for i, p := range besidePaths(d.path) {
		_ = os.Rename(p, d.Path(fmt.Sprintf("beside-%d", i)))
	}
	kept := filepath.Join(d.state, "kept")
	to := filepath.Join(kept, d.ID)
	if os.MkdirAll(kept, 0o755) == nil && os.Rename(d.path, to) == nil {
		d.path = to
	}
	return d.path
}

// Close gives up the lock of a directory that was kept.
func (d *Dir) Close() error { return d.lock.Close() }

// Remove removes everything of the run but kept logs.
func (d *Dir) Remove() error {
	err := remove(d.path)
	_ = d.lock.Close()
	return err
}
