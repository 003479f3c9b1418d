package medium

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ErrTool is wrapped by the error of a tool that is missing or failed.
var ErrTool = errors.New("a tool for media failed")

// A File is what goes to one path of a medium: Data, or the file at From.
type File struct {
	Data []byte
	From string
}

// Files are a medium's, by path with '/'.
type Files map[string]File

// epoch is the time of everything on a medium: when the VMs' clocks start.
const (
	epoch     = "1262304000"
	epochDate = "2010010100000000"
)

// Limits of a medium.
const (
	maxFiles   = 20_000
	floppySize = 1474560
)

var (
	pathPattern  = regexp.MustCompile(`^[A-Za-z0-9._+~@-]+(/[A-Za-z0-9._+~@-]+)*$`)
	labelPattern = regexp.MustCompile(`^[A-Z0-9_]{1,11}$`)
	namePattern  = regexp.MustCompile(`^[A-Za-z0-9_]{1,8}(\.[A-Za-z0-9_]{1,3})?$`)
)

func (f Files) check() error {
	if len(f) == 0 || len(f) > maxFiles {
		return fmt.Errorf("a medium of %d files: want 1 to %d", len(f), maxFiles)
	}
	folded := map[string]string{}
	for _, p := range f.paths() {
		if !pathPattern.MatchString(p) || path.Clean(p) != p || strings.Contains("/"+p, "/..") || len(p) > 200 {
			return fmt.Errorf("a medium's file %q: want a path of letters, digits and ._+~@-, at most 200", p)
		}
		if other, twice := folded[strings.ToLower(p)]; twice {
			return fmt.Errorf("a medium's files %q and %q are one to Windows", other, p)
		}
		folded[strings.ToLower(p)] = p
	}
	return nil
}

func (f Files) paths() []string {
	out := make([]string, 0, len(f))
	for p := range f {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// WriteISO writes an ISO 9660 image with Joliet names to file, which must not exist.
// scratch is a private directory.
func WriteISO(ctx context.Context, file, label, scratch string, files Files) error {
	if err := files.check(); err != nil {
		return err
	}
	if !labelPattern.MatchString(label) {
		return fmt.Errorf("a medium's label %q: want at most 11 capital letters, digits and _", label)
	}
	dir, err := os.MkdirTemp(scratch, "iso-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	list, err := files.stage(dir)
	if err != nil {
		return err
	}
	made := filepath.Join(dir, "iso")
	// -r: owner and mode are the same whoever makes it; and files' times are not theirs.
	if err := run(ctx, "xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-J", "-joliet-long", "-r",
		"--set_all_file_dates", epochDate, "-V", label, "-graft-points", "-path-list", list, "-o", made); err != nil {
		return err
	}
	return publish(made, file)
}

// stage writes data into files below dir, and a list for -graft-points.
func (f Files) stage(dir string) (list string, err error) {
	var lines bytes.Buffer
	for i, p := range f.paths() {
		from := f[p].From
		if from == "" {
			from = filepath.Join(dir, fmt.Sprintf("data-%d", i))
			if err := os.WriteFile(from, f[p].Data, 0o600); err != nil {
				return "", err
			}
		} else if st, err := os.Stat(from); err != nil || !st.Mode().IsRegular() {
			return "", errors.Join(fmt.Errorf("%s of a medium is not a file: %s", p, from), err)
		}
		if strings.ContainsAny(from, "\n\\=") {
			return "", fmt.Errorf("%s of a medium: xorriso can't be told the path %q", p, from)
		}
		fmt.Fprintf(&lines, "/%s=%s\n", p, from)
	}
	list = filepath.Join(dir, "list")
	return list, os.WriteFile(list, lines.Bytes(), 0o600)
}

// WriteFloppy writes a floppy of 1.44 MB with the files in its root to file, which
// must not exist.
func WriteFloppy(ctx context.Context, file, scratch string, files map[string][]byte) error {
	total := 0
	var names []string
	for name, data := range files {
		if !namePattern.MatchString(name) {
			return fmt.Errorf("a floppy's file %q: want eight letters, digits and _, and three behind a dot", name)
		}
		names = append(names, name)
		total += len(data)
	}
	if total > 1_400_000 || len(names) > 200 {
		return fmt.Errorf("%d files of %d bytes don't fit on a floppy", len(names), total)
	}
	slices.Sort(names)
	dir, err := os.MkdirTemp(scratch, "floppy-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, "image")
	if err := os.WriteFile(made, make([]byte, floppySize), 0o600); err != nil {
		return err
	}
	if err := run(ctx, "mformat", "-i", made, "-f", "1440", "-N", "77696e76", "::"); err != nil {
		return err
	}
	for _, name := range names {
		from := filepath.Join(dir, name)
		if err := os.WriteFile(from, files[name], 0o600); err != nil {
			return err
		}
		if err := os.Chtimes(from, time.Time{}, time.Unix(1262304000, 0)); err != nil {
			return err
		}
		if err := run(ctx, "mcopy", "-i", made, "-m", from, "::"+name); err != nil {
			return err
		}
	}
	return publish(made, file)
}

// publish puts what was made at its place, if nothing is there.
func publish(made, file string) error {
	if err := os.Chmod(made, 0o600); err != nil {
		return err
	}
	return os.Link(made, file)
}

// packages are the Debian packages of the tools.
var packages = map[string]string{"xorriso": "xorriso", "mformat": "mtools", "mcopy": "mtools", "7zz": "7zip"}

// run runs a tool with an environment that the result doesn't depend on.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	tool, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w: there is no %s: install Debian's package %s", ErrTool, name, packages[name])
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	// mtools takes a floppy's own clock to be local time.
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC", "MTOOLSRC=/dev/null",
		"SOURCE_DATE_EPOCH=" + epoch,
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		said := strings.TrimSpace(stderr.String())
		return nil, fmt.Errorf("%w: %s: %w: %.800s", ErrTool, name, err, said)
	}
	return stdout.Bytes(), nil
}
