package setup_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"winvm/transport/needs"
)

// The kernel modules that the stand-in loads: what the machines of the profiles have.
var standinModules = []string{
	"ahci", "ata_piix", "sd_mod", "sr_mod", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "floppy", "e1000e", "8139cp", "virtio_pci", "virtio_blk", "virtio_net",
}

// A standin says what medium to make.
type standin struct {
	answer string // file that its setup reads
	key    string // product key that it wants
	fault  string // see the program
	askKey bool   // the boot loader asks for a key
	arch   string // of the image file, as Windows numbers it
	ed     string // edition
	build  string
	old    bool // a medium of XP's time
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(needs.Tool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %.2000s", name, err, out)
	}
}

func put(t *testing.T, data []byte, elem ...string) {
	t.Helper()
	p := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, p string) []byte {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bootable makes an image that GRUB boots under a BIOS and UEFI, from a CD or a disk.
func bootable(t *testing.T, dir, kernel string, initrd []byte, grub string) string {
	t.Helper()
	put(t, get(t, kernel), dir, "boot", "vmlinuz")
	put(t, initrd, dir, "boot", "initrd")
	put(t, []byte(grub), dir, "boot", "grub", "grub.cfg")
	img := filepath.Join(t.TempDir(), "image")
	command(t, "grub-mkrescue", "-o", img, "--locales=", "--fonts=", "--themes=", dir)
	return img
}

// makeStandin makes the medium.
func makeStandin(t *testing.T, kernel string, s standin) string {
	t.Helper()
	for _, tool := range []string{"grub-mkrescue", "xorriso", "mformat", "wimlib-imagex", "7zz"} {
		needs.Tool(t, tool)
	}
	for _, dir := range []string{"/usr/lib/grub/i386-pc", "/usr/lib/grub/x86_64-efi"} {
		if _, err := os.Stat(dir); err != nil {
			needs.Missing(t, "%v: install grub-pc-bin and grub-efi-amd64-bin", err)
		}
	}
	initrd := standinInitrd(t, kernel)
	line := func(phase string) string {
		return fmt.Sprintf("linux /boot/vmlinuz console=ttyS0 quiet panic=-1 rdinit=/init standin.phase=%s standin.answer=%s standin.key=%s standin.fault=%s\ninitrd /boot/initrd\nboot\n",
			phase, s.answer, s.key, s.fault)
	}
	disk := bootable(t, t.TempDir(), kernel, initrd, line("installed"))
	dir := t.TempDir()
	if err := os.Rename(disk, filepath.Join(dir, "installed.img")); err != nil {
		t.Fatal(err)
	}
	if s.old {
		put(t, nil, dir, "WIN51IP")
		put(t, nil, dir, "I386", "TXTSETUP.SIF")
	} else {
		if err := os.Mkdir(filepath.Join(dir, "sources"), 0o755); err != nil {
			t.Fatal(err)
		}
		src := t.TempDir()
		command(t, "wimlib-imagex", "capture", src, filepath.Join(dir, "sources", "install.wim"), "Stand-in "+s.ed,
			"--image-property", "WINDOWS/ARCH="+s.arch, "--image-property", "WINDOWS/EDITIONID="+s.ed, "--image-property", "WINDOWS/VERSION/BUILD="+s.build)
	}
	grub := line("setup")
	if s.askKey {
		grub = "echo \"Press any key to boot from CD or DVD.....\"\nread key\n" + grub
	}
	// GRUB finds its own image by the time at which that was made, in seconds.
	time.Sleep(1100 * time.Millisecond)
	return bootable(t, dir, kernel, initrd, grub)
}

// standinInitrd has the program and the modules.
func standinInitrd(t *testing.T, kernel string) []byte {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command(needs.Tool(t, "go"), "build", "-ldflags=-s -w", "-o", bin, "winvm/hostagent/setup/standin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	add := func(name string, mode cpio.FileMode, data []byte) {
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(data)), Links: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"dev", "proc", "sys", "mnt", "modules"} {
		add(d, cpio.TypeDir|0o755, nil)
	}
	add("init", cpio.TypeReg|0o755, get(t, bin))
	for i, m := range modulePaths(t, kernel) {
		add(fmt.Sprintf("modules/%03d-%s", i, filepath.Base(m)), cpio.TypeReg|0o644, get(t, m))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// modulePaths are the modules with what they need, each behind what it needs.
func modulePaths(t *testing.T, kernel string) []string {
	t.Helper()
	version := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	root := filepath.Join(filepath.Dir(kernel), "..")
	files := map[string]string{}
	dir := filepath.Join(root, "lib", "modules", version)
	_ = filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".ko") {
			files[strings.ReplaceAll(strings.TrimSuffix(filepath.Base(p), ".ko"), "-", "_")] = p
		}
		return nil
	})
	var out []string
	seen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		p := files[name]
		if p == "" || seen[name] {
			return
		}
		seen[name] = true
		deps, err := exec.Command(needs.Tool(t, "modinfo"), "-F", "depends", p).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range strings.FieldsFunc(strings.TrimSpace(string(deps)), func(r rune) bool { return r == ',' }) {
			add(strings.ReplaceAll(d, "-", "_"))
		}
		out = append(out, p)
	}
	for _, m := range standinModules {
		add(m)
	}
	return out
}

// fakeOpenSSH is a zip that is taken for one of Win32-OpenSSH.
func fakeOpenSSH(t *testing.T) (file, digest string) {
	t.Helper()
	pe := make([]byte, 512)
	copy(pe, "MZ")
	pe[0x3c] = 0x80
	copy(pe[0x80:], "PE\x00\x00\x64\x86")
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, data := range map[string][]byte{"OpenSSH-Win64/sshd.exe": pe, "OpenSSH-Win64/install-sshd.ps1": []byte("# a test's")} {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "OpenSSH-Win64.zip")
	put(t, b.Bytes(), file)
	sum := sha256.Sum256(b.Bytes())
	return file, hex.EncodeToString(sum[:])
}

// fakeCygwin is a local mirror.
func fakeCygwin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	data := []byte("a package")
	var ini strings.Builder
	ini.WriteString("release: cygwin\narch: x86\n")
	for _, name := range []string{"openssh", "cygrunsrv"} {
		path := "x86/release/" + name + "/" + name + "-1.tar.xz"
		put(t, data, dir, path)
		fmt.Fprintf(&ini, "\n@ %s\ncategory: Net\nversion: 1\ninstall: %s %d %x\n", name, path, len(data), sha256.Sum256(data))
	}
	put(t, []byte(ini.String()), dir, "setup.ini")
	put(t, []byte("MZ"), dir, "setup.exe")
	return dir
}
