package nixtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"winvm/transport/needs"
)

// The image's script is run with a kernel and a busybox of Debian's and a "Samba" of a few
// files that refer to each other as store paths do. It is not booted.
func TestControllerImage(t *testing.T) {
	for _, tool := range []string{"mksquashfs", "unsquashfs", "cpio", "depmod", "modprobe", "busybox"} {
		needs.Tool(t, tool)
	}
	kernel := needs.Env(t, "WINVM_TEST_KERNEL", "a kernel; `make test` fetches one")
	release := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	dir := t.TempDir()
	samba, busybox := filepath.Join(dir, "abc-samba"), filepath.Join(dir, "busybox")
	must(t, writeAll(map[string]string{
		filepath.Join(samba, "lib/vfs/glusterfs_fuse.so"): "\x7fELF\x00/nix/store/abc-samba/lib\x00end",
		filepath.Join(dir, "closure"):                     samba + "\n",
	}))
	for _, p := range []string{"bin/smbpasswd", "bin/pdbedit", "bin/testparm", "bin/smbcontrol", "bin/smbstatus", "sbin/smbd"} {
		must(t, writeAll(map[string]string{filepath.Join(samba, p): "#!/bin/sh\n"}))
	}
	must(t, os.Symlink("/nix/store/abc-samba/lib", filepath.Join(samba, "link")))
	must(t, os.MkdirAll(filepath.Join(busybox, "bin"), 0o755))
	b, err := exec.LookPath("busybox")
	must(t, err)
	must(t, os.Symlink(b, filepath.Join(busybox, "bin/busybox")))

	recipe, err := filepath.Abs(filepath.Join("../..", recipeDir))
	must(t, err)
	out := filepath.Join(dir, "out")
	image := func() (string, error) {
		cmd := exec.Command("sh", "../controller-image.sh")
		cmd.Env = append(os.Environ(), "out="+out, "recipe="+recipe, "kernel="+kernel, "release="+release,
			"modules="+filepath.Dir(filepath.Dir(kernel)), "busybox="+busybox, "samba="+samba, "closure="+filepath.Join(dir, "closure"))
		b, err := cmd.CombinedOutput()
		return string(b), err
	}
	if b, err := image(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	root := filepath.Join(dir, "root")
	if b, err := exec.Command("unsquashfs", "-n", "-q", "-d", root, filepath.Join(out, "root.squashfs")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	got, err := os.ReadFile(filepath.Join(root, "ctl/store/abc-samba/lib/vfs/glusterfs_fuse.so"))
	if err != nil || string(got) != "\x7fELF\x00/ctl/store/abc-samba/lib\x00end" {
		t.Errorf("%v: %q", err, got)
	}
	for link, want := range map[string]string{
		"ctl/store/abc-samba/link": "/ctl/store/abc-samba/lib",
		"usr/bin/smbd":             "/ctl/store/abc-samba/sbin/smbd",
		"usr/bin/smbpasswd":        "/ctl/store/abc-samba/bin/smbpasswd",
		"usr/bin/sh":               "/usr/bin/busybox",
	} {
		if got, err := os.Readlink(filepath.Join(root, link)); err != nil || got != want {
			t.Errorf("%s: %v: %q, not %q", link, err, got, want)
		}
	}
	if names, err := os.ReadDir(filepath.Join(root, "nix/store")); err != nil || len(names) != 0 {
		t.Errorf("where the guest's store is mounted: %v, %v", names, err)
	}
	initrd, err := exec.Command("sh", "-c", "cpio -t <"+filepath.Join(out, "initrd")).Output()
	must(t, err)
	for _, want := range []string{"init\n", "-fuse.ko\n", "-virtio_console.ko\n", "-squashfs.ko\n"} {
		if !strings.Contains(string(initrd), want) {
			t.Errorf("the initrd lacks %q: %s", want, initrd)
		}
	}
	for _, f := range []string{"vmlinuz", "packages.txt"} {
		if st, err := os.Stat(filepath.Join(out, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}

	must(t, os.Remove(filepath.Join(samba, "sbin/smbd")))
	if b, err := image(); err == nil || !strings.Contains(b, "has no smbd") {
		t.Errorf("a Samba without smbd: %v: %s", err, b)
	}
}
