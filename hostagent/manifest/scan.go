package manifest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// Scan reads the metadata of the store path at path.
func Scan(ctx context.Context, path string) (*Manifest, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	ms, err := ScanAll(ctx, filepath.Dir(path), []string{filepath.Base(path)})
	if err != nil {
		return nil, err
	}
	return ms[0], nil
}

// ScanAll reads the metadata of the store paths called names in the directory
// storeDir, side by side. The result is in the order of names.
func ScanAll(ctx context.Context, storeDir string, names []string) ([]*Manifest, error) {
	dir, err := unix.Open(storeDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the store directory %s: %w", storeDir, err)
	}
	defer func() { _ = unix.Close(dir) }()
	out := make([]*Manifest, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, min(16, runtime.GOMAXPROCS(0))))
	for i, name := range names {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if !wire.ValidName(name) {
				return fmt.Errorf("%q is not the name of a store path", name)
			}
			s := scanner{dir: dir, storeDir: storeDir, m: &Manifest{Name: name}}
			if err := s.scan(gctx); err != nil {
				return err
			}
			out[i] = s.m
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, ctx.Err()
}

// A scanner reads one store path.
type scanner struct {
	dir      int
	storeDir string
	m        *Manifest
	b        wire.SectionBuilder
	dirs     []dirItem // whose children are still to come, breadth first
	size     int       // of the encoding, about
}

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
	var st unix.Stat_t
	name := s.m.Name
	if err := unix.Fstatat(s.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return fmt.Errorf("%s: %w", filepath.Join(s.storeDir, name), err)
		}
		return s.fail(name, err)
	}
	if err := s.add(s.dir, dirent{name: name, kind: st.Mode & unix.S_IFMT}, 0, "", true); err != nil {
		return err
	}
	if s.b.Len() == 0 {
		return fmt.Errorf("%s is neither a directory nor a regular file nor a symbolic link", filepath.Join(s.storeDir, name))
	}
	for len(s.dirs) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := s.dirs[0]
		s.dirs = s.dirs[1:]
		if err := s.children(d); err != nil {
			return err
		}
	}
	if err := s.m.seal(&s.b); err != nil {
		return s.fail(name, err)
	}
	return nil
}

// children adds what is in one directory.
func (s *scanner) children(d dirItem) error {
	fd, err := OpenBeneath(s.dir, d.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return s.fail(d.path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	list, err := readDir(fd)
	if err != nil {
		return s.fail(d.path, err)
	}
	first := s.b.Len()
	for _, e := range list {
		if err := s.add(fd, e, d.entry, d.path, false); err != nil {
			return err
		}
	}
	if n := s.b.Len() - first; n > 0 {
		s.b.SetChildren(d.entry, first, n)
	}
	return nil
}

// add adds one file of the directory fd. parentPath is that directory's path.
func (s *scanner) add(fd int, d dirent, parent uint32, parentPath string, top bool) error {
	path := d.name
	if !top {
		path = parentPath + "/" + d.name
	}
	e := wire.Entry{Name: d.name, Parent: parent}
	if top {
		e.Name = ""
	}
	var stamp Stamp
	var err error
	switch d.kind {
	case unix.S_IFDIR:
		e.Kind = wire.KindDir
		s.dirs = append(s.dirs, dirItem{s.b.Len(), path})
	case unix.S_IFLNK:
		e.Kind = wire.KindSymlink
		e.Target, err = readlink(fd, d.name)
	case unix.S_IFREG:
		e.Kind = wire.KindFile
		stamp, err = s.file(fd, d.name, &e)
	case 0: // the file system's listing doesn't tell
		var st unix.Stat_t
		if err := unix.Fstatat(fd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return s.fail(path, err)
		}
		d.kind = st.Mode & unix.S_IFMT
		return s.add(fd, d, parent, parentPath, top)
	default:
		s.m.Skipped = append(s.m.Skipped, strings.TrimPrefix(path, s.m.Name+"/"))
		return nil
	}
	if err != nil {
		return s.fail(path, err)
	}
	if s.size += 32 + len(e.Name) + len(e.Target); s.size > fsrpc.MaxSectionSize-64 {
		return s.fail(s.m.Name, ErrTooLarge)
	}
	if _, err := s.b.Add(e); err != nil {
		return s.fail(s.m.Name, err)
	}
	s.m.stamps = append(s.m.stamps, stamp)
	return nil
}

// file fills in a regular file's entry.
func (s *scanner) file(fd int, name string, e *wire.Entry) (Stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stamp{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Stamp{}, ErrChanged
	}
	if st.Mode&0o004 == 0 {
		if err := unix.Faccessat(fd, name, unix.R_OK, unix.AT_EACCESS); err != nil {
			return Stamp{}, err
		}
	}
	e.Exec = st.Mode&0o111 != 0
	e.Size = uint64(st.Size)
	return StampOf(&st), nil
}

func readlink(fd int, name string) (string, error) {
	buf := make([]byte, fsrpc.MaxTarget+1)
	n, err := unix.Readlinkat(fd, name, buf)
	switch {
	case err == unix.EINVAL:
		return "", ErrChanged
	case err != nil:
		return "", err
	case n > fsrpc.MaxTarget:
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}

type dirent struct {
	name string
	kind uint32 // S_IFMT; 0: unknown
}

var bufs = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// readDir lists a directory, sorted by name as bytes.
func readDir(fd int) ([]dirent, error) {
	p := bufs.Get().(*[]byte)
	defer bufs.Put(p)
	var out []dirent
	for {
		n, err := unix.Getdents(fd, *p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			slices.SortFunc(out, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
			return out, nil
		}
		for b := (*p)[:n]; len(b) > 0; {
			l := int(binary.NativeEndian.Uint16(b[16:]))
			name := b[19:l]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				out = append(out, dirent{name: s, kind: uint32(b[18]) << 12})
			}
			b = b[l:]
		}
	}
}
