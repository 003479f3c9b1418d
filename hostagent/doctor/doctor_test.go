package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"winvm/hostagent/accel"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/transport/needs"
)

// newConfig is of a host with helpers, a fake QEMU that behaves, and TCG.
func newConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	c := Config{
		StateDir: filepath.Join(dir, "state"), CacheDir: filepath.Join(dir, "cache"), LibexecDir: dir,
		Helpers: []string{"agent", "runner"},
		QEMU:    fakeQEMU(t, "7.2.22 (Debian)", "exit 0"),
		Accelerator: func(context.Context, string) (accel.Result, error) {
			return accel.Result{Accel: qemu.TCG, Reason: "there is no KVM"}, nil
		},
	}
	for _, f := range c.Helpers {
		script(t, filepath.Join(dir, f), "")
	}
	return c
}

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// fakeQEMU is a program that has a version, and otherwise does what a shell
// script says.
func fakeQEMU(t *testing.T, version, does string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	script(t, path, `[ "$1" != --version ] || { echo "QEMU emulator version `+version+`"; exit; }`+"\n"+does+"\n")
	return path
}

// addImage makes an image and, if accelerator isn't "", its state.
func addImage(t *testing.T, c Config, name, version, accelerator string) *image.Image {
	t.Helper()
	s := image.NewStore(c.StateDir)
	i, err := s.Create(t.Context(), name, func(dir string) (image.Meta, error) {
		vm := filepath.Join(dir, pair.Controller)
		if err := os.Mkdir(vm, 0o755); err != nil {
			return image.Meta{}, err
		}
		packages := []byte("# name\tversion\nsamba\t2:4.17.12\t1\t2\n")
		return image.Meta{Guest: "wine", MemoryMiB: 2048, CPUs: 1},
			errors.Join(os.WriteFile(filepath.Join(vm, recipe.Packages), packages, 0o600), os.WriteFile(filepath.Join(vm, recipe.Kernel), []byte("x"), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	if accelerator == "" {
		return i
	}
	err = s.Replace(t.Context(), i, func(string) (image.State, error) {
		return image.State{QEMU: version, Accel: accelerator}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// find runs all checks and returns one.
func find(t *testing.T, c Config, name string) Check {
	t.Helper()
	var names []string
	for _, check := range Run(t.Context(), c) {
		if check.Name == name {
			return check
		}
		names = append(names, check.Name)
	}
	t.Fatalf("no check %q among %q", name, names)
	return Check{}
}

func want(t *testing.T, c Check, s Status, says ...string) {
	t.Helper()
	if c.Status != s || (s == OK) != (c.Hint == "") || c.Found == "" {
		t.Errorf("got %+v, want %s with a hint if that isn't ok", c, s)
	}
	for _, text := range says {
		if !strings.Contains(c.Found+" -> "+c.Hint, text) {
			t.Errorf("%+v does not say %q", c, text)
		}
	}
}

func TestEveryCheckSaysWhatToDo(t *testing.T) {
	c := newConfig(t)
	c.QEMU, c.LibexecDir = "/no/such/qemu", "/no/such/dir"
	t.Setenv("PATH", "")
	for _, check := range append(Run(t.Context(), c), Run(t.Context(), newConfig(t))...) {
		want(t, check, check.Status)
		if check.Name == "" {
			t.Errorf("%+v has no name", check)
		}
	}
	if _, err := os.Stat(c.StateDir); err == nil {
		t.Error("looking made the state directory")
	}
}

func TestQEMU(t *testing.T) {
	c := newConfig(t)
	want(t, find(t, c, "QEMU"), OK, "7.2.22 (Debian)")
	c.QEMU = fakeQEMU(t, "5.2.0", "")
	want(t, find(t, c, "QEMU"), Fail, "5.2.0", "7.2 or newer", "apt-get install")
	want(t, find(t, c, "QEMU's sandbox"), Warn, "without QEMU")
	c.QEMU = filepath.Join(t.TempDir(), "none")
	want(t, find(t, c, "QEMU"), Fail, c.QEMU, "apt-get install qemu-system-x86", "WINVM_QEMU")
}

func TestSandbox(t *testing.T) {
	c := newConfig(t)
	c.QEMU = fakeQEMU(t, "8.0.0", `[ "$1 $2" = "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny" ] && read -r x && [ "$x" = quit ]`)
	want(t, find(t, c, "QEMU's sandbox"), OK)
	c.QEMU = fakeQEMU(t, "8.0.0", `echo "sandbox support is not enabled" >&2; exit 1`)
	want(t, find(t, c, "QEMU's sandbox"), Fail, "support is not enabled", "seccomp")
}

func TestSandboxOfTheRealQEMU(t *testing.T) {
	c := newConfig(t)
	c.QEMU = needs.Tool(t, qemu.DefaultBinary)
	want(t, find(t, c, "QEMU's sandbox"), OK)
}

func TestAccelerator(t *testing.T) {
	c := newConfig(t)
	answer := func(r accel.Result, err error) {
		c.Accelerator = func(context.Context, string) (accel.Result, error) { return r, err }
	}
	want(t, find(t, c, "accelerator"), Warn, "tcg", "slower", "there is no KVM")
	answer(accel.Result{Accel: qemu.TCG, Reason: "asked for"}, nil)
	want(t, find(t, c, "accelerator"), OK, "tcg")
	answer(accel.Result{Accel: qemu.KVM, Reason: "a normal kernel boots"}, nil)
	want(t, find(t, c, "accelerator"), OK, "kvm: a normal kernel boots")

	addImage(t, c, "wine", "7.2.22 (Debian)", "kvm")
	answer(accel.Result{}, errors.New("probe KVM: no luck"))
	want(t, find(t, c, "accelerator"), Fail, "no luck", "--accel tcg")
	var asked string
	c.Accelerator = func(_ context.Context, kernel string) (accel.Result, error) {
		asked = kernel
		return accel.Result{Accel: qemu.KVM}, nil
	}
	find(t, c, "accelerator")
	if !strings.HasSuffix(asked, "images/wine/controller/vmlinuz") {
		t.Errorf("probed with kernel %q, want the image's", asked)
	}
}

func TestImages(t *testing.T) {
	c := newConfig(t)
	want(t, find(t, c, "images"), Warn, "hostagent image create wine")
	const here = "7.2.22 (Debian)"
	addImage(t, c, "good", here, "tcg")
	addImage(t, c, "installed", "", "")
	addImage(t, c, "old", "7.0", "tcg")
	addImage(t, c, "kvm", here, "kvm")
	damaged := addImage(t, c, "damaged", here, "tcg")
	if err := os.Truncate(damaged.Path("image.json"), 3); err != nil {
		t.Fatal(err)
	}
	want(t, find(t, c, "image good"), OK, "wine", "2048 MiB", "tcg")
	want(t, find(t, c, "image installed"), Warn, "hostagent suspend installed")
	want(t, find(t, c, "image old"), Warn, "7.0", "hostagent suspend old")
	want(t, find(t, c, "image kvm"), Fail, "hostagent suspend kvm")
	want(t, find(t, c, "image damaged"), Warn, "hostagent image remove damaged")
	want(t, find(t, c, "Samba"), OK, "2:4.17.12", "image good")

	c.Accelerator = func(context.Context, string) (accel.Result, error) { return accel.Result{Accel: qemu.KVM}, nil }
	want(t, find(t, c, "image good"), Warn, "quicker", "hostagent suspend good")
	want(t, find(t, c, "image kvm"), OK)
	c.QEMU = "/no/such/qemu"
	want(t, find(t, c, "image good"), Warn, "can't be checked")
}

func TestHelpers(t *testing.T) {
	c := newConfig(t)
	want(t, find(t, c, "helper programs"), OK, "agent and runner")
	c.Helpers = append(c.Helpers, "missing")
	want(t, find(t, c, "helper programs"), Fail, "missing", "make build", "WINVM_LIBEXEC_DIR")
	if err := os.WriteFile(filepath.Join(c.LibexecDir, "missing"), nil, 0o755); err != nil { // of a full disk
		t.Fatal(err)
	}
	want(t, find(t, c, "helper programs"), Fail, "no program")
}

func TestTools(t *testing.T) {
	c := newConfig(t)
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	want(t, find(t, c, "tools for images"), Fail, "apt-get install", "mmdebstrap", "squashfs-tools")
	addImage(t, c, "wine", "7.2.22 (Debian)", "tcg") // builds can go on
	want(t, find(t, c, "tools for images"), Warn, "mmdebstrap")
	for _, r := range recipe.Names() {
		tools, err := recipe.Tools(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, tool := range tools {
			script(t, filepath.Join(dir, tool.Name), "")
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		want(t, find(t, c, "tools for images"), Warn, "apt-get install debian-archive-keyring")
		return
	}
	want(t, find(t, c, "tools for images"), OK, "all")
}

func TestOpenFiles(t *testing.T) {
	want(t, openFiles(1<<20, nil), OK, "1048576")
	want(t, openFiles(1024, nil), Warn, "1024", "ulimit")
	want(t, openFiles(0, errors.New("no")), Warn, "no")
}

func TestMemory(t *testing.T) {
	h := &host{}
	const text = "MemTotal:       8000000 kB\nMemFree:         1000 kB\nMemAvailable:    2000000 kB\nBuffers: 1 kB\n"
	want(t, h.compareMemory(text), OK, "1953 MiB", "a new image takes up to 1568 MiB")
	h.images = []*image.Image{{Meta: image.Meta{Name: "small", MemoryMiB: 512}}, {Meta: image.Meta{Name: "big", MemoryMiB: 2048}}}
	want(t, h.compareMemory(text), Warn, "image big takes up to 2592 MiB", "--memory")
	for _, broken := range []string{"", "MemFree: 1 kB\n", "\nMemAvailable: many kB\n"} {
		want(t, h.compareMemory(broken), Warn, "does not say")
	}
}

func TestDirectory(t *testing.T) {
	h := &host{}
	dir := t.TempDir()
	deep := filepath.Join(dir, "not", "yet")
	got := h.directory(deep, "--state-dir", "WINVM_STATE_DIR")
	if !strings.Contains(got.Found, deep+", ") || !strings.Contains(got.Found, "GB free") {
		t.Errorf("got %+v", got)
	}
	if _, err := os.Stat(filepath.Dir(deep)); err == nil {
		t.Error("looking made the directory")
	}
	script(t, filepath.Join(dir, "file"), "")
	want(t, h.directory(filepath.Join(dir, "file", "x"), "--state-dir", "WINVM_STATE_DIR"), Fail, "file", "--state-dir or WINVM_STATE_DIR")
	want(t, h.directory(filepath.Join(dir, "file"), "--state-dir", "WINVM_STATE_DIR"), Fail, "not a directory")
}

func TestKernelAndFUSE(t *testing.T) {
	// What they find depends on the host; that they find it does not.
	for _, c := range []Check{kernel(t.Context()), fuse(t.Context()), (&host{}).namespaces(t.Context())} {
		want(t, c, c.Status)
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	err := Print(&b, []Check{
		{Name: "QEMU", Status: OK, Found: "7.2"},
		{Name: "helper programs", Status: Fail, Found: "two\nlines", Hint: "make build"},
		{Name: "FUSE", Status: Warn, Found: "none", Hint: "modprobe fuse"},
	})
	want := "ok    QEMU             7.2\n" +
		"fail  helper programs  two lines\n" +
		"                       -> make build\n" +
		"warn  FUSE             none\n" +
		"                       -> modprobe fuse\n"
	if err != nil || b.String() != want {
		t.Errorf("got\n%swant\n%s(%v)", &b, want, err)
	}
}

func TestFailed(t *testing.T) {
	for s, want := range map[Status]bool{OK: false, Warn: false, Fail: true} {
		if got := Failed([]Check{{Status: OK}, {Status: s}}); got != want {
			t.Errorf("%s: got %v", s, got)
		}
	}
}
