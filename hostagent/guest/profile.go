package guest

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// ErrUnknown is wrapped by the error for a profile that does not exist.
var ErrUnknown = errors.New("no such guest profile")

// Default is the profile that is taken if none is named.
const Default = "wine"

// A Profile says how one kind of guest is installed, started and driven. The YAML
// names are those of the profiles' files.
type Profile struct {
	Name    string `yaml:"name" json:"name"`
	Summary string `yaml:"summary" json:"summary"`
	// Recipe names the recipe that builds the guest's disk (package recipe); ""
	// is a guest that is installed from its vendor's medium, as Setup says.
	Recipe string `yaml:"recipe,omitempty" json:"recipe,omitempty"`
	Setup  *Setup `yaml:"setup,omitempty" json:"setup,omitempty"`

	Machine Machine `yaml:"machine" json:"machine"`
	SSH     SSH     `yaml:"ssh" json:"ssh"`
	SMB     SMB     `yaml:"smb" json:"smb"`
	Drives  []Drive `yaml:"drives" json:"drives"`

	// RunnerPath is where winvm-run.exe is put on the guest's own disk.
	RunnerPath string `yaml:"runner_path" json:"runner_path"`
	// InstallRunner are commands that put it there from drive X:.
	InstallRunner []string `yaml:"install_runner" json:"install_runner"`
	// WarmUp are the lines of a batch file that is run once before the suspend, as
	// a build would be, so that what it loads is in memory at every revive.
	WarmUp []string `yaml:"warm_up" json:"warm_up"`
	// Settle is how long the guest has to leave the shares alone before the
	// suspend, so that its SMB client believes nothing it has seen there: after a
	// revive other files stand in the same place.
	Settle Duration `yaml:"settle" json:"settle"`
	// ExitBits is how many bits of an exit code the guest's SSH server passes on:
	// 32 for Windows, 8 where a Unix process stands in between. The whole code
	// comes in the runner's file; the two are compared in these bits.
	ExitBits int `yaml:"exit_bits" json:"exit_bits"`
}

// Machine is the hardware a guest is made for. Memory and CPUs are defaults.
type Machine struct {
	MemoryMiB int               `yaml:"memory_mib" json:"memory_mib"`
	MinMemory int               `yaml:"min_memory_mib" json:"min_memory_mib"`
	CPUs      int               `yaml:"cpus" json:"cpus"`
	MaxCPUs   int               `yaml:"max_cpus" json:"max_cpus"`
	CPUModel  map[string]string `yaml:"cpu_model" json:"cpu_model"` // by accelerator
	// Append is the kernel's command line, for guests that boot a kernel directly.
	Append     string `yaml:"kernel_append,omitempty" json:"kernel_append,omitempty"`
	BootLimitS int    `yaml:"boot_limit_s" json:"boot_limit_s"` // seconds until a boot without an SSH server is given up

	// What follows is for guests with a disk of their own (Profile.Setup).
	Firmware  string `yaml:"firmware,omitempty" json:"firmware,omitempty"`       // FirmwareBIOS or FirmwareUEFI
	Disk      string `yaml:"disk,omitempty" json:"disk,omitempty"`               // DiskAHCI, DiskIDE or DiskVirtio
	NIC       string `yaml:"nic,omitempty" json:"nic,omitempty"`                 // QEMU's name of the network adapter
	VGAMemMiB int    `yaml:"vga_mem_mib,omitempty" json:"vga_mem_mib,omitempty"` // video memory
}

// What boots a guest with a disk.
const (
	FirmwareBIOS = "bios" // SeaBIOS
	FirmwareUEFI = "uefi" // OVMF
)

// What a guest's disk hangs on.
const (
	DiskAHCI   = "ahci"   // of the machine type q35
	DiskIDE    = "ide"    // of the machine type pc
	DiskVirtio = "virtio" // needs a driver from --virtio-win while Windows is set up
)

// SSH says how commands get in.
type SSH struct {
	Port int    `yaml:"port" json:"port"`
	User string `yaml:"user" json:"user"`
}

// SMB says what the guest's SMB client speaks.
type SMB struct {
	MinProtocol string `yaml:"min_protocol" json:"min_protocol"`
}

