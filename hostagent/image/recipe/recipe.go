// Package recipe holds the recipes of the VMs' root file systems, and the cache
// of what they made.
//
// A recipe is a directory with a script, build.sh, that is given an empty
// directory and puts vmlinuz, initrd, root.squashfs and packages.txt there. The
// recipes are embedded in the binary, so that a lone hostagent can make images.
//
// What a recipe made is kept under the SHA-256 of the recipe's files: another
// checkout or binary with the same recipe finds it, a changed one does not. The
// Debian packages' versions are not part of it; `hostagent image create --rebuild`
// makes it anew from today's packages.
package recipe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed all:controller all:wine
var files embed.FS

// A set is recipes, one a directory.
type set struct{ files fs.FS }

var embedded = set{files}

// Files that every recipe makes.
const (
	Kernel   = "vmlinuz"
	Initrd   = "initrd"
	Root     = "root.squashfs"
	Packages = "packages.txt"
)

var products = []string{Kernel, Initrd, Root, Packages}

// ErrBuild is wrapped by the error of a recipe that failed; its text has the end
// of what the recipe printed.
var ErrBuild = errors.New("recipe failed")

// An Artefact is what a recipe made.
type Artefact struct {
	Dir    string
	Digest string
}

// Path returns the path of one of its files.
func (a Artefact) Path(file string) string { return filepath.Join(a.Dir, file) }

// Digest returns the digest that a recipe's artefact is kept under.
func Digest(name string) (string, error) { return embedded.digest(name) }

func (s set) digest(name string) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(s.files, name, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, ".md") {
			return err
		}
		b, err := fs.ReadFile(s.files, p)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", p, len(b))
		h.Write(b)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("no recipe %q: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}

// Get returns the artefact of a recipe, made now if the cache does not have it
// or rebuild is set. tell is given the recipe's progress lines.
func Get(ctx context.Context, name, cacheDir string, rebuild bool, tell func(line string), log *slog.Logger) (Artefact, error) {
	return embedded.get(ctx, name, cacheDir, rebuild, tell, log)
}

func (s set) get(ctx context.Context, name, cacheDir string, rebuild bool, tell func(string), log *slog.Logger) (Artefact, error) {
	digest, err := s.digest(name)
	if err != nil {
		return Artefact{}, err
	}
	a := Artefact{Dir: filepath.Join(cacheDir, "recipes", name+"-"+digest), Digest: digest}
	if err := os.MkdirAll(filepath.Dir(a.Dir), 0o755); err != nil {
		return Artefact{}, err
	}
	unlock, err := lock(ctx, a.Dir+".lock", tell)
	if err != nil {
		return Artefact{}, err
	}
	defer unlock()
	if !rebuild && a.complete() {
		return a, nil
	}
	tmp, err := scratch(a)
	if err != nil {
		return Artefact{}, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	out := Artefact{Dir: filepath.Join(tmp, "out")}
	if err := s.build(ctx, name, tmp, out.Dir, tell, log); err != nil {
		return Artefact{}, err
	}
	if !out.complete() {
		return Artefact{}, fmt.Errorf("%w: %s did not make all of %s", ErrBuild, name, strings.Join(products, ", "))
	}
	if err := os.RemoveAll(a.Dir); err != nil {
		return Artefact{}, err
	}
	return a, os.Rename(out.Dir, a.Dir)
}

// scratch makes a directory to build in, and removes those of processes that were
// killed: it is called with the lock held, so nobody uses them.
func scratch(a Artefact) (string, error) {
	parent, prefix := filepath.Dir(a.Dir), "."+filepath.Base(a.Dir)+"-"
	entries, err := os.ReadDir(parent)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return "", fmt.Errorf("what a killed process left: %w", err)
			}
		}
	}
	return os.MkdirTemp(parent, prefix)
}

func (a Artefact) complete() bool {
	for _, f := range products {
		st, err := os.Stat(a.Path(f))
		if err != nil || st.Size() == 0 {
			return false
		}
	}
	return true
}

func (s set) build(ctx context.Context, name, tmp, out string, tell func(string), log *slog.Logger) error {
	src, err := fs.Sub(s.files, name)
	if err != nil {
		return err
	}
	dir := filepath.Join(tmp, "recipe")
	if err := os.CopyFS(dir, src); err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	scratch := filepath.Join(tmp, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(dir, "build.sh"), out)
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	lines := &lineWriter{tell: tell}
	cmd.Stdout, cmd.Stderr = lines, lines
	log.Debug("recipe", "name", name, "dir", dir)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			if cmd.Process != nil { // the script has ended; what it left running has not
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
			return ctx.Err()
		}
		return fmt.Errorf("%w: %s: %w; it said last:\n%s", ErrBuild, name, err, lines.last())
	}
	return nil
}

// A lineWriter hands on lines and keeps the last of them.
type lineWriter struct {
	tell func(string)
	part []byte
	kept []string
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.part = append(w.part, p...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 && len(w.part) < 4096 {
			return len(p), nil
		}
		if i < 0 {
			i = len(w.part) - 1
		}
		line := strings.TrimSpace(string(w.part[:i+1]))
		w.part = w.part[i+1:]
		if line == "" {
			continue
		}
		if w.kept = append(w.kept, line); len(w.kept) > 20 {
			w.kept = w.kept[1:]
		}
		if w.tell != nil {
			w.tell(line)
		}
	}
}

// last is the end of what was said, a line that was begun included.
func (w *lineWriter) last() string {
	lines := w.kept
	if part := strings.TrimSpace(string(w.part)); part != "" {
		lines = append(lines, part)
	}
	return strings.Join(lines, "\n")
}

// lock takes the lock file, waiting for another process that makes the same.
func lock(ctx context.Context, path string, tell func(string)) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	told := false
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told && tell != nil {
			tell("another process makes this; waiting for it")
			told = true
		}
		t := time.NewTimer(500 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			_ = f.Close()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// CopyTo puts an artefact's file at path: as a reflink where the file system can,
// else as a copy.
func (a Artefact) CopyTo(file, path string) error {
	src, err := os.Open(a.Path(file))
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		if _, err := io.Copy(dst, src); err != nil {
			_ = dst.Close()
			return err
		}
	}
	return dst.Close()
}
