package medium

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// driverNames are the directories of virtio-win's ISO that are taken.
var driverNames = []string{"viostor", "NetKVM"}

// Drivers takes from virtio-win's ISO the drivers of one Windows, named as the ISO
// does (w11, 2k22), and unpacks them below dir. It returns them by directory.
func Drivers(ctx context.Context, iso, windows, arch, dir string) (Files, error) {
	st, err := os.Stat(iso)
	if err != nil {
		return nil, fmt.Errorf("%w: --virtio-win: %w", ErrDrivers, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: --virtio-win %s is not a file", ErrDrivers, iso)
	}
	suffix := map[string]string{"x86_64": "amd64", "i686": "x86"}[arch]
	args := []string{"x", "-y", "-bd", "-bso0", "-o" + dir, "--", iso}
	for _, d := range driverNames {
		args = append(args, d+"/"+windows+"/"+suffix+"/*")
	}
	if err := run(ctx, "7zz", args...); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDrivers, iso, err)
	}
	out := Files{}
	for _, d := range driverNames {
		from := filepath.Join(dir, d, windows, suffix)
		inf := false
		err := filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			rel, err := filepath.Rel(from, p)
			inf = inf || strings.EqualFold(filepath.Ext(p), ".inf")
			out[d+"/"+filepath.ToSlash(rel)] = File{From: p}
			return err
		})
		if err != nil || !inf {
			return nil, fmt.Errorf("%w: %s has no driver %s for %s on %s", ErrDrivers, iso, d, windows, arch)
		}
	}
	return out, nil
}
