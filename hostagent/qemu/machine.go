package qemu

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
)

// Accel is what executes the guest's instructions.
type Accel string

// The accelerators. A state saved under one can't be loaded under the other.
const (
	TCG Accel = "tcg" // translation in software; works everywhere
	KVM Accel = "kvm" // the processor's own virtualisation
)

// DefaultBinary is what [Machine.Binary] is when it is empty.
const DefaultBinary = "qemu-system-x86_64"

// Limits of a description. They are far beyond what is used, and keep an absurd
// value from an image's file out of QEMU's command line.
const (
	MaxSMP       = 64
	MaxMemoryMiB = 1 << 20 // 1 TiB
	MaxPorts     = 30      // the device has 31, and number 0 is reserved for a console
	MaxDrives    = 16
	MaxLaneMiB   = 1 << 10
	maxIDE       = 6    // ports of q35's AHCI controller
	maxIDEPC     = 4    // two on each of the two channels
	maxText      = 4096 // bytes in a name, a path or the kernel's command line
)

// Machine describes one virtual machine. The zero value of a field is its default,
// where one is named.
type Machine struct {
	Binary string // QEMU; default [DefaultBinary]
	Name   string // shown in QEMU's messages and by ps; required

	Type  string // machine type; default "q35"
	Accel Accel  // default [TCG]
	CPU   string // CPU model; default "qemu64" under TCG, "host" under KVM
	SMP   int    // CPUs; default 1

	// HostCPU is what [HostCPU] says, for a CPU model that is the host's.
	HostCPU string

	Memory Memory

	// Kernel, Initrd and Append boot a Linux kernel directly. Initrd and Append
	// need Kernel.
	Kernel, Initrd, Append string

	// Firmware is UEFI from files; nil is the machine type's own BIOS.
	Firmware *Firmware
	// Display is where the screen can be looked at: "" is nowhere, else vnc=unix:PATH
	// or vnc=127.0.0.1:N.
	Display string

	Drives []Drive
	NIC    *NIC
	Ports  []Port // virtio-serial ports; none = no controller
	Lane   *Lane  // memory shared with the host agent

	ConsoleFD int // the first serial line: one end of a SOCK_STREAM socketpair
	QMPFD     int // the monitor: one end of a SOCK_STREAM socketpair

	// VGAMemMiB is the memory of a standard VGA adapter: a power of two, 1 to 256;
	// 0 = no adapter. A screenshot needs one; 2 MiB is enough for text.
	VGAMemMiB int

	// TranslationMiB bounds what TCG keeps of the code that it has translated; 0 = up to
	// 1 GiB, as QEMU likes it. When it is full, all of it is thrown away. It is not part
	// of the machine's identity.
	TranslationMiB int

	NoRNG       bool   // leave out the virtio random number generator
	Panic       bool   // a pvpanic device, so that the guest can say that it panicked
	AllowReboot bool   // a reset restarts the guest instead of ending QEMU
	Incoming    bool   // wait for a state to be loaded instead of booting
	RTCBase     string // what the clock shows at boot; default 2010-01-01T00:00:00
	NoSandbox   bool   // leave out QEMU's seccomp sandbox (a QEMU built without it)
}

// Memory is the guest's RAM.
type Memory struct {
	MiB          int    // size; required
	File         string // absolute path of the file that is the RAM; "" = anonymous memory
	Shared       bool   // writes of the guest go to File; needs File
	ReadOnlyFile bool   // open File for reading only: QEMU >= 8.2, and not Shared
}

// Bytes is the size in bytes.
func (m Memory) Bytes() int64 { return int64(m.MiB) << 20 }

// DriveModel is the device that shows a drive to the guest.
type DriveModel string

// The drive devices.
const (
	VirtioBlk DriveModel = "virtio-blk-pci" // the default
	IDEDisk   DriveModel = "ide-hd"         // on q35 behind AHCI
	Floppy    DriveModel = "floppy"         // 1.44 MB; machine type pc only
	IDECD     DriveModel = "ide-cd"         // read-only whatever Drive.ReadOnly says
)

// Drive is one disk.
type Drive struct {
	ID       string     // unique among the drives; a letter, then letters, digits, '-', '_', '.'; at most 24
	Model    DriveModel // default [VirtioBlk]
	File     string     // absolute path
	Format   string     // "raw" or "qcow2"; never guessed, a guest could write a header
	ReadOnly bool
	Serial   string // shown to the guest, at most 20 bytes
	Boot     int    // its place among what the firmware tries to boot from, from 1; 0 = none
	Volatile bool   // thrown away afterwards: flushes of the guest are not carried out
}

// Firmware is UEFI: its code, and the guest's copy of its variables.
type Firmware struct {
	Code       string // absolute path; read only
	Vars       string // absolute path; written to
	VarsFormat string // "raw" or "qcow2"
}

