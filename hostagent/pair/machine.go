package pair

import (
	"fmt"
	"path/filepath"

	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/qemu"
)

// Names of the VMs, of their directories in an image, and of the controller's port.
const (
	Controller = "controller"
	Guest      = "guest"
	Port       = "winvm.rpc"
)

// controllerAppend is the controller kernel's command line. lpj, tsc: no
// calibration, which takes long under emulation.
const controllerAppend = "console=ttyS0 quiet panic=-1 no_timer_check"

// LaneMiB is the memory that the controller shares with the host agent: 31 slots, as
// many as one share may have requests at work. It costs what of it is used.
const LaneMiB = 32

// laneAppend is added to the controller kernel's command line; see qemu.Lane.
const laneAppend = " swiotlb=noforce"

// screenMiB is the video memory for a text screen.
const screenMiB = 1

// Machines describes both VMs of an image as they are when its state is saved into
// or loaded from stateDir. laneMiB is the size of the shared-memory lane, 0 for none.
// It is a function of its arguments, and, under KVM, of the host's CPU.
func Machines(i *image.Image, p guest.Profile, accel, binary, stateDir string, laneMiB int, incoming bool) (controller, windows qemu.Machine) {
	host := ""
	if accel == string(qemu.KVM) {
		host = qemu.HostCPU()
	}
	common := func(name string) qemu.Machine {
		return qemu.Machine{
			Binary:   binary,
			Name:     name,
			Accel:    qemu.Accel(accel),
			Kernel:   i.Path(name, recipe.Kernel),
			Initrd:   filepath.Join(stateDir, name+".initrd"),
			Drives:   []qemu.Drive{{ID: "root", File: i.Path(name, recipe.Root), Format: "raw", ReadOnly: true}},
			Memory:   qemu.Memory{File: filepath.Join(stateDir, name+".memory"), Shared: !incoming},
			Incoming: incoming,
		}
	}
	controller = common(Controller)
	controller.SMP = 1
	controller.CPU = controllerCPU[accel]
	controller.HostCPU = host
	controller.Memory.MiB = i.ControllerMemory()
	controller.Append = controllerAppend
	controller.TranslationMiB = controllerTranslationMiB
	controller.NIC = &qemu.NIC{MAC: guest.ControllerMAC}
	controller.Ports = []qemu.Port{{Name: Port}}
	if laneMiB > 0 {
		controller.Lane = &qemu.Lane{MiB: laneMiB}
		controller.Append += laneAppend
	}

	windows = common(Guest)
	windows.SMP = i.CPUs
	windows.CPU = p.Machine.CPUModel[accel]
	windows.HostCPU = host
	windows.Memory.MiB = i.MemoryMiB
	windows.Append = p.Machine.Append
	windows.NIC = &qemu.NIC{MAC: guest.GuestMAC}
	windows.VGAMemMiB = screenMiB
	windows.TranslationMiB = guestTranslationMiB
	if p.Setup != nil {
		withDisk(&windows, p, filepath.Join(stateDir, GuestDisk), filepath.Join(stateDir, GuestVars))
	}
	return controller, windows
}

// Files of a guest that has a disk: in an image's directory for it as they were
// installed, in a state's as they were when it was saved. Each is an overlay of the one
// before.
const (
	GuestDisk = "guest.qcow2"
	GuestVars = "guest-vars.qcow2" // of UEFI
)

// firmwareCode is where Debian's package ovmf has UEFI.
const firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"

// FirmwareVars are the variables that a new guest begins with.
const FirmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"

// withDisk makes a machine that boots from a disk of its own.
func withDisk(m *qemu.Machine, p guest.Profile, disk, vars string) {
	m.Kernel, m.Initrd, m.Append = "", "", ""
	m.Type = "q35"
	if p.Machine.Disk == guest.DiskIDE {
		m.Type = "pc"
	}
	if p.Machine.Firmware == guest.FirmwareUEFI {
		m.Firmware = &qemu.Firmware{Code: firmwareCode, Vars: vars, VarsFormat: "qcow2"}
	}
	model := qemu.IDEDisk
	if p.Machine.Disk == guest.DiskVirtio {
		model = qemu.VirtioBlk
	}
	m.Drives = []qemu.Drive{{ID: "system", Model: model, File: disk, Format: "qcow2", Boot: 1}}
	m.NIC = &qemu.NIC{MAC: guest.GuestMAC, Model: p.Machine.NIC}
	m.VGAMemMiB = p.Machine.VGAMemMiB
	m.NoRNG = p.Machine.Disk != guest.DiskVirtio // Windows has no driver of its own for it
}

// controllerCPU is the controller's CPU model by accelerator.
var controllerCPU = map[string]string{"tcg": "qemu64", "kvm": "host"}

// What TCG may keep of the code it has translated. Without a bound it is 1 GiB. A few
// compilations fill 160 MiB of the guest's, and take no longer with 128; 32 were slower.
const (
	controllerTranslationMiB = 64
	guestTranslationMiB      = 128
)

// overheadMiB is what both QEMUs and the host agent take beside the VMs' memory: the
// translated code, and 56, 34 and 12 MiB that were measured of guest, controller and host
// agent (docs/performance.md), and a fifth more.
const overheadMiB = (guestTranslationMiB + controllerTranslationMiB + 56 + 34 + 12) * 6 / 5

// MemoryNeed is what a revived pair can come to take of the host's memory, in bytes,
// when both VMs have touched all of theirs.
func MemoryNeed(i *image.Image) int64 {
	return int64(i.MemoryMiB+i.ControllerMemory()+i.State.LaneMiB+overheadMiB) << 20
}

// CheckIdentity refuses to revive an image as other machines than were suspended.
func CheckIdentity(i *image.Image, controller, windows qemu.Machine) error {
	if err := i.CheckIdentity(Controller, i.State.Controller, controller.Identity()); err != nil {
		return err
	}
	return i.CheckIdentity(Guest, i.State.Guest, windows.Identity())
}

// minControllerMiB is what the controller needs to do its work at all.
const minControllerMiB = 256

// CheckControllerMemory refuses a controller that can't be.
func CheckControllerMemory(mib int) error {
	if mib != 0 && (mib < minControllerMiB || mib > qemu.MaxMemoryMiB) {
		return fmt.Errorf("--controller-memory %d: it can have %d to %d MiB", mib, minControllerMiB, qemu.MaxMemoryMiB)
	}
	return nil
}

// CheckSize refuses sizes that a profile can't have.
func CheckSize(p guest.Profile, memoryMiB, cpus int) error {
	if memoryMiB < p.Machine.MinMemory || memoryMiB > qemu.MaxMemoryMiB {
		return fmt.Errorf("--memory %d: guest %s can have %d to %d MiB", memoryMiB, p.Name, p.Machine.MinMemory, qemu.MaxMemoryMiB)
	}
	if cpus < 1 || cpus > p.Machine.MaxCPUs {
		return fmt.Errorf("--cpus %d: guest %s can have 1 to %d", cpus, p.Name, p.Machine.MaxCPUs)
	}
	return nil
}
