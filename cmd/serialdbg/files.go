package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"winvm/cmd/cliapp"
	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

const filesHelp = `SHARE/PATH is a path in a share of a host agent: xchg/dir/file, outputs/out,
nixstore/HASH-NAME/bin. Links are shown, not followed.`

var lsCommand = &cli.Command{
	Name: "ls", Usage: "list a directory of a share", ArgsUsage: "SOCKET|DEVICE SHARE[/PATH]",
	Description: filesHelp, Flags: peerFlags,
	Action: func(c *cli.Context) error {
		return withShare(c, func(ctx context.Context, s share, p string) error {
			list, err := s.list(ctx, p)
			for _, f := range list {
				fmt.Fprintln(c.App.Writer, f)
			}
			return err
		})
	},
}

var statCommand = &cli.Command{
	Name: "stat", Usage: "tell of a file of a share", ArgsUsage: "SOCKET|DEVICE SHARE[/PATH]",
	Description: filesHelp, Flags: peerFlags,
	Action: func(c *cli.Context) error {
		return withShare(c, func(ctx context.Context, s share, p string) error {
			f, err := s.stat(ctx, p)
			if err == nil {
				fmt.Fprintf(c.App.Writer, "%v\n%s", f, f.detail)
			}
			return err
		})
	},
}

var catCommand = &cli.Command{
	Name: "cat", Usage: "write a file of a share to standard output", ArgsUsage: "SOCKET|DEVICE SHARE/PATH",
	Description: filesHelp, Flags: peerFlags,
	Action: func(c *cli.Context) error {
		return withShare(c, func(ctx context.Context, s share, p string) error { return s.cat(ctx, p, c.App.Writer) })
	},
}

// A file is what is shown of one.
type file struct {
	mode   fs.FileMode
	size   uint64
	name   string
	target string
	detail string
}

func (f file) String() string {
	s := fmt.Sprintf("%v %12d %s", f.mode, f.size, cliapp.PrintableLine(f.name))
	if f.target != "" {
		s += " -> " + cliapp.PrintableLine(f.target)
	}
	return s
}

// A share is one of either kind.
type share interface {
	list(ctx context.Context, p string) ([]file, error)
	stat(ctx context.Context, p string) (file, error)
	cat(ctx context.Context, p string, w io.Writer) error
	io.Closer
}

// withShare does something with the SHARE/PATH of the second argument.
func withShare(c *cli.Context, do func(ctx context.Context, s share, p string) error) error {
	if c.NArg() != 2 {
		return fmt.Errorf("%s takes two arguments, a SOCKET or DEVICE and SHARE/PATH; it was given %d (flags stand before them)", c.Command.Name, c.NArg())
	}
	name, p, _ := strings.Cut(strings.TrimPrefix(c.Args().Get(1), "/"), "/")
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	peer, err := connect(c, c.Args().First())
	if err != nil {
		return err
	}
	defer peer.close()
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	var s share
	if name == fsrpc.ShareStore {
		client, err := peer.store(ctx)
		if err != nil {
			return err
		}
		s = storeShare{client}
	} else {
		client, err := peer.tree(ctx, name)
		if err != nil {
			return err
		}
		s = treeShare{client}
	}
	defer func() { _ = s.Close() }()
	// A listing or a file may take long; only the beginning has a limit.
	if err := do(c.Context, s, p); err != nil {
		return fmt.Errorf("%s/%s: %w", name, p, err)
	}
	return nil
}

type treeShare struct{ *fsrpc.TreeClient }

// find walks to a file.
func (t treeShare) find(ctx context.Context, p string) (fsrpc.Attr, error) {
	a, err := t.Getattr(ctx, fsrpc.RootNode, fsrpc.NoHandle)
	if p == "" || err != nil {
		a.Node = fsrpc.RootNode
		return a, err
	}
	for _, name := range strings.Split(p, "/") {
		node := fsrpc.RootNode
		if a.Node != 0 {
			node = a.Node
		}
		if a, err = t.Lookup(ctx, node, name); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (t treeShare) show(ctx context.Context, name string, a fsrpc.Attr) file {
	f := file{mode: fileMode(a.Mode), size: a.Size, name: name}
	if f.mode.Type() == fs.ModeSymlink && a.Node != 0 {
		f.target, _ = t.Readlink(ctx, a.Node)
	}
	f.detail = fmt.Sprintf("node %d  inode %d  links %d  foreign %v\nmodified %s\n", a.Node, a.Ino, a.Nlink, a.Foreign,
		time.Unix(0, a.Mtime).UTC().Format(time.RFC3339Nano))
	return f
}

func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	}
	return mode
}

func (t treeShare) stat(ctx context.Context, p string) (file, error) {
	a, err := t.find(ctx, p)
	if err != nil {
		return file{}, err
	}
	return t.show(ctx, path.Base("/"+p), a), nil
}

