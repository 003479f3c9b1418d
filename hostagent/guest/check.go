package guest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A fieldError is what is wrong with a field, named as in the file.
type fieldError struct {
	field string
	err   error
}

// A checker collects them.
type checker struct{ wrong []fieldError }

func (c *checker) bad(field, format string, args ...any) {
	c.wrong = append(c.wrong, fieldError{field, fmt.Errorf(format, args...)})
}

func (c *checker) oneOf(field, value string, of ...string) {
	if !slices.Contains(of, value) {
		c.bad(field, "%q: want one of %s", value, strings.Join(of, ", "))
	}
}

func (c *checker) between(field string, value, low, high int) {
	if value < low || value > high {
		c.bad(field, "%d: want %d to %d", value, low, high)
	}
}

func (c *checker) matches(field, value string, of *regexp.Regexp, what string) {
	if !of.MatchString(value) {
		c.bad(field, "%q: want %s", value, what)
	}
}

var (
	profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	oneLine     = regexp.MustCompile(`^[^\x00-\x1f\x7f]{1,1000}$`)
	userName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,19}$`)
	guestPath   = regexp.MustCompile(`^C:(\\[A-Za-z0-9._-]+)+\.exe$`)
	word        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	cpuModel    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+,=-]{0,255}$`)
)

// Validate checks what the other packages rely on.
func (p Profile) Validate() error {
	var errs []error
	for _, w := range p.check() {
		errs = append(errs, fmt.Errorf("guest profile %s: %s: %w", p.Name, w.field, w.err))
	}
	return errors.Join(errs...)
}

// check is the schema, as far as types don't say it.
func (p Profile) check() []fieldError {
	c := &checker{}
	c.matches("name", p.Name, profileName, "small letters, digits and ._-, at most 63")
	c.matches("summary", p.Summary, oneLine, "one line of text")
	if (p.Recipe == "") == (p.Setup == nil) {
		c.bad("setup", "a guest has either a recipe or a setup")
	}
	p.Machine.check(c, p.Setup != nil)
	if p.Setup != nil {
		p.Setup.check(c)
	}
	c.between("ssh.port", p.SSH.Port, 1, 65535)
	c.matches("ssh.user", p.SSH.User, userName, "a user's name: letters, digits, _ and -, at most 20")
	c.oneOf("smb.min_protocol", p.SMB.MinProtocol, "NT1", "SMB2_02", "SMB2_10", "SMB3_00", "SMB3_02", "SMB3_11")
	if err := CheckDrives(p.Drives); err != nil {
		c.bad("drives", "%w", err)
	}
	for _, share := range []string{ShareStore, ShareXchg} {
		if _, ok := p.DriveOf(share); !ok {
			c.bad("drives", "no drive maps the whole of share %s", share)
		}
	}
	c.matches("runner_path", p.RunnerPath, guestPath, `a path like C:\winvm\winvm-run.exe`)
	for name, lines := range map[string][]string{"install_runner": p.InstallRunner, "warm_up": p.WarmUp} {
		for i, l := range lines {
			c.matches(fmt.Sprintf("%s[%d]", name, i), l, oneLine, "one line of text")
		}
	}
	if p.Settle.Duration < 0 || p.Settle.Duration > time.Minute {
		c.bad("settle", "%v: want 0s to 1m", p.Settle)
	}
	if p.ExitBits != 8 && p.ExitBits != 32 {
		c.bad("exit_bits", "exit codes of %d bits: want 8 or 32", p.ExitBits)
	}
	return c.wrong
}

// maxMemoryMiB is far beyond what is used; package qemu has the same limit.
const maxMemoryMiB = 1 << 20

