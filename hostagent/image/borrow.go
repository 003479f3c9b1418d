package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// secretsFile is needed to suspend, and not to build.
const secretsFile = "secrets.json"

// Borrow makes the image that lies in the directory from, which need be in no state
// directory, usable in this one, for one process's builds. Nothing is written to from:
// its files are linked to. Only memory files that this user can't open for writing are
// copied, since QEMU before 8.2 insists on that.
func (s *Store) Borrow(ctx context.Context, from string) (*Image, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return nil, err
	}
	m, err := readMeta(filepath.Join(from, "image.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no image in %s; `hostagent image export NAME DIR` puts one into a directory", ErrNotFound, from)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w; an image directory is its owner's alone: `hostagent image export NAME DIR` makes one that others can read", err)
	case err != nil:
		return nil, err
	}
	if err := CheckName(m.Name); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, from, err)
	}
	delete(m.Files, secretsFile)
	to := s.Dir(m.Name)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return nil, err
	}
	i := &Image{Meta: m, Dir: to}
	for rel := range i.files() {
		if !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("%w: %s names a file %q", ErrDamaged, from, rel)
		}
		if err := borrowFile(ctx, filepath.Join(from, rel), filepath.Join(to, rel)); err != nil {
			return nil, fmt.Errorf("%w: %q in %s: %w", ErrDamaged, m.Name, from, err)
		}
	}
	if err := writeMeta(to, m); err != nil {
		return nil, err
	}
	return s.Load(m.Name)
}

func borrowFile(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if strings.HasSuffix(to, memorySuffix) && unix.Access(from, unix.W_OK) != nil {
		return copyFile(ctx, from, to, 0o600)
	}
	if _, err := os.Stat(from); err != nil {
		return err
	}
	return os.Symlink(from, to)
}

// memorySuffix ends the names of files that hold a VM's memory.
const memorySuffix = ".memory"

// Export writes an image to a new directory that others can read, for builds that
// borrow it. The file with the secrets is left out; what the memory of the VMs holds
// of them can't be.
func (i *Image) Export(ctx context.Context, to string) (err error) {
	if i.State == nil {
		return fmt.Errorf("%w: %q; run `hostagent suspend %s`", ErrNotSuspended, i.Name, i.Name)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return fmt.Errorf("a directory for the image: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(to)
		}
	}()
	out := Image{Meta: i.Meta, Dir: to}
	out.Files = map[string]File{}
	for p, f := range i.Files {
		if p != secretsFile {
			out.Files[p] = f
		}
	}
	for rel := range out.files() {
		path := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := copyFile(ctx, i.Path(rel), path, 0o644); err != nil {
			return err
		}
	}
	if err := writeMeta(to, out.Meta); err != nil {
		return err
	}
	return os.Chmod(filepath.Join(to, "image.json"), 0o644)
}

// copyBlock is what a copy reads at a time, and how long a hole is at least.
const copyBlock = 64 << 10

// copyFile copies a file: as a reflink where the file system can, else without the
// blocks that are zero, of which a VM's memory has many.
func copyFile(ctx context.Context, from, to string, mode fs.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		err = copySparse(ctx, dst, src)
	}
	return errors.Join(err, dst.Close())
}

// copySparse copies what is not zero. Holes of the source are skipped unread.
func copySparse(ctx context.Context, dst, src *os.File) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(st.Size()); err != nil {
		return err
	}
	buf, zero := make([]byte, copyBlock), make([]byte, copyBlock)
	for at := int64(0); at < st.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err == nil && data > at {
			at = data - data%copyBlock
		}
		n, err := src.ReadAt(buf, at)
		if n > 0 && string(buf[:n]) != string(zero[:n]) {
			if _, err := dst.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%s became shorter: %w", src.Name(), io.ErrUnexpectedEOF)
		}
		at += int64(n)
	}
	return nil
}
