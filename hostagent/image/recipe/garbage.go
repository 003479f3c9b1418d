package recipe

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"winvm/hostagent/garbage"
)

// artefactPattern is what get calls an artefact, and scratch a directory to make one in.
var artefactPattern = regexp.MustCompile(`^(\.?)([a-z0-9-]+)-([0-9a-f]{32})(-[0-9]+)?$`)

// Garbage lists the artefacts in a cache that are older than age and of no recipe of
// this program, nor of one whose digest is in needed; and what builds that were killed
// have left. Other programs can make them again: it is a cache.
func Garbage(cacheDir string, needed []string, age time.Duration) ([]garbage.Item, error) {
	return embedded.garbage(cacheDir, needed, age)
}

func (s set) garbage(cacheDir string, needed []string, age time.Duration) ([]garbage.Item, error) {
	dir := filepath.Join(cacheDir, "recipes")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var items []garbage.Item
	for _, e := range entries {
		m := artefactPattern.FindStringSubmatch(e.Name())
		if m == nil || !e.IsDir() || (m[1] == "") != (m[4] == "") {
			continue
		}
		path, lock := filepath.Join(dir, e.Name()), filepath.Join(dir, m[2]+"-"+m[3]+".lock")
		item := garbage.Item{Kind: garbage.KindRoot, Path: path, Why: "its making was not finished"}
		if m[1] == "" {
			info, err := e.Info()
			if err != nil || time.Since(info.ModTime()) < age || slices.Contains(needed, m[3]) {
				continue
			}
			if current, err := s.digest(m[2]); err == nil && current == m[3] {
				continue
			}
			item.Why = "no image's, and no recipe's any more"
		}
		unlock, err := garbage.TryLock(lock)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			continue // somebody makes or copies it
		}
		if err == nil {
			unlock()
		}
		item.Remove = func() error {
			// The lock's file stays: who waits for it holds on to this very one.
			unlock, err := garbage.TryLock(lock)
			if err == nil {
				defer unlock()
			} else if !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return os.RemoveAll(path)
		}
		items = append(items, item)
	}
	return items, err
}
