package setup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/install/answer"
	"winvm/hostagent/install/cygwin"
	"winvm/hostagent/install/inspect"
	"winvm/hostagent/install/medium"
	"winvm/hostagent/pair"
)

// Config says what to install from what.
type Config struct {
	Store    *image.Store
	CacheDir string
	Name     string
	Profile  guest.Profile
	Source   []byte // the profile's file

	ISO           string
	Arch, Edition string // "" = the profile's choice
	ProductKey    string
	OpenSSHZip    string
	OpenSSHSHA256 string
	VirtioWin     string
	CygwinMirror  string // directory with setup.ini, setup.exe and the packages
	DiskGiB       int    // 0 = the profile's
	MemoryMiB     int    // 0 = the profile's
	CPUs          int    // 0 = the profile's
	Display       string // "" = none
	Rebuild       bool

	QEMU string
	// Accelerator finds out what runs VMs here, with a kernel to try.
	Accelerator func(ctx context.Context, kernel string) (string, error)
	Agent       string // path of the controller agent
	Build       string // this program's version
	// OnPair is told of both VMs when they have started, and of nil when they end; nil =
	// nobody is.
	OnPair  func(*pair.Pair)
	WorkDir string // for temporary files; removed by the caller
	LogDir  string // for consoles and screenshots
	Report  *event.Reporter
	Log     *slog.Logger

	accel string
}

// ErrMissing is wrapped by the error for a file that an install can't do without.
var ErrMissing = errors.New("something is missing for an install")

// check says, before anything is made, what can't work.
func (c *Config) check() error {
	p, s := c.Profile, c.Profile.Setup
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.ISO == "" {
		bad("%w: guest %s is installed from its ISO: give --iso FILE", ErrMissing, p.Name)
	}
	switch {
	case c.ProductKey != "":
		errs = append(errs, answer.CheckKey(c.ProductKey))
	case s.NeedsKey:
		bad("%w: guest %s can't be installed without one: give --product-key-file FILE", answer.ErrKey, p.Name)
	}
	switch {
	case s.SSHD == guest.OpenSSH && c.OpenSSHZip == "":
		bad("%w: guest %s gets its SSH server from a zip of Win32-OpenSSH: give --openssh-zip FILE", ErrMissing, p.Name)
	case s.SSHD == guest.OpenSSH:
		if err := medium.CheckDigest(c.OpenSSHSHA256); err != nil {
			bad("--openssh-sha256: %w", err)
		}
	case c.CygwinMirror == "":
		bad("%w: guest %s gets its SSH server from Cygwin: give --cygwin DIR", ErrMissing, p.Name)
	}
	if needsVirtio(p) && c.VirtioWin == "" {
		bad("%w: the machine of guest %s has virtio devices, for which Windows has no drivers: give --virtio-win FILE", ErrMissing, p.Name)
	}
	for flag, file := range map[string]string{"--iso": c.ISO, "--openssh-zip": c.OpenSSHZip, "--virtio-win": c.VirtioWin, "--cygwin": c.CygwinMirror} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			bad("%s: %w", flag, err)
		}
	}
	if gib := c.diskGiB(); gib < s.MinDiskGiB || gib > maxDiskGiB {
		bad("--disk %d: guest %s can have %d to %d GiB", gib, p.Name, s.MinDiskGiB, maxDiskGiB)
	}
	errs = append(errs, pair.CheckSize(p, c.memoryMiB(), c.cpus()))
	return errors.Join(errs...)
}

// maxDiskGiB is far beyond what is used.
const maxDiskGiB = 1 << 14

func needsVirtio(p guest.Profile) bool {
	return p.Machine.Disk == guest.DiskVirtio || p.Machine.NIC == "virtio-net-pci"
}

func or(value, otherwise int) int {
	if value == 0 {
		return otherwise
	}
	return value
}

func (c *Config) diskGiB() int   { return or(c.DiskGiB, c.Profile.Setup.DiskGiB) }
func (c *Config) memoryMiB() int { return or(c.MemoryMiB, c.Profile.Machine.MemoryMiB) }
func (c *Config) cpus() int      { return or(c.CPUs, c.Profile.Machine.CPUs) }

// choose looks at the ISO and finds what to install from it.
func (c *Config) choose(ctx context.Context) (inspect.Image, error) {
	c.Report.Stage("install", "looking at %s", c.ISO)
	m, err := inspect.Open(ctx, c.ISO)
	if err != nil {
		return inspect.Image{}, err
	}
	i, err := m.Choose(c.Profile, c.Arch, c.Edition)
	if err == nil {
		c.Report.Stage("install", "it has %s (%s, %s)", i.Edition, i.Name, i.Arch)
	}
	return i, err
}

// cygwinPackages finds the packages of a local mirror that an SSH server needs.
func cygwinPackages(ctx context.Context, mirror, arch string) (medium.Files, error) {
	ini := mirror + "/setup.ini"
	f, err := os.Open(ini)
	if err != nil {
		return nil, fmt.Errorf("--cygwin: %w", err)
	}
	defer func() { _ = f.Close() }()
	list, err := cygwin.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ini, err)
	}
	if want := map[string]string{"i686": "x86", "x86_64": "x86_64"}[arch]; list.Arch != want {
		return nil, fmt.Errorf("%s is of architecture %q: want %s", ini, list.Arch, want)
	}
	packages, err := list.Closure("openssh", "cygrunsrv")
	if err != nil {
		return nil, err
	}
	out := medium.Files{"setup.ini": {From: ini}, list.Arch + "/setup.ini": {From: ini}, "setup.exe": {From: mirror + "/setup.exe"}}
	for _, p := range packages {
		path, err := p.Verify(ctx, mirror)
		if err != nil {
			return nil, err
		}
		if path != "" {
			out[p.Path] = medium.File{From: path}
		}
	}
	return out, nil
}
