package work

import (
	"archive/tar"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// each calls do with every entry of the tree below the root, in the order of names,
// and with its path relative to the root, with slashes.
func each(root string, do func(path, rel string, d fs.DirEntry) error) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		return do(p, filepath.ToSlash(strings.TrimPrefix(p[len(root):], string(filepath.Separator))), d)
	})
}

// walk asks for every entry's attributes by its path, whatever the listing said: what
// `find -ls` and every build tool does.
func walk(j Job) (Result, error) {
	h := crc32.NewIEEE()
	r := Result{}
	begin := time.Now()
	err := each(j.Path, func(p, rel string, _ fs.DirEntry) error {
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		size := st.Size()
		if !st.Mode().IsRegular() {
			size = -1 // each file system has its own for a directory
		}
		fmt.Fprintf(h, "%s %d\n", rel, size)
		r.Entries++
		return nil
	})
	r.Seconds, r.Sum = seconds(begin), h.Sum32()
	return r, err
}

func files(j Job) (Result, error) {
	h := crc32.NewIEEE()
	buf := make([]byte, 64<<10)
	touch(buf)
	r := Result{}
	begin := time.Now()
	err := each(j.Path, func(p, rel string, d fs.DirEntry) error {
		if !d.Type().IsRegular() {
			return nil
		}
		n, err := content(h, p, buf)
		fmt.Fprintf(h, "%s %d\n", rel, n)
		r.Entries++
		r.Bytes += n
		return err
	})
	r.Seconds, r.Sum = seconds(begin), h.Sum32()
	return r, err
}

// content writes a file's content to w.
func content(w io.Writer, path string, buf []byte) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, buf)
}

func archive(j Job) (Result, error) {
	h := crc32.NewIEEE()
	w := tar.NewWriter(h)
	buf := make([]byte, 64<<10)
	touch(buf)
	r := Result{}
	begin := time.Now()
	err := each(j.Path, func(p, rel string, _ fs.DirEntry) error {
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		// Name, kind and size: owners and times are each mount's own.
		head := &tar.Header{Name: rel, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1, 0)}
		switch {
		case st.Mode().IsRegular():
			head.Typeflag, head.Size = tar.TypeReg, st.Size()
		case st.Mode()&fs.ModeSymlink != 0:
			head.Typeflag = tar.TypeSymlink
			if head.Linkname, err = os.Readlink(p); err != nil {
				return err
			}
		}
		r.Entries++
		if err := w.WriteHeader(head); err != nil || head.Typeflag != tar.TypeReg {
			return err
		}
		n, err := content(w, p, buf)
		r.Bytes += n
		return err
	})
	if err == nil {
		err = w.Close()
	}
	r.Seconds, r.Sum = seconds(begin), h.Sum32()
	return r, err
}