// NIC is the network adapter on the private link.
type NIC struct {
	Model string // "virtio-net-pci" (default), "e1000", "e1000e", "rtl8139"
	MAC   string // required: the identity of the guest on the link
	FD    int    // one end of a SOCK_DGRAM socketpair, one frame a datagram
}

// Port is one virtio-serial port.
type Port struct {
	Name string // what the guest finds it by; like Drive.ID
	FD   int    // one end of a SOCK_STREAM socketpair
}

// Lane is memory that the guest shares with the host agent, as an NVDIMM beside the
// RAM. A saved state leaves it out; who revives gives the guest fresh memory.
//
// To Linux it looks as if memory could be plugged in above 4 GiB, for which it sets
// 64 MiB of bounce buffers aside: put swiotlb=noforce into Append.
type Lane struct {
	MiB int // size
	FD  int // a sealed memfd of that size
}

// WithDefaults returns a copy with the defaults filled in.
func (m Machine) WithDefaults() Machine {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&m.Binary, DefaultBinary)
	set(&m.Type, "q35")
	set((*string)(&m.Accel), string(TCG))
	if m.Accel == KVM {
		set(&m.CPU, "host")
	}
	set(&m.CPU, "qemu64")
	set(&m.RTCBase, "2010-01-01T00:00:00")
	if m.SMP == 0 {
		m.SMP = 1
	}
	drives := make([]Drive, len(m.Drives))
	for i, d := range m.Drives {
		set((*string)(&d.Model), string(VirtioBlk))
		d.ReadOnly = d.ReadOnly || d.Model == IDECD
		drives[i] = d
	}
	m.Drives = drives
	if m.NIC != nil {
		nic := *m.NIC
		set(&nic.Model, "virtio-net-pci")
		m.NIC = &nic
	}
	return m
}

var (
	idPattern   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,62}$`)
	wordPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$`)
	cpuPattern  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+,=-]{0,255}$`) // may carry features
	// No comma: the rest of it would be more options.
	displayPattern = regexp.MustCompile(`^(|vnc=127\.0\.0\.1:[0-9]{1,3}|vnc=unix:/[A-Za-z0-9._/+-]{1,100})$`)
	rtcPattern     = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2})?$`)
)

// Validate says what is wrong with the description, all of it at once.
func (m Machine) Validate() error {
	m = m.WithDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !idPattern.MatchString(m.Name) {
		bad("name %q: want a letter, then letters, digits, '-', '_' or '.', at most 63", m.Name)
	}
	if m.Accel != TCG && m.Accel != KVM {
		bad("accelerator %q: want %q or %q", m.Accel, TCG, KVM)
	}
	if !wordPattern.MatchString(m.Type) {
		bad("machine type %q has characters that no machine type has", m.Type)
	}
	if !cpuPattern.MatchString(m.CPU) {
		bad("CPU model %q has characters that no CPU model has", m.CPU)
	}
	if !rtcPattern.MatchString(m.RTCBase) {
		bad("clock base %q: want 2010-01-01T00:00:00", m.RTCBase)
	}
	if m.SMP < 1 || m.SMP > MaxSMP {
		bad("%d CPUs: want 1 to %d", m.SMP, MaxSMP)
	}
	if v := m.VGAMemMiB; v < 0 || v > 256 || v&(v-1) != 0 {
		bad("%d MiB of VGA memory: want a power of two from 1 to 256, or 0 for no adapter", v)
	}
	if m.TranslationMiB < 0 || m.TranslationMiB > 1024 {
		bad("%d MiB for translated code: want 1 to 1024, or 0 for QEMU's own choice", m.TranslationMiB)
	}
	if l := m.Lane; l != nil && (l.MiB < 2 || l.MiB > MaxLaneMiB) {
		bad("%d MiB of shared memory: want 2 to %d", l.MiB, MaxLaneMiB)
	}
	if !displayPattern.MatchString(m.Display) {
		bad("display %q: want vnc=unix:PATH or vnc=127.0.0.1:N", m.Display)
	}
	if f := m.Firmware; f != nil {
		errs = append(errs, checkPath("firmware", f.Code), checkPath("firmware's variables", f.Vars))
		if f.VarsFormat != "raw" && f.VarsFormat != "qcow2" || m.Type != "q35" {
			bad("firmware's variables of format %q on machine type %s: want raw or qcow2, on q35", f.VarsFormat, m.Type)
		}
	}
	errs = append(errs, m.Memory.validate(), m.validateBoot())
	errs = append(errs, m.validateDrives(), m.validatePorts(), m.validateNIC())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("machine %q: %w", m.Name, err)
	}
	return nil
}