func (t treeShare) list(ctx context.Context, p string) (out []file, err error) {
	a, err := t.find(ctx, p)
	if err != nil {
		return nil, err
	}
	fh, err := t.Open(ctx, a.Node, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Release(ctx, fh)) }()
	for off := uint64(0); ; {
		entries, err := t.Readdir(ctx, fh, off, fsrpc.MaxListing, true)
		if err != nil || len(entries) == 0 {
			return out, err
		}
		for _, e := range entries {
			out = append(out, t.show(ctx, e.Name, e.Attr))
			if off == e.Next {
				return out, errors.New("the listing goes round in circles")
			}
			off = e.Next
		}
	}
}

func (t treeShare) cat(ctx context.Context, p string, w io.Writer) (err error) {
	a, err := t.find(ctx, p)
	if err != nil {
		return err
	}
	fh, err := t.Open(ctx, a.Node, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Release(ctx, fh)) }()
	return copyOut(w, func(off uint64, buf []byte) (int, error) { return t.Read(ctx, fh, off, buf) })
}

func copyOut(w io.Writer, read func(off uint64, buf []byte) (int, error)) error {
	buf := make([]byte, 256<<10)
	for off := uint64(0); ; {
		n, err := read(off, buf)
		if err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if off += uint64(n); n < len(buf) {
			return nil
		}
	}
}

type storeShare struct{ *fsrpc.StoreClient }

// find returns the metadata that a path is in, and its numbers. p is not empty.
func (s storeShare) find(ctx context.Context, p string) (sec *wire.Section, section, entry uint32, err error) {
	name, rest, _ := strings.Cut(p, "/")
	list, err := s.Sections(ctx, 0, fsrpc.MaxSections)
	if err != nil {
		return nil, 0, 0, err
	}
	for i, info := range list {
		if info.Name != name {
			continue
		}
		buf := make([]byte, info.Size)
		n, err := s.Metadata(ctx, uint32(i), 0, buf)
		if err != nil {
			return nil, 0, 0, err
		}
		if sec, err = wire.DecodeSection(buf[:n]); err != nil {
			return nil, 0, 0, err
		}
		for _, part := range strings.FieldsFunc(rest, func(r rune) bool { return r == '/' }) {
			var ok bool
			if sec.Kind(entry) != wire.KindDir {
				return nil, 0, 0, unix.ENOTDIR
			}
			if entry, ok = sec.Lookup(entry, part); !ok {
				return nil, 0, 0, unix.ENOENT
			}
		}
		return sec, uint32(i), entry, nil
	}
	return nil, 0, 0, unix.ENOENT
}

func showEntry(sec *wire.Section, i uint32, name string) file {
	e := sec.Entry(i)
	f := file{size: e.Size, name: name, mode: 0o444, target: e.Target, detail: fmt.Sprintf("entry %d of %d\n", i, sec.Len())}
	switch {
	case e.Kind == wire.KindDir:
		f.mode = fs.ModeDir | 0o555
	case e.Kind == wire.KindSymlink:
		f.mode = fs.ModeSymlink | 0o777
	case e.Exec:
		f.mode = 0o555
	}
	return f
}

func (s storeShare) stat(ctx context.Context, p string) (file, error) {
	if p == "" {
		return file{mode: fs.ModeDir | 0o555, name: "/"}, nil
	}
	sec, _, i, err := s.find(ctx, p)
	if err != nil {
		return file{}, err
	}
	return showEntry(sec, i, path.Base(p)), nil
}

func (s storeShare) list(ctx context.Context, p string) ([]file, error) {
	var out []file
	if p == "" {
		list, err := s.Sections(ctx, 0, fsrpc.MaxSections)
		for _, info := range list {
			out = append(out, file{mode: fs.ModeDir | 0o555, size: uint64(info.Entries), name: info.Name})
		}
		return out, err
	}
	sec, _, i, err := s.find(ctx, p)
	if err != nil {
		return nil, err
	}
	if sec.Kind(i) != wire.KindDir {
		return []file{showEntry(sec, i, path.Base(p))}, nil
	}
	first, n := sec.Children(i)
	for k := first; k < first+n; k++ {
		out = append(out, showEntry(sec, k, sec.Name(k)))
	}
	return out, nil
}

func (s storeShare) cat(ctx context.Context, p string, w io.Writer) error {
	if p == "" {
		return unix.EISDIR
	}
	sec, section, i, err := s.find(ctx, p)
	if err != nil {
		return err
	}
	if sec.Kind(i) != wire.KindFile {
		return errors.New("not a file")
	}
	return copyOut(w, func(off uint64, buf []byte) (int, error) { return s.Read(ctx, section, i, off, buf) })
}
