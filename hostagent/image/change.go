package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Create makes an image: fill is given an empty directory and returns the
// description of what it put there. The image appears when all of it is on disk.
// If there is one already (made by another process meanwhile, too) it is returned
// with ErrExists.
func (s *Store) Create(ctx context.Context, name string, fill func(dir string) (Meta, error)) (*Image, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := flock(ctx, filepath.Join(s.dir, "."+name+".lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s.sweepKilled(name)
	if i, err := s.Load(name); !errors.Is(err, ErrNotFound) {
		return i, errors.Join(fmt.Errorf("%w: %q", ErrExists, name), err)
	}
	tmp := filepath.Join(s.dir, newPrefix+name)
	if err := os.RemoveAll(tmp); err != nil { // of a create that was killed
		return nil, err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	m, err := fill(tmp)
	if err != nil {
		return nil, err
	}
	m.Format, m.Name = Format, name
	if m.Files, err = describeAll(tmp); err != nil {
		return nil, err
	}
	if err := syncTree(tmp); err != nil {
		return nil, err
	}
	if err := writeMeta(tmp, m); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, s.Dir(name)); err != nil {
		return nil, err
	}
	return &Image{Meta: m, Dir: s.Dir(name)}, SyncDir(s.dir)
}

// Prefixes of directories that are no images: not yet, or no more.
const (
	newPrefix     = ".new-"
	removedPrefix = ".removed-"
)

// sweepKilled removes what creates and removes that were killed have left. What
// another create is at is known by its lock. The caller holds that of name.
func (s *Store) sweepKilled(name string) {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		other, isNew := strings.CutPrefix(e.Name(), newPrefix)
		switch {
		case strings.HasPrefix(e.Name(), removedPrefix):
			_ = os.RemoveAll(filepath.Join(s.dir, e.Name()))
		case isNew && other != name:
			if unlock, err := tryFlock(filepath.Join(s.dir, "."+other+".lock"), unix.LOCK_EX); err == nil {
				_ = os.RemoveAll(filepath.Join(s.dir, e.Name()))
				unlock()
			}
		}
	}
}

// Replace gives an image a new suspended state: fill is given an empty directory
// for the state's files and returns its description, all but Dir and Files. The old
// state counts until the new one is on disk. One suspend of an image runs at a time;
// another waits.
func (s *Store) Replace(ctx context.Context, i *Image, fill func(dir string) (State, error)) error {
	done, err := s.lockImage(ctx, i.Name, "suspend.lock", unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer done()
	if err := s.begin(ctx, i); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(i.Dir, "state-")
	if err != nil {
		return err
	}
	keep := ""
	defer func() {
		if keep != dir {
			_ = os.RemoveAll(dir)
		}
	}()
	st, err := fill(dir)
	if err != nil {
		return err
	}
	st.Dir = filepath.Base(dir)
	if st.Files, err = describeAll(dir); err != nil {
		return err
	}
	if err := syncTree(dir); err != nil {
		return err
	}
	unlock, err := s.Lock(ctx, i.Name)
	if err != nil {
		return err
	}
	defer unlock()
	m := i.Meta
	m.State = &st
	if err := writeMeta(i.Dir, m); err != nil {
		return err
	}
	keep, i.Meta = dir, m
	return i.sweep()
}

// begin takes note of what happened to the image while its suspend waited, and
// makes room: what a killed suspend left is as large as what this one will write.
func (s *Store) begin(ctx context.Context, i *Image) error {
	unlock, err := s.Lock(ctx, i.Name)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := s.Load(i.Name)
	if err != nil {
		return err
	}
	if !now.Created.Equal(i.Created) {
		return fmt.Errorf("%w: %q was removed and made anew meanwhile", ErrNotFound, i.Name)
	}
	i.Meta = now.Meta
	return i.sweep()
}

// sweep removes what earlier suspends left. The caller holds the lock.
func (i *Image) sweep() error {
	entries, err := os.ReadDir(i.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "state-") && (i.State == nil || e.Name() != i.State.Dir) {
			err = errors.Join(err, os.RemoveAll(i.Path(e.Name())))
		}
	}
	return err
}

// describeAll describes all files below dir.
func describeAll(dir string) (map[string]File, error) {
	files := map[string]File{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		files[rel], err = Describe(p)
		return err
	})
	return files, err
}

// syncTree puts all files below dir on disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() && !d.IsDir() {
			return err
		}
		return SyncDir(p) // Sync is the same for files
	})
}
