package nixstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// narHashes asks Nix for the NAR hashes of those store paths that are valid. For
// the others there is nobody's word.
func narHashes(ctx context.Context, dir string, names []string) (map[string]string, error) {
	out := make(map[string]string, len(names))
	for part := range slices.Chunk(names, maxArgs) {
		paths := make([]string, 0, len(part))
		for _, n := range part {
			if storeName.MatchString(n) {
				paths = append(paths, filepath.Join(dir, n))
			}
		}
		if len(paths) == 0 {
			continue
		}
		hashes, err := nixQuery(ctx, dir, "--query", "--hash", paths)
		if errors.Is(err, ErrNotValid) {
			if paths, err = onlyValid(ctx, dir, paths); err == nil && len(paths) > 0 {
				hashes, err = nixQuery(ctx, dir, "--query", "--hash", paths)
			}
		}
		if err != nil {
			return nil, err
		}
		if len(paths) > 0 && len(hashes) != len(paths) {
			return nil, fmt.Errorf("nix-store --query --hash named %d hashes of %d store paths", len(hashes), len(paths))
		}
		for i, p := range paths {
			out[filepath.Base(p)] = hashes[i]
		}
	}
	return out, nil
}

// onlyValid leaves out the paths that Nix doesn't know.
func onlyValid(ctx context.Context, dir string, paths []string) ([]string, error) {
	invalid, err := nixQuery(ctx, dir, "--check-validity", "--print-invalid", paths)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return slices.Contains(invalid, p) }), nil
}

// nixQuery runs nix-store and returns the lines it says.
func nixQuery(ctx context.Context, dir, op, option string, paths []string) ([]string, error) {
	said, err := nixStore(ctx, dir, append([]string{op, option}, paths...)...)
	if err != nil {
		return nil, err
	}
	return strings.Fields(said), nil
}
