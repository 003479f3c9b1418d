package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/pair"
)

const (
	// diskNeed is what the recipes' scratch, two root file systems and one
	// suspended pair take.
	diskNeed = 3 << 30
	// filesNeed is a limit of open files that a build with many of them has reached.
	filesNeed = 16384
)

// kernel looks for what every export needs: opening below a directory.
func kernel(context.Context) Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return bad(Fail, "Linux is needed", "%v", err)
	}
	release, machine := unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	fd, err := unix.Openat2(unix.AT_FDCWD, ".", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH})
	if err != nil {
		return bad(Fail, "Linux 5.6 or newer is needed; in a container, its seccomp filter must know openat2",
			"Linux %s: openat2 does not work: %v", release, err)
	}
	_ = unix.Close(fd)
	if machine != "x86_64" {
		return bad(Warn, "use an x86_64 host: the images can be made on one only, and KVM can't run them here", "Linux %s on %s", release, machine)
	}
	return ok("Linux %s on %s", release, machine)
}

func (h *host) memory(context.Context) Check {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return bad(Warn, "mount /proc", "%v", err)
	}
	return h.compareMemory(string(b))
}

// compareMemory compares what is available with what a build of the largest image,
// or of one with the default size, takes at most.
func (h *host) compareMemory(meminfo string) Check {
	_, rest, _ := strings.Cut(meminfo, "\nMemAvailable:")
	kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(firstLine(rest)), " kB"))
	if err != nil {
		return bad(Warn, "Linux 3.14 or newer is needed", "/proc/meminfo does not say how much memory is available")
	}
	what, need := h.largest()
	if kib>>10 < need {
		return bad(Warn, "free some, or create the image with less --memory", "%d MiB are available; a build with %s takes up to %d MiB", kib>>10, what, need)
	}
	return ok("%d MiB are available; a build with %s takes up to %d MiB", kib>>10, what, need)
}

// largest is the image that takes the most memory, with its controller's.
func (h *host) largest() (what string, mib int) {
	size := func(i *image.Image, p guest.Profile) int {
		controller, windows := pair.Machines(i, p, "", "", "", pair.LaneMiB, false)
		return controller.Memory.MiB + controller.Lane.MiB + windows.Memory.MiB
	}
	for _, i := range h.images {
		if n := size(i, guest.Profile{}); n > mib {
			what, mib = "image "+i.Name, n
		}
	}
	if what == "" {
		if p, err := guest.Find(guest.Default); err == nil {
			return "a new image", size(&image.Image{Meta: image.Meta{MemoryMiB: p.Machine.MemoryMiB}}, p)
		}
	}
	return what, mib
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func hardFileLimit() (uint64, error) {
	var lim unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	return lim.Max, err
}

func openFiles(limit uint64, err error) Check {
	switch {
	case err != nil:
		return bad(Warn, "run it where getrlimit is allowed", "%v", err)
	case limit < filesNeed:
		return bad(Warn, "raise the hard limit: `ulimit -Hn`, /etc/security/limits.d, or LimitNOFILE= of a systemd service",
			"at most %d; a build that has more than that open at once fails", limit)
	default:
		return ok("at most %d", limit)
	}
}

// directory looks whether a directory, which need not exist yet, can be written to
// and has room.
func (h *host) directory(dir, option, variable string) Check {
	hint := fmt.Sprintf("make it writable, or name another one with %s or %s", option, variable)
	at, err := existing(dir)
	if err != nil {
		return bad(Fail, hint, "%s: %v", dir, err)
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return bad(Fail, hint, "%s can't be written to: %s: %v", dir, at, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return bad(Fail, hint, "%s: %v", at, err)
	}
	free := st.Bavail * uint64(st.Bsize)
	found := fmt.Sprintf("%s, %.1f GB free", dir, float64(free)/1e9)
	if free < diskNeed {
		return bad(h.needed(), fmt.Sprintf("making an image takes about %.0f GB: free some, or name another directory with %s or %s",
			diskNeed/1e9, option, variable), "%s", found)
	}
	return ok("%s", found)
}

// existing is the directory itself or the nearest one above it that exists.
func existing(dir string) (string, error) {
	for {
		st, err := os.Stat(dir)
		switch {
		case err == nil && !st.IsDir():
			return "", fmt.Errorf("%s is not a directory", dir)
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

func (h *host) namespaces(ctx context.Context) Check {
	if os.Geteuid() == 0 {
		return ok("not needed by root")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		return bad(h.needed(), "allow them (sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0), or make images as root",
			"can't be made: %v", err)
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return bad(h.needed(), "apt-get install uidmap, or make images as root", "newuidmap is missing")
	}
	return ok("work")
}

func fuse(context.Context) Check {
	const use = "only `controlleragent mount` on this host needs it"
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return bad(Warn, "modprobe fuse; in a container, pass /dev/fuse in; "+use, "%v", err)
	}
	_ = f.Close()
	if os.Geteuid() == 0 {
		return ok("works")
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		return bad(Warn, "apt-get install fuse3; "+use, "fusermount3 is missing")
	}
	return ok("works")
}