func (m Machine) check(c *checker, disk bool) {
	c.between("machine.memory_mib", m.MemoryMiB, 64, maxMemoryMiB)
	c.between("machine.min_memory_mib", m.MinMemory, 64, m.MemoryMiB)
	c.between("machine.max_cpus", m.MaxCPUs, 1, 64)
	c.between("machine.cpus", m.CPUs, 1, m.MaxCPUs)
	for _, accel := range []string{"tcg", "kvm"} {
		c.matches("machine.cpu_model."+accel, m.CPUModel[accel], cpuModel, "a CPU model of QEMU")
	}
	c.between("machine.boot_limit_s", m.BootLimitS, 1, 24*3600)
	if !disk {
		for field, value := range map[string]string{"firmware": m.Firmware, "disk": m.Disk, "nic": m.NIC} {
			if value != "" {
				c.bad("machine."+field, "is for guests with a setup; this one has a recipe")
			}
		}
		return
	}
	c.oneOf("machine.firmware", m.Firmware, FirmwareBIOS, FirmwareUEFI)
	c.oneOf("machine.disk", m.Disk, DiskAHCI, DiskIDE, DiskVirtio)
	c.oneOf("machine.nic", m.NIC, "virtio-net-pci", "e1000", "e1000e", "rtl8139")
	if v := m.VGAMemMiB; v < 1 || v > 256 || v&(v-1) != 0 {
		c.bad("machine.vga_mem_mib", "%d: want a power of two from 1 to 256", v)
	}
	if m.Append != "" {
		c.bad("machine.kernel_append", "is for guests with a recipe; this one boots from its disk")
	}
	if m.Firmware == FirmwareUEFI && m.Disk == DiskIDE {
		c.bad("machine.disk", "ide is of the machine type pc, which has no UEFI here: want ahci or virtio")
	}
}

func (s *Setup) check(c *checker) {
	c.oneOf("setup.answer", s.Answer, WinntSIF, AutoUnattend)
	c.oneOf("setup.sshd", s.SSHD, OpenSSH, Cygwin)
	if len(s.Architectures) == 0 {
		c.bad("setup.architectures", "want at least one of x86_64, i686")
	}
	for i, a := range s.Architectures {
		c.oneOf(fmt.Sprintf("setup.architectures[%d]", i), a, "x86_64", "i686")
	}
	if len(s.Editions) == 0 {
		c.bad("setup.editions", "want at least one")
	}
	for i, e := range s.Editions {
		c.matches(fmt.Sprintf("setup.editions[%d]", i), e, word, "an edition's ID")
	}
	for edition, file := range s.Markers {
		c.matches("setup.markers", file, word, "a file's name")
		c.oneOf("setup.markers", edition, s.Editions...)
	}
	if s.DriverDir != "" {
		c.matches("setup.driver_dir", s.DriverDir, word, "a directory's name")
	}
	switch s.Answer {
	case WinntSIF:
		c.oneOf("setup.kind", s.Kind, "xp", "2003")
		if len(s.Markers) != len(s.Editions) {
			c.bad("setup.markers", "a medium without an image file is known by files in its root: want one for each edition")
		}
		if s.BypassChecks {
			c.bad("setup.bypass_checks", "is for autounattend.xml")
		}
	case AutoUnattend:
		c.oneOf("setup.kind", s.Kind, "client", "server")
	}
	c.between("setup.min_build", s.MinBuild, 0, 1<<20)
	c.between("setup.max_build", s.MaxBuild, 0, 1<<20)
	c.between("setup.min_disk_gib", s.MinDiskGiB, 1, 1<<14)
	c.between("setup.disk_gib", s.DiskGiB, max(1, s.MinDiskGiB), 1<<14)
	for field, d := range map[string]Duration{
		"firmware": s.Limits.Firmware, "setup": s.Limits.Setup, "copying": s.Limits.Copying,
		"first_boot": s.Limits.FirstBoot, "first_logon": s.Limits.FirstLogon, "sshd": s.Limits.SSHD, "stuck": s.Limits.Stuck,
	} {
		if d.Duration < time.Second || d.Duration > 24*time.Hour {
			c.bad("setup.limits."+field, "%v: want 1s to 24h", d)
		}
	}
}
