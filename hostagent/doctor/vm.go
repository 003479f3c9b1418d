package doctor

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"winvm/hostagent/image/recipe"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
)

func (h *host) qemu(ctx context.Context) Check {
	const hint = "apt-get install qemu-system-x86; --qemu or WINVM_QEMU names a binary elsewhere"
	r, err := qemu.ReadRelease(ctx, h.QEMU)
	if err != nil {
		return bad(Fail, hint, "%v", err)
	}
	h.version = r.Full
	return ok("%s", r)
}

// sandboxLimit is how long a QEMU without a machine may take.
const sandboxLimit = 10 * time.Second

// sandbox starts a QEMU that has no machine, in the sandbox that all VMs run in.
func (h *host) sandbox(ctx context.Context) Check {
	if h.version == "" {
		return bad(Warn, "see QEMU above", "can't be checked without QEMU")
	}
	args := (qemu.Machine{}).Args()
	i := slices.Index(args, "-sandbox")
	if i < 0 || i+1 == len(args) {
		return ok("not used")
	}
	ctx, cancel := context.WithTimeout(ctx, sandboxLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.QEMU, "-sandbox", args[i+1], "-machine", "none",
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "stdio")
	cmd.Stdin = strings.NewReader("quit\n")
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return bad(Fail, "take a QEMU that is built with seccomp, as Debian's is; in a container, allow seccomp filters",
			"QEMU does not start in it: %v: %.300s", err, said.String())
	}
	return ok("works")
}

func (h *host) accelerator(ctx context.Context) Check {
	kernel := h.anyKernel()
	r, err := h.Accelerator(ctx, kernel)
	switch {
	case err != nil && kernel == "":
		return bad(Warn, "make an image first: its kernel is what shows whether KVM runs VMs here", "unknown until an image exists")
	case err != nil:
		return bad(Fail, "--accel tcg does without KVM", "%v", err)
	}
	h.accel = string(r.Accel)
	if r.Accel != qemu.TCG || r.Reason == "asked for" {
		return ok("%s: %s", r.Accel, r.Reason)
	}
	return bad(Warn, kvmHint(), "%s, which is several times slower than KVM: %s", r.Accel, r.Reason)
}

// anyKernel is a kernel that is like the VMs': an image's, else one of the host's.
func (h *host) anyKernel() string {
	var candidates []string
	for _, i := range h.images {
		candidates = append(candidates, i.Path(pair.Controller, recipe.Kernel))
	}
	boot, _ := filepath.Glob("/boot/vmlinuz-*")
	for _, k := range append(candidates, boot...) {
		if f, err := os.Open(k); err == nil {
			_ = f.Close()
			return k
		}
	}
	return ""
}

// kvmHint says what to do about a KVM that does not work.
func kvmHint() string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case err == nil:
		_ = f.Close()
		return "everything works all the same; this is usual on a virtual machine: turn on nested virtualisation for it, or use another host"
	case os.IsPermission(err):
		return "add yourself to the group kvm (usermod -aG kvm USER) and log in again"
	default:
		return "turn on virtualisation in the firmware and load the module (modprobe kvm_intel or kvm_amd); in a container, pass /dev/kvm in"
	}
}
