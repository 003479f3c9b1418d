package nixstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"winvm/transport/fsrpc"
)

// Errors of Closure; they come wrapped, with the input.
var (
	// ErrOutsideStore: an input is not in the store directory.
	ErrOutsideStore = errors.New("is not in the store directory")
	// ErrNoSuchInput: an input does not exist.
	ErrNoSuchInput = errors.New("does not exist")
	// ErrUnreadable: the host agent's user may not look at it.
	ErrUnreadable = errors.New("can't be read by the user that runs the host agent")
	// ErrNotValid: Nix does not know the path, though it is there.
	ErrNotValid = errors.New("is in the Nix store directory, but Nix doesn't know it: add it by `nix-store --add` or realise it")
	// ErrTooMany: the closure is larger than a build can have.
	ErrTooMany = errors.New("too many store paths")
)

// storeName is what Nix calls a path in its store: a digest in its base 32, and
// a name. Beside them lie lock files and links.
var storeName = regexp.MustCompile(`^[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+._?=-]+$`)

// Closure lists the store paths, as absolute paths sorted by name, that a build
// with these inputs can see. An input is an absolute path in storeDir, or a base
// name there; a path below a store path stands for the store path, and a symbolic
// link elsewhere (as Nix's ./result) for what it leads to.
func Closure(ctx context.Context, storeDir string, inputs []string) ([]string, error) {
	dir, err := filepath.Abs(storeDir)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("store directory %s %w", dir, plainError(err))
	case !st.IsDir():
		return nil, fmt.Errorf("store directory %s is not a directory", dir)
	}
	nix := isNixStore(dir)
	if len(inputs) == 0 {
		return all(dir, nix)
	}
	var paths []string
	for _, in := range inputs {
		p, err := storePath(dir, in)
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	if nix {
		if paths, err = requisites(ctx, dir, paths); err != nil {
			return nil, err
		}
	}
	return checked(paths)
}

func checked(paths []string) ([]string, error) {
	if len(paths) > fsrpc.MaxSections {
		return nil, fmt.Errorf("%w: %d, at most %d are possible", ErrTooMany, len(paths), fsrpc.MaxSections)
	}
	return paths, nil
}

// plainError replaces errors that have a clearer one here.
func plainError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNoSuchInput
	case errors.Is(err, fs.ErrPermission):
		return ErrUnreadable
	default:
		return err
	}
}

// all lists every store path there is.
func all(dir string, nix bool) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("store directory %s %w", dir, plainError(err))
	}
	var paths []string
	for _, e := range entries {
		if kind := e.Type(); !kind.IsDir() && !kind.IsRegular() && kind != fs.ModeSymlink {
			continue
		}
		if nix && (!storeName.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".lock")) {
			continue
		}
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	return checked(paths)
}

// storePath returns the store path that an input stands for.
func storePath(dir, input string) (string, error) {
	if input == "" {
		return "", fmt.Errorf("an empty input %w", ErrNoSuchInput)
	}
	path := input
	if !filepath.IsAbs(path) {
		if filepath.Base(path) != path || path == "." || path == ".." {
			return "", fmt.Errorf("input %s: give an absolute path or a name in %s: it %w", input, dir, ErrOutsideStore)
		}
		path = filepath.Join(dir, path)
	}
	path = filepath.Clean(path)
	name, ok := below(dir, path)
	if !ok {
		// By another name of the store directory, or through a link into it.
		realDir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", fmt.Errorf("store directory %s %w", dir, plainError(err))
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", fmt.Errorf("input %s %w", input, plainError(err))
		}
		if name, ok = below(realDir, real); !ok {
			return "", fmt.Errorf("input %s %w %s", input, ErrOutsideStore, dir)
		}
	}
	// The whole path must be there: a misspelt one would go unnoticed. Links on
	// the way are looked through, but only the store path is served.
	if _, err := os.Lstat(path); err != nil {
		return "", fmt.Errorf("input %s %w", input, plainError(err))
	}
	return filepath.Join(dir, name), nil
}

// below returns the first component of path below dir.
func below(dir, path string) (string, bool) {
	if !strings.HasSuffix(dir, "/") {
		dir += "/"
	}
	rest, ok := strings.CutPrefix(path, dir)
	if !ok || rest == "" {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return name, true
}

// stateDir is where Nix keeps its database for a store: DIR/store, DIR/var/nix.
func stateDir(dir string) string { return filepath.Join(filepath.Dir(dir), "var", "nix") }

// isNixStore tells whether a directory is a Nix store with a database, and
// Nix's tool is there.
func isNixStore(dir string) bool {
	if _, err := os.Stat(filepath.Join(stateDir(dir), "db", "db.sqlite")); err != nil {
		return false
	}
	_, err := exec.LookPath("nix-store")
	return err == nil
}

// maxArgs is how many paths nix-store is asked about at a time.
const maxArgs = 4000

// requisites asks Nix for the closure.
func requisites(ctx context.Context, dir string, paths []string) ([]string, error) {
	var out []string
	for part := range slices.Chunk(paths, maxArgs) {
		got, err := requisitesOf(ctx, dir, part)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func requisitesOf(ctx context.Context, dir string, paths []string) ([]string, error) {
	said, err := nixStore(ctx, dir, append([]string{"--query", "--requisites"}, paths...)...)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(said) {
		p := strings.TrimSuffix(line, "\n")
		if filepath.Dir(p) != dir {
			return nil, fmt.Errorf("nix-store named %q as part of the closure: it %w %s", p, ErrOutsideStore, dir)
		}
		out = append(out, p)
	}
	return out, nil
}

// nixStore runs nix-store on the store in dir and returns what it says.
func nixStore(ctx context.Context, dir string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "nix-store", args...)
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+dir, "NIX_STATE_DIR="+stateDir(dir))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		msg := strings.TrimSpace(stderr.String())
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if strings.Contains(msg, "not valid") || strings.Contains(msg, "valid store path") || strings.Contains(msg, "is not in the Nix store") {
			return "", fmt.Errorf("an input %w (nix-store says: %s)", ErrNotValid, msg)
		}
		return "", fmt.Errorf("nix-store %s %s: %w: %s", args[0], args[1], err, msg)
	}
	return stdout.String(), nil
}
