package pair

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/transport/needs"
)

func backing(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("qemu-img", "info", "--output=json", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Backing string `json:"backing-filename"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	return info.Backing
}

// A state's overlay is of its image wherever that is renamed to; a run's is of the state.
func TestOverlays(t *testing.T) {
	needs.Tool(t, "qemu-img")
	p, err := guest.Find("windows-11")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	img, run := filepath.Join(root, "new"), filepath.Join(root, "run")
	for _, d := range []string{filepath.Join(img, Guest), filepath.Join(img, "state-1"), run} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{GuestDisk, GuestVars} {
		if err := CreateDisk(t.Context(), filepath.Join(img, Guest, f), 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a second attempt
		if err := Overlays(t.Context(), p, filepath.Join(img, Guest), filepath.Join(img, "state-1")); err != nil {
			t.Fatal(err)
		}
	}
	final := filepath.Join(root, "image")
	if err := os.Rename(img, final); err != nil {
		t.Fatal(err)
	}
	if err := Overlays(t.Context(), p, filepath.Join(final, "state-1"), run); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{GuestDisk, GuestVars} {
		if got := backing(t, filepath.Join(final, "state-1", f)); got != "../guest/"+f {
			t.Errorf("the state's %s is of %s", f, got)
		}
		if got := backing(t, filepath.Join(run, f)); got != filepath.Join(final, "state-1", f) {
			t.Errorf("the run's %s is of %s", f, got)
		}
	}
	if err := Overlays(t.Context(), p, run+"x", run); err == nil {
		t.Error("an overlay of nothing")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := CreateDisk(ended, filepath.Join(root, "x"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got %v", err)
	}
	wine, err := guest.Find("wine")
	if err != nil || Overlays(t.Context(), wine, "/nonexistent", "/nonexistent") != nil {
		t.Errorf("a guest without a disk: %v", err)
	}
}

// Every profile's machine is one that QEMU's command line can be made for.
func TestMachinesOfProfiles(t *testing.T) {
	for _, name := range guest.Names() {
		p, err := guest.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		i := &image.Image{Dir: "/images/x", Meta: image.Meta{MemoryMiB: p.Machine.MemoryMiB, CPUs: p.Machine.CPUs}}
		for _, accel := range []string{"tcg", "kvm"} {
			controller, windows := Machines(i, p, accel, "qemu", "/images/x/state-1", LaneMiB, true)
			if err := errors.Join(controller.Validate(), windows.Validate()); err != nil {
				t.Errorf("%s, %s: %v", name, accel, err)
			}
			if (windows.Kernel == "") != (p.Setup != nil) || (windows.Firmware != nil) != p.UEFI() || (windows.Type == "pc") != (p.Machine.Disk == guest.DiskIDE) {
				t.Errorf("%s: %+v", name, windows)
			}
			before := windows.Identity()
			other := windows
			SetDisk(&other, "/run/1/d", "/run/1/v")
			if p.Setup != nil && (other.Drives[0].File != "/run/1/d" || windows.Drives[0].File == "/run/1/d") || other.Identity() != before {
				t.Errorf("%s: SetDisk changes more than the copy, or nothing", name)
			}
		}
	}
}
