package answer

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"winvm/hostagent/guest"
)

// Params are what the files depend on.
type Params struct {
	Profile guest.Profile
	Arch    string // x86_64 or i686
	// ImageIndex is the number of the edition in the medium's install.wim, from 1.
	ImageIndex int
	ProductKey string // "" = none
	Password   string // Administrator's
	// Drivers are directories of the software medium with drivers for Setup, with '/'.
	Drivers []string
}

// Names on the software medium.
const (
	Dir         = "winvm"           // everything is in it
	Script      = "first-logon.cmd" // in Dir
	Starter     = "winvm.cmd"       // on the floppy: finds Script on the CD and runs it
	OpenSSHDir  = "OpenSSH"         // in Dir
	CygwinDir   = "cygwin"          // in Dir: a local mirror, and setup.exe
	KeysDir     = "keys"            // in Dir
	HostKey     = "ssh_host_ed25519_key"
	Authorized  = "authorized_keys"
	SSHDConfig  = "sshd_config"
	Fstab       = "fstab"
	DriverDir   = "drivers" // in Dir
	VolumeLabel = "WINVM"   // of the ISO
	PortName    = "COM1"    // that the stages are told on
	ruleName    = "winvm sshd"
	computer    = "WINVM"
	serverTries = "60" // seconds that sshd has to listen after its start
)

// Lines that the guest writes to the first serial port.
const (
	linePrefix      = "winvm-install: "
	StageFirstLogon = linePrefix + "first logon"
	StageSSHD       = linePrefix + "sshd is up"
	FailedLine      = linePrefix + "failed: " // and the reason
)

// ErrKey is wrapped by the error of a product key that can't be one.
var ErrKey = errors.New("not a product key")

// keyPattern has the 24 characters of keys, and N, which keys since Windows 8 have.
var keyPattern = regexp.MustCompile(`^([BCDFGHJKMNPQRTVWXY2346789]{5}-){4}[BCDFGHJKMNPQRTVWXY2346789]{5}$`)

// CheckKey refuses what can't be a product key. It doesn't repeat the key: errors are
// logged.
func CheckKey(key string) error {
	if !keyPattern.MatchString(key) {
		return fmt.Errorf("%w: want five groups of five, like XXXXX-XXXXX-XXXXX-XXXXX-XXXXX, of capital letters and digits that are not alike (none of A E I L O S U Z 0 1 5)", ErrKey)
	}
	return nil
}

var (
	passwordPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{8,64}$`)
	driverPattern   = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
)

func (p Params) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s := p.Profile.Setup
	if s == nil {
		return fmt.Errorf("guest profile %s is not installed from a medium", p.Profile.Name)
	}
	if p.Arch != "x86_64" && p.Arch != "i686" {
		bad("architecture %q", p.Arch)
	}
	if p.ProductKey != "" {
		errs = append(errs, CheckKey(p.ProductKey))
	} else if s.NeedsKey {
		bad("%w: guest %s can't be installed without one; give --product-key", ErrKey, p.Profile.Name)
	}
	if !passwordPattern.MatchString(p.Password) {
		bad("a password has 8 to 64 letters, digits and ._-")
	}
	if s.Answer == guest.AutoUnattend && p.ImageIndex < 1 {
		bad("image number %d: they begin with 1", p.ImageIndex)
	}
	for _, d := range p.Drivers {
		if !driverPattern.MatchString(d) || strings.Contains(d, "..") {
			bad("driver directory %q", d)
		}
	}
	return errors.Join(errs...)
}

// mac is the guest's MAC address as Windows writes it.
func mac() string { return strings.ToUpper(strings.ReplaceAll(guest.GuestMAC, ":", "-")) }
