// Package vmtest gives tests a guest: a Linux kernel of the machine's, and an initial
// RAM file system whose init is a small Go program that does what the kernel's command
// line says (see guestinit).
//
// The kernel is the file that WINVM_TEST_KERNEL names, or the newest /boot/vmlinuz-*.
// Its modules are looked for beside it: DIR/boot/vmlinuz-VERSION has them in
// DIR/lib/modules/VERSION, so a Debian kernel package unpacked anywhere will do. If
// WINVM_TEST_INITRD is set it is put first into the initial RAM file system; modules are
// then also looked for in it.
package vmtest

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"winvm/hostagent/qemu"
	"winvm/transport/needs"
)

// modules is what a guest may need, in the order in which it has to be loaded. What the
// kernel has built in isn't found, and isn't missed.
var modules = []string{
	"virtio_ring.ko", "virtio.ko", "virtio_pci_legacy_dev.ko", "virtio_pci_modern_dev.ko", "virtio_pci.ko",
	"virtio_console.ko", "failover.ko", "net_failover.ko", "virtio_net.ko", "af_packet.ko",
	"virtio_blk.ko", "rng-core.ko", "virtio-rng.ko", "pvpanic.ko", "pvpanic-mmio.ko",
}

// Kernel is a Linux kernel image; without one the test is skipped, or fails under CI.
func Kernel(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("WINVM_TEST_KERNEL"); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("WINVM_TEST_KERNEL: %v", err)
		}
		return path
	}
	found, _ := filepath.Glob("/boot/vmlinuz-*")
	for _, path := range found {
		if f, err := os.Open(path); err == nil { // Ubuntu's are for root only
			_ = f.Close()
			return path
		}
	}
	needs.Missing(t, "no kernel: set WINVM_TEST_KERNEL to the vmlinuz of Debian's linux-image-cloud-amd64, or install one")
	return ""
}

// Initrd makes the initial RAM file system in a directory of the test's.
func Initrd(t testing.TB) string {
	t.Helper()
	var archive bytes.Buffer
	if base := os.Getenv("WINVM_TEST_INITRD"); base != "" {
		data, err := os.ReadFile(base)
		if err != nil {
			t.Fatalf("WINVM_TEST_INITRD: %v", err)
		}
		archive.Write(data) // the kernel unpacks one archive after the other
		for archive.Len()%4 != 0 {
			archive.WriteByte(0)
		}
	}
	w := cpio.NewWriter(&archive)
	add := func(name string, mode cpio.FileMode, data []byte) {
		t.Helper()
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(data)), Links: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"dev", "proc", "sys", "winvm-modules"} {
		add(dir, cpio.TypeDir|0o755, nil)
	}
	// By the name "init" a base archive's own would be replaced; rdinit= names this one.
	add("winvm-init", cpio.TypeReg|0o755, buildInit(t))
	for name, data := range findModules(t, Kernel(t)) {
		add("winvm-modules/"+name, cpio.TypeReg|0o644, data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func buildInit(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command(needs.Tool(t, "go"), "build", "-ldflags=-s -w", "-o", out, "winvm/hostagent/vm/vmtest/guestinit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's init: %v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func findModules(t testing.TB, kernel string) map[string][]byte {
	t.Helper()
	version := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	root := filepath.Join(filepath.Dir(kernel), "..", "lib", "modules", version)
	found := map[string][]byte{}
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // no directory of modules: what needs them will say so
		}
		for i, m := range modules {
			if d.Name() == m {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				found[string(rune('a'+i))+"-"+m] = data // sorted by name = load order
			}
		}
		return nil
	})
	return found
}

// NeedsModules ends the test unless the guest can have virtio devices.
func NeedsModules(t testing.TB) {
	t.Helper()
	if os.Getenv("WINVM_TEST_INITRD") == "" && len(findModules(t, Kernel(t))) == 0 {
		needs.Missing(t, "no modules beside the kernel %s: want ../lib/modules/VERSION, or WINVM_TEST_INITRD", Kernel(t))
	}
}

// Machine describes a guest that does what do says; see guestinit.
func Machine(t testing.TB, name, do string) qemu.Machine {
	t.Helper()
	return qemu.Machine{
		Binary: needs.Tool(t, qemu.DefaultBinary), Name: name,
		Memory: qemu.Memory{MiB: 128},
		Kernel: Kernel(t), Initrd: Initrd(t),
		Append: "console=ttyS0 quiet rdinit=/winvm-init panic=-1 winvm.do=" + do,
	}
}
