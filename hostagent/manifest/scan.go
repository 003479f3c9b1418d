package manifest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// Options are what is known of the store paths beside their files.
type Options struct {
	// NAR has the NAR hashes, by name, of the paths that Nix says are valid.
	NAR map[string]string
	// Cache keeps those paths' manifests; nil keeps none.
	Cache *Cache
}

// Scan reads the metadata of the store path at path.
func Scan(ctx context.Context, path string) (*Manifest, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	ms, err := ScanAll(ctx, filepath.Dir(path), []string{filepath.Base(path)}, Options{})
	if err != nil {
		return nil, err
	}
	return ms[0], nil
}

// ScanAll reads the metadata of the store paths called names in the directory
// storeDir, side by side. The result is in the order of names.
func ScanAll(ctx context.Context, storeDir string, names []string, o Options) ([]*Manifest, error) {
	dir, err := unix.Open(storeDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the store directory %s: %w", storeDir, err)
	}
	defer func() { _ = unix.Close(dir) }()
	out := make([]*Manifest, len(names))
	var newest atomic.Int64
	slots := make(chan struct{}, workers())
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers())
	for i, name := range names {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if !wire.ValidName(name) {
				return fmt.Errorf("%q is not the name of a store path", name)
			}
			nar := o.NAR[name]
			if m := o.Cache.get(storeDir, name, nar); m != nil {
				out[i] = m
				return nil
			}
			s := scanner{dir: dir, storeDir: storeDir, m: &Manifest{Name: name, NAR: nar}, slots: slots, content: narContent(nar)}
			if err := s.scan(gctx); err != nil {
				return err
			}
			raise(&newest, s.newest)
			o.Cache.put(storeDir, s.m)
			out[i] = s.m
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, settle(ctx, newest.Load())
}

func workers() int { return max(2, min(16, runtime.GOMAXPROCS(0))) }

// raise makes v at least n.
func raise(v *atomic.Int64, n int64) {
	for old := v.Load(); n > old && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}

// A scanner reads one store path, level by level: the directories of a level side by
// side, and the files of a large directory too.
type scanner struct {
	dir      int
	storeDir string
	m        *Manifest
	slots    chan struct{} // directories and pieces of directories at work, of all scanners

	b       wire.SectionBuilder
	size    int    // of the encoding, about
	content uint64 // of files that Nix vouches for
	newest  int64  // ctime of the file changed last, of a path that nobody vouches for
}

// A dirItem is a directory whose children are still to come.
type dirItem struct {
	entry uint32
	path  string // below the store directory
}

// fail names the file an error is about.
func (s *scanner) fail(path string, err error) error {
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		err = ErrUnreadable
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		err = ErrChanged
	}
	return fmt.Errorf("%s %w", filepath.Join(s.storeDir, path), err)
}

func (s *scanner) scan(ctx context.Context) error {
	err := s.walk(ctx)
	if errors.Is(err, errMeddled) {
		// Not as Nix left it: believed only as far as one can see.
		s.m.NAR, s.m.Skipped, s.b, s.size = "", nil, wire.SectionBuilder{}, 0
		err = s.walk(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.m.seal(s.b.Encode()); err != nil {
		return s.fail(s.m.Name, err)
	}
	return nil
}

func (s *scanner) walk(ctx context.Context) error {
	name := s.m.Name
	var st unix.Stat_t
	if err := unix.Fstatat(s.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return fmt.Errorf("%s: %w", filepath.Join(s.storeDir, name), err)
		}
		return s.fail(name, err)
	}
	top := []child{{name: name, kind: st.Mode & unix.S_IFMT}}
	if err := s.look(s.dir, "", top); err != nil {
		return err
	}
	if top[0].entry.Kind == 0 {
		return fmt.Errorf("%s is neither a directory nor a regular file nor a symbolic link", filepath.Join(s.storeDir, name))
	}
	top[0].entry.Name = ""
	dirs, err := s.add(dirItem{}, top)
	if err != nil || len(dirs) == 0 {
		return err
	}
	dirs[0].path = name
	for len(dirs) > 0 {
		if dirs, err = s.level(ctx, dirs); err != nil {
			return err
		}
	}
	return nil
}

// maxLevel is how many directories are listed before their children are added: so
// many names wait at most.
const maxLevel = 256

// level adds the children of directories that follow each other, and returns which of
// them are directories.
func (s *scanner) level(ctx context.Context, dirs []dirItem) (below []dirItem, err error) {
	for len(dirs) > 0 {
		part := dirs[:min(len(dirs), maxLevel)]
		dirs = dirs[len(part):]
		lists := make([][]child, len(part))
		g, gctx := errgroup.WithContext(ctx)
		for i := range part {
			s.slots <- struct{}{}
			g.Go(func() (err error) {
				defer func() { <-s.slots }()
				if err := gctx.Err(); err != nil {
					return err
				}
				lists[i], err = s.list(part[i].path)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, d := range part {
			more, err := s.add(d, lists[i])
			if err != nil {
				return nil, err
			}
			below = append(below, more...)
		}
	}
	return below, nil
}

// add adds the children of one directory to the section.
func (s *scanner) add(d dirItem, list []child) (below []dirItem, err error) {
	first := s.b.Len()
	for i := range list {
		c := &list[i]
		if c.entry.Kind == 0 {
			s.m.Skipped = append(s.m.Skipped, strings.TrimPrefix(d.path+"/"+c.name, s.m.Name+"/"))
			continue
		}
		if s.size += 32 + len(c.name) + len(c.entry.Target); s.size > fsrpc.MaxSectionSize-64 {
			return nil, s.fail(s.m.Name, ErrTooLarge)
		}
		c.entry.Parent = d.entry
		n, err := s.b.Add(c.entry)
		if err != nil {
			return nil, s.fail(s.m.Name, err)
		}
		if c.entry.Kind == wire.KindDir {
			below = append(below, dirItem{n, d.path + "/" + c.name})
		}
		s.newest = max(s.newest, c.ctime)
	}
	if n := s.b.Len() - first; n > 0 && d.path != "" {
		s.b.SetChildren(d.entry, first, n)
	}
	return below, nil
}
