package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"winvm/hostagent/garbage"
)

// Garbage lists what is left of runs below a state directory and used by nobody: the
// directories of killed ones, and kept ones and logs that are older than age.
func Garbage(stateDir string, age time.Duration) ([]garbage.Item, error) {
	living, err := List(stateDir)
	if err != nil {
		return nil, err
	}
	lives := map[string]bool{}
	for _, r := range living {
		lives[r.ID] = true
	}
	var items []garbage.Item
	for _, sub := range []struct{ dir, kind, why string }{
		{"run", garbage.KindRun, "its process was killed"},
		{"kept", garbage.KindKept, "a failed build's, kept since"},
		{"logs", garbage.KindLogs, "a run's, of"},
	} {
		entries, _ := os.ReadDir(filepath.Join(stateDir, sub.dir)) // none is as good as an empty one
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || !e.IsDir() || lives[e.Name()] {
				continue
			}
			item := garbage.Item{Kind: sub.kind, Path: filepath.Join(stateDir, sub.dir, e.Name()), Why: sub.why}
			old := time.Since(info.ModTime())
			switch dir := item.Path; sub.kind {
			case garbage.KindRun:
				if !idPattern.MatchString(e.Name()) && old < newLimit {
					continue // one that is being made
				}
				item.Remove = func() error { return removeUnlocked(dir) }
			case garbage.KindKept:
				item.Remove = func() error { return removeUnlocked(dir) }
			default:
				item.Remove = func() error { return removeAll(dir) }
			}
			if sub.kind != garbage.KindRun {
				if old < age {
					continue
				}
				item.Why = fmt.Sprintf("%s %s", sub.why, info.ModTime().Local().Format("2006-01-02 15:04"))
			}
			items = append(items, item)
		}
	}
	return items, nil
}

// removeUnlocked removes a run's directory, and what belongs to it elsewhere, if nobody
// holds its lock.
func removeUnlocked(dir string) error {
	unlock, err := garbage.TryLock(filepath.Join(dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) { // killed before there was one
		return remove(dir)
	}
	if err != nil {
		return err
	}
	defer unlock()
	return remove(dir)
}
