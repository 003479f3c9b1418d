package pair

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"winvm/hostagent/guest"
	"winvm/hostagent/qemu"
)

// SetDisk gives a guest's machine another copy of its disk, and of UEFI's variables if
// it has them.
func SetDisk(windows *qemu.Machine, disk, vars string) {
	windows.Drives = append([]qemu.Drive(nil), windows.Drives...)
	windows.Drives[0].File = disk
	if f := windows.Firmware; f != nil {
		windows.Firmware = &qemu.Firmware{Code: f.Code, Vars: vars, VarsFormat: f.VarsFormat}
	}
}

// CreateDisk makes an empty disk.
func CreateDisk(ctx context.Context, path string, gib int) error {
	return qemuImg(ctx, "create", "-q", "-f", "qcow2", path, fmt.Sprintf("%dG", gib))
}

// Overlays makes, in the directory to, copies on write of the files that a guest with a
// disk has in the directory from. A guest without one needs none.
func Overlays(ctx context.Context, p guest.Profile, from, to string) error {
	if p.Setup == nil {
		return nil
	}
	files := []string{GuestDisk}
	if p.UEFI() {
		files = append(files, GuestVars)
	}
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	for _, f := range files {
		base := filepath.Join(from, f)
		// Relative within an image, which is renamed when it is complete.
		if rel, err := filepath.Rel(filepath.Dir(from), base); err == nil && filepath.Dir(from) == filepath.Dir(to) {
			base = filepath.Join("..", rel)
		}
		_ = os.Remove(filepath.Join(to, f)) // of a first attempt
		if err := qemuImg(ctx, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, filepath.Join(to, f)); err != nil {
			return err
		}
	}
	return nil
}

func qemuImg(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "qemu-img", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img %s: %w: %.500s", args[0], err, out)
	}
	return nil
}
