package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// errMeddled: a path that is valid for Nix has a file that Nix would not leave so.
var errMeddled = errors.New("is not as Nix left it")

// A child is one file of a directory.
type child struct {
	name  string
	kind  uint32     // S_IFMT; 0: the listing doesn't tell
	entry wire.Entry // without its place; Kind 0: it isn't exported
	ctime int64      // regular files whose stamp is their Content
}

// pieceSize is how many files of a directory are looked at in a row; more are
// looked at side by side.
const pieceSize = 1024

// list lists a directory, sorted, with everything that is to be known of each file.
func (s *scanner) list(path string) ([]child, error) {
	fd, err := OpenBeneath(s.dir, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, s.fail(path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	list, err := readDir(fd)
	if err != nil {
		return nil, s.fail(path, err)
	}
	var g errgroup.Group
	g.SetLimit(workers())
	for piece := range slices.Chunk(list, pieceSize) {
		if len(list) <= pieceSize {
			return list, s.look(fd, path, piece)
		}
		g.Go(func() error { return s.look(fd, path, piece) })
	}
	return list, g.Wait()
}

// look fills in the entries of files of the directory fd.
func (s *scanner) look(fd int, dir string, list []child) error {
	for i := range list {
		c := &list[i]
		err := s.lookAt(fd, c)
		if errors.Is(err, errMeddled) {
			return err
		}
		if err != nil {
			return s.fail(strings.TrimPrefix(dir+"/"+c.name, "/"), err)
		}
	}
	return nil
}

func (s *scanner) lookAt(fd int, c *child) (err error) {
	c.entry.Name = c.name
	switch c.kind {
	case unix.S_IFDIR:
		c.entry.Kind = wire.KindDir
	case unix.S_IFLNK:
		c.entry.Kind = wire.KindSymlink
		c.entry.Target, err = readlink(fd, c.name)
	case unix.S_IFREG:
		c.entry.Kind = wire.KindFile
		err = s.file(fd, c)
	case 0:
		var st unix.Stat_t
		if err := unix.Fstatat(fd, c.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		c.kind = st.Mode & unix.S_IFMT
		return s.lookAt(fd, c)
	}
	return err
}

// file fills in a regular file's entry.
func (s *scanner) file(fd int, c *child) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, c.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ErrChanged
	}
	if st.Mode&0o004 == 0 {
		if err := unix.Faccessat(fd, c.name, unix.R_OK, unix.AT_EACCESS); err != nil {
			return err
		}
	}
	c.entry.Exec = st.Mode&0o111 != 0
	c.entry.Size = uint64(st.Size)
	if s.m.NAR != "" {
		c.entry.Content = s.content
		if st.Mtim.Nano() != nixMtime {
			return errMeddled
		}
		return nil
	}
	c.entry.Content, c.ctime = stampOf(&st), st.Ctim.Nano()
	return nil
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

var bufs = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// readDir lists a directory, sorted by name as bytes.
func readDir(fd int) ([]child, error) {
	p := bufs.Get().(*[]byte)
	defer bufs.Put(p)
	var out []child
	for {
		n, err := unix.Getdents(fd, *p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			slices.SortFunc(out, func(a, b child) int { return strings.Compare(a.name, b.name) })
			return out, nil
		}
		for b := (*p)[:n]; len(b) > 0; {
			l := int(binary.NativeEndian.Uint16(b[16:]))
			name := b[19:l]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				out = append(out, child{name: s, kind: uint32(b[18]) << 12})
			}
			b = b[l:]
		}
	}
}
