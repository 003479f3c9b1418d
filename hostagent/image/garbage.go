package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"winvm/hostagent/garbage"
)

// Garbage lists what creates, suspends and removes that were killed have left: images
// and states that were never finished, or are removed and not gone. Whole images are
// not among them, damaged ones neither: those are the user's.
func (s *Store) Garbage() ([]garbage.Item, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var items []garbage.Item
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		name, isNew := strings.CutPrefix(e.Name(), newPrefix)
		switch {
		case !e.IsDir():
		case strings.HasPrefix(e.Name(), removedPrefix):
			items = append(items, garbage.Item{
				Kind: garbage.KindImage, Path: path, Why: "an image that was removed",
				Remove: func() error { return os.RemoveAll(path) },
			})
		case isNew:
			if lock := filepath.Join(s.dir, "."+name+".lock"); free(lock) {
				items = append(items, garbage.Item{
					Kind: garbage.KindImage, Path: path, Why: "an image that was never finished",
					Remove: func() error { return s.under([]string{lock}, func() error { return os.RemoveAll(path) }) },
				})
			}
		case CheckName(e.Name()) == nil:
			items = append(items, s.staleStates(e.Name())...)
		}
	}
	return items, err
}

// staleStates are the states of an image that don't count.
func (s *Store) staleStates(name string) (items []garbage.Item) {
	locks := []string{filepath.Join(s.Dir(name), "suspend.lock"), filepath.Join(s.Dir(name), "lock")}
	if i, err := s.Load(name); err != nil || i.State == nil || !free(locks...) {
		return nil // what isn't understood is left alone
	}
	entries, _ := os.ReadDir(s.Dir(name))
	for _, e := range entries {
		path := filepath.Join(s.Dir(name), e.Name())
		stale := func() bool {
			i, err := s.Load(name)
			return err == nil && i.State != nil && i.State.Dir != e.Name()
		}
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "state-") || !stale() {
			continue
		}
		items = append(items, garbage.Item{
			Kind: garbage.KindImage, Path: path, Why: "a state that a suspend did not finish",
			Remove: func() error {
				return s.under(locks, func() error {
					if !stale() { // it was finished after all
						return garbage.ErrInUse
					}
					return os.RemoveAll(path)
				})
			},
		})
	}
	return items
}

// free reports whether nobody holds any of the locks, as far as can be seen.
func free(locks ...string) bool {
	for _, l := range locks {
		unlock, err := garbage.TryLock(l)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false
		}
		if err == nil {
			unlock()
		}
	}
	return true
}

// under does something with locks held, which are made if need be, or says
// garbage.ErrInUse.
func (s *Store) under(locks []string, do func() error) error {
	for _, l := range locks {
		unlock, err := tryFlock(l, unix.LOCK_EX)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return garbage.ErrInUse
		}
		if err != nil {
			return err
		}
		defer unlock()
	}
	return do()
}
