package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Store is the images below one state directory.
type Store struct{ dir string }

// NewStore returns the store below stateDir, which need not exist yet.
func NewStore(stateDir string) *Store { return &Store{dir: filepath.Join(stateDir, "images")} }

// Dir is where an image is or would be.
func (s *Store) Dir(name string) string { return filepath.Join(s.dir, name) }

// Load reads an image's description and checks it as far as it goes without
// looking at the host.
func (s *Store) Load(name string) (*Image, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	dir := s.Dir(name)
	m, err := readMeta(filepath.Join(dir, "image.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %q; make it with `hostagent image create %s`", ErrNotFound, name, name)
	case errors.Is(err, ErrDamaged):
		return nil, fmt.Errorf("%w; `hostagent image remove %s` and `hostagent image create %s` make it anew", err, name, name)
	case err != nil:
		return nil, err
	case m.Format != Format:
		return nil, fmt.Errorf("%w: image %q has format %d, this hostagent knows %d; remove it and create it again", ErrMismatch, name, m.Format, Format)
	case m.Name != name:
		return nil, fmt.Errorf("%w: the directory of image %q holds one called %q", ErrDamaged, name, m.Name)
	}
	return &Image{Meta: m, Dir: dir}, nil
}

// List returns the names of all images, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// Check refuses an image whose suspended state can't be revived on this host:
// wrong QEMU, a file missing or of another size.
func (i *Image) Check(qemuVersion string) error {
	if i.State == nil {
		return fmt.Errorf("%w: %q; run `hostagent suspend %s`", ErrNotSuspended, i.Name, i.Name)
	}
	if i.State.QEMU != qemuVersion {
		return fmt.Errorf("%w: image %q was suspended by QEMU %s, here is %s; `hostagent suspend %s` makes the state anew",
			ErrMismatch, i.Name, i.State.QEMU, qemuVersion, i.Name)
	}
	for p, f := range i.files() {
		st, err := os.Stat(i.Path(p))
		if err != nil {
			return fmt.Errorf("%w: %q: %w; %s", ErrDamaged, i.Name, err, i.repair(p))
		}
		if st.Size() != f.Size {
			return fmt.Errorf("%w: %q: %s has %d bytes instead of %d; %s", ErrDamaged, i.Name, p, st.Size(), f.Size, i.repair(p))
		}
	}
	return nil
}

// files are all files that a revive uses.
func (i *Image) files() map[string]File {
	out := map[string]File{}
	for p, f := range i.Files {
		out[p] = f
	}
	if s := i.State; s != nil {
		for p, f := range s.Files {
			out[filepath.Join(s.Dir, p)] = f
		}
	}
	return out
}

func (i *Image) repair(p string) string {
	if strings.HasPrefix(p, "state-") {
		return fmt.Sprintf("`hostagent suspend %s` makes it anew", i.Name)
	}
	return fmt.Sprintf("`hostagent image remove %s` and `hostagent image create %s` make it anew", i.Name, i.Name)
}

// CheckIdentity refuses a state that was saved by another machine than the one it
// would be loaded into.
func (i *Image) CheckIdentity(vm, saved, now string) error {
	if saved == now {
		return nil
	}
	return fmt.Errorf("%w: the %s of image %q was suspended as another machine (%s); `hostagent suspend %s` makes the state anew",
		ErrMismatch, vm, i.Name, firstDifference(saved, now), i.Name)
}

func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range max(len(as), len(bs)) {
		line := func(s []string) string {
			if i < len(s) {
				return s[i]
			}
			return "nothing"
		}
		if was, is := line(as), line(bs); was != is && len(was) > longLine && len(is) > longLine {
			return fmt.Sprintf("%.40s…: then with %q, now with %q", was, without(was, is), without(is, was))
		}
		if line(as) != line(bs) {
			return fmt.Sprintf("then %q, now %q", line(as), line(bs))
		}
	}
	return "the same text"
}

// longLine is the length of a line of which only the words that differ are shown.
const longLine = 200

// without are the words of a that b lacks.
func without(a, b string) string {
	has := map[string]bool{}
	for _, w := range strings.Fields(b) {
		has[w] = true
	}
	words := strings.Fields(a)
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return has[w] }), " ")
}

// Verify compares the digests of all files that have one.
func (i *Image) Verify(ctx context.Context) error {
	for p, f := range i.files() {
		if f.SHA256 == "" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		got, err := Describe(i.Path(p))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if got != f {
			return fmt.Errorf("%w: %q: %s is not what was written; %s", ErrDamaged, i.Name, p, i.repair(p))
		}
	}
	return nil
}

// Describe returns a file's size and digest.
func Describe(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return File{Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

// Remove removes an image. Builds that have started from it go on: their QEMUs
// hold the files open.
func (s *Store) Remove(ctx context.Context, name string) error {
	return s.remove(ctx, name, func() bool { return true })
}

// RemoveOld removes an image that was loaded, unless there is another one in its place
// by now, or none.
func (s *Store) RemoveOld(ctx context.Context, i *Image) error {
	err := s.remove(ctx, i.Name, func() bool {
		now, err := s.Load(i.Name)
		return err == nil && now.Created.Equal(i.Created)
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// remove removes an image if still, asked when nobody else can change it, says so.
func (s *Store) remove(ctx context.Context, name string, still func() bool) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Stat(s.Dir(name)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if !still() {
		return nil
	}
	gone := filepath.Join(s.dir, fmt.Sprintf("%s%s-%d", removedPrefix, name, time.Now().UnixNano()))
	if err := os.Rename(s.Dir(name), gone); err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// Lock waits until nobody starts from the image or changes it, and keeps it so.
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	return s.lockImage(ctx, name, "lock", unix.LOCK_EX)
}

// LockShared keeps the image's state from being replaced or removed. What was
// loaded before may have been, until then.
func (s *Store) LockShared(ctx context.Context, name string) (unlock func(), err error) {
	return s.lockImage(ctx, name, "lock", unix.LOCK_SH)
}

func (s *Store) lockImage(ctx context.Context, name, file string, how int) (func(), error) {
	unlock, err := flock(ctx, filepath.Join(s.Dir(name), file), how)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return unlock, err
}

// lockPoll is how often a lock that another process holds is asked for. flock(2)
// can't be waited for together with a context.
const lockPoll = 50 * time.Millisecond

func flock(ctx context.Context, path string, how int) (func(), error) {
	for {
		unlock, err := tryFlock(path, how)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return unlock, err
		}
		t := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("%s is in use: %w", filepath.Dir(path), ctx.Err())
		case <-t.C:
		}
	}
}

// tryFlock takes a lock, or says EWOULDBLOCK. A lock on a file that was removed or
// renamed between its open and its lock is nothing worth, and given up.
func tryFlock(path string, how int) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil {
		var held, named os.FileInfo
		if held, err = f.Stat(); err == nil {
			named, err = os.Stat(path)
		}
		if err == nil && os.SameFile(held, named) {
			return func() { _ = f.Close() }, nil
		}
		if err == nil {
			err = unix.EWOULDBLOCK // another file has the name now: once more
		}
	}
	_ = f.Close()
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
