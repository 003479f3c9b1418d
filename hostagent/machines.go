package hostagent

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"winvm/hostagent/doctor"
	"winvm/hostagent/guest"
	"winvm/hostagent/hostmem"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/machines"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
)

// Machine is this host as one of Nix's remote builders: what doctor finds must not be
// amiss, and there must be the memory for a pair of guest's defaults, or of memoryMiB.
func (h *Host) Machine(ctx context.Context, guestName string, memoryMiB int) (machines.Machine, error) {
	p, err := guest.Find(guestName)
	if err != nil {
		return machines.Machine{}, err
	}
	if memoryMiB == 0 {
		memoryMiB = p.Machine.MemoryMiB
	}
	if err := pair.CheckSize(p, memoryMiB, p.Machine.CPUs); err != nil {
		return machines.Machine{}, err
	}
	var missing []string
	for _, c := range h.Doctor(ctx) {
		if c.Status == doctor.Fail {
			missing = append(missing, c.Name)
		}
	}
	if len(missing) > 0 {
		return machines.Machine{}, fmt.Errorf("%w: this host lacks what is needed (%s); `hostagent doctor` says what to do", machines.ErrInvalid, strings.Join(missing, ", "))
	}
	acc, err := h.Accelerator(ctx, h.anyKernel())
	if err != nil {
		return machines.Machine{}, fmt.Errorf("%w: %w; make an image first, or say --accel kvm or --accel tcg before the command", machines.ErrInvalid, err)
	}
	mem, err := hostmem.Read()
	if err != nil {
		return machines.Machine{}, err
	}
	need := pair.MemoryNeed(&image.Image{Meta: image.Meta{MemoryMiB: memoryMiB, State: &image.State{LaneMiB: pair.LaneMiB}}})
	slots := machines.Slots(runtime.NumCPU(), mem.Total, need)
	if slots < 1 {
		return machines.Machine{}, fmt.Errorf("%w: a pair can come to take %d MiB, and this host has %d", machines.ErrInvalid, need>>20, mem.Total>>20)
	}
	return machines.Machine{System: "x86_64-linux", Slots: slots, Speed: 1, KVM: string(acc.Accel) == string(qemu.KVM)}, nil
}

// anyKernel is a kernel to probe KVM with: of an image; "" if there is none.
func (h *Host) anyKernel() string {
	names, err := h.Images().List()
	if err != nil || len(names) == 0 {
		return ""
	}
	return filepath.Join(h.Images().Dir(names[0]), pair.Controller, recipe.Kernel)
}