// A Drive maps a letter to a directory of a share.
type Drive struct {
	Letter string `yaml:"letter" json:"letter"`                 // one of D to Z
	Share  string `yaml:"share" json:"share"`                   // nixstore or xchg
	Path   string `yaml:"path,omitempty" json:"path,omitempty"` // below the share, with '/', "" for all of it
}

// The addresses on the private link. It connects the two VMs of a pair and nothing
// else, so every pair has the same.
const (
	GuestIPv4      = "192.168.0.1"
	ControllerIPv4 = "192.168.0.2"
	GuestIPv6      = "fd77:696e:766d::1"
	ControllerIPv6 = "fd77:696e:766d::2"
	GuestMAC       = "52:54:00:77:76:01"
	ControllerMAC  = "52:54:00:77:76:02"
)

// The shares as the controller exports them.
const (
	ShareStore = "nixstore"
	ShareXchg  = "xchg"
)

// drivePath is what a drive's path is made of: nothing that a shell of the guest
// or Windows reads in another way (store paths can have a '?', Windows can't).
var drivePath = regexp.MustCompile(`^[A-Za-z0-9._+=/-]+$`)

// CheckDrives says what is wrong with a table of drives: letters that are taken
// twice or reserved (A: and B: are floppies, C: is the system's disk), shares that
// do not exist, paths that leave the share.
func CheckDrives(drives []Drive) error {
	var errs []error
	seen := map[string]bool{}
	for _, d := range drives {
		l := strings.ToUpper(d.Letter)
		switch {
		case len(l) != 1 || l < "A" || l > "Z":
			errs = append(errs, fmt.Errorf("drive %q: a drive letter is one letter from D to Z", d.Letter))
			continue
		case l <= "C":
			errs = append(errs, fmt.Errorf("drive %s: is reserved (A: and B: are floppies, C: is the system's disk)", l))
		case seen[l]:
			errs = append(errs, fmt.Errorf("drive %s: is mapped twice", l))
		}
		seen[l] = true
		if d.Share != ShareStore && d.Share != ShareXchg {
			errs = append(errs, fmt.Errorf("drive %s: no share %q (there are %s and %s)", l, d.Share, ShareStore, ShareXchg))
		}
		if d.Path != "" && (path.Clean("/"+d.Path) != "/"+d.Path || !drivePath.MatchString(d.Path)) {
			errs = append(errs, fmt.Errorf("drive %s: path %q is not a clean path below the share, of letters, digits and ._+=-", l, d.Path))
		}
	}
	return errors.Join(errs...)
}

// DriveOf returns the letter that maps the whole of a share.
func (p Profile) DriveOf(share string) (string, bool) {
	for _, d := range p.Drives {
		if d.Share == share && d.Path == "" {
			return strings.ToUpper(d.Letter), true
		}
	}
	return "", false
}

// StorePath is what a path below the store directory is called in the guest:
// StorePath("a-1/b") is S:\a-1\b.
func (p Profile) StorePath(rel string) string { return p.guestPath(ShareStore, rel) }

// XchgPath is what a path below xchg is called in the guest.
func (p Profile) XchgPath(rel string) string { return p.guestPath(ShareXchg, rel) }

func (p Profile) guestPath(share, rel string) string {
	l, _ := p.DriveOf(share)
	return l + `:\` + strings.ReplaceAll(rel, "/", `\`)
}

// MapCommands are the commands that map the profile's drives, the same on every
// Windows.
func (p Profile) MapCommands(user, password string) []string {
	out := make([]string, len(p.Drives))
	for i, d := range p.Drives {
		unc := `\\` + ControllerIPv4 + `\` + d.Share
		if d.Path != "" {
			unc += `\` + strings.ReplaceAll(d.Path, "/", `\`)
		}
		out[i] = fmt.Sprintf("net use %s: %s %s /user:%s /persistent:no", strings.ToUpper(d.Letter), unc, password, user)
	}
	return out
}

// UEFI reports whether the guest boots under UEFI.
func (p Profile) UEFI() bool { return p.Machine.Firmware == FirmwareUEFI }