func (m Memory) validate() error {
	switch {
	case m.MiB < 1 || m.MiB > MaxMemoryMiB:
		return fmt.Errorf("%d MiB of memory: want 1 to %d", m.MiB, MaxMemoryMiB)
	case m.File == "" && (m.Shared || m.ReadOnlyFile):
		return errors.New("shared or read-only memory needs a memory file")
	case m.Shared && m.ReadOnlyFile:
		return errors.New("memory can't be shared and read-only: the guest writes to it")
	case m.File != "":
		return checkPath("memory file", m.File)
	}
	return nil
}

func (m Machine) validateBoot() error {
	if m.Kernel == "" {
		if m.Initrd != "" || m.Append != "" {
			return errors.New("an initrd or a kernel command line needs a kernel")
		}
		return nil
	}
	err := checkPath("kernel", m.Kernel)
	if m.Initrd != "" {
		err = errors.Join(err, checkPath("initrd", m.Initrd))
	}
	// 2048 bytes is Linux's COMMAND_LINE_SIZE on x86; the rest would be cut off silently.
	if len(m.Append) >= 2048 || strings.ContainsAny(m.Append, "\n\x00") {
		err = errors.Join(err, errors.New("kernel command line: want less than 2048 bytes on one line"))
	}
	return err
}

func (m Machine) validateDrives() error {
	var errs []error
	if len(m.Drives) > MaxDrives {
		errs = append(errs, fmt.Errorf("%d drives: at most %d", len(m.Drives), MaxDrives))
	}
	seen, ide := map[string]bool{}, 0
	for _, d := range m.Drives {
		if d.Model == IDEDisk || d.Model == IDECD {
			ide++
		}
		// QEMU takes 31 bytes for the name of a block node, "drive-" included.
		if !idPattern.MatchString(d.ID) || len(d.ID) > 24 || seen[d.ID] {
			errs = append(errs, fmt.Errorf("drive id %q: want a unique one of at most 24 letters, digits, '-', '_', '.'", d.ID))
		}
		seen[d.ID] = true
		if d.Format != "raw" && d.Format != "qcow2" {
			errs = append(errs, fmt.Errorf("drive %s: format %q: want raw or qcow2", d.ID, d.Format))
		}
		if d.Model != VirtioBlk && d.Model != IDEDisk && d.Model != IDECD && (d.Model != Floppy || m.Type != "pc") {
			errs = append(errs, fmt.Errorf("drive %s: unknown model %q on machine type %s", d.ID, d.Model, m.Type))
		}
		if d.Boot < 0 || d.Boot > MaxDrives {
			errs = append(errs, fmt.Errorf("drive %s: boot order %d: want 1 to %d, or 0 for none", d.ID, d.Boot, MaxDrives))
		}
		if d.Serial != "" && (!wordPattern.MatchString(d.Serial) || len(d.Serial) > 20) {
			errs = append(errs, fmt.Errorf("drive %s: serial %q: want at most 20 letters, digits, '-'", d.ID, d.Serial))
		}
		errs = append(errs, checkPath("drive "+d.ID, d.File))
	}
	most := maxIDE
	if m.Type == "pc" {
		most = maxIDEPC
	}
	if ide > most {
		errs = append(errs, fmt.Errorf("%d IDE drives: the controller has %d ports", ide, most))
	}
	return errors.Join(errs...)
}

func (m Machine) validatePorts() error {
	var errs []error
	if len(m.Ports) > MaxPorts {
		errs = append(errs, fmt.Errorf("%d ports: at most %d", len(m.Ports), MaxPorts))
	}
	seen := map[string]bool{}
	for _, p := range m.Ports {
		if !idPattern.MatchString(p.Name) || seen[p.Name] {
			errs = append(errs, fmt.Errorf("port name %q: want a unique one of letters, digits, '-', '_', '.'", p.Name))
		}
		seen[p.Name] = true
	}
	return errors.Join(errs...)
}

func (m Machine) validateNIC() error {
	if m.NIC == nil {
		return nil
	}
	switch m.NIC.Model {
	case "virtio-net-pci", "e1000", "e1000e", "rtl8139":
	default:
		return fmt.Errorf("network adapter %q: want virtio-net-pci, e1000, e1000e or rtl8139", m.NIC.Model)
	}
	mac, err := net.ParseMAC(m.NIC.MAC)
	if err != nil || len(mac) != 6 || mac.String() != m.NIC.MAC || mac[0]&1 != 0 {
		return fmt.Errorf("MAC address %q: want a unicast one, written like 52:54:00:00:00:01", m.NIC.MAC)
	}
	return nil
}

func checkPath(what, path string) error {
	if !filepath.IsAbs(path) || len(path) > maxText || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%s: path %q: want an absolute one of at most %d bytes", what, path, maxText)
	}
	return nil
}
