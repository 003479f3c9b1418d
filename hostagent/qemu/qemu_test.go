package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"winvm/transport/needs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// controller and guest are shaped like the two machines of a pair.
func controller() Machine {
	return Machine{
		Name:   "controller",
		Memory: Memory{MiB: 256, File: "/state/controller,1.mem", Shared: true},
		Kernel: "/image/vmlinuz", Initrd: "/image/initrd", Append: "console=ttyS0 quiet",
		Drives: []Drive{
			{ID: "root", File: "/image/root.squashfs", Format: "raw", ReadOnly: true, Serial: "root"},
			{ID: "work", File: "/run/a,b.qcow2", Format: "qcow2", Volatile: true},
		},
		NIC:       &NIC{MAC: "52:54:00:00:00:02", FD: 3},
		Ports:     []Port{{Name: "org.winvm.agent", FD: 4}, {Name: "org.winvm.bulk", FD: 5}},
		Lane:      &Lane{MiB: 32, FD: 8},
		ConsoleFD: 6, QMPFD: 7, TranslationMiB: 64,
	}
}

func revived() Machine {
	m := controller()
	m.Memory.Shared = false
	m.Memory.ReadOnlyFile = true
	m.Incoming = true
	return m
}

func xp() Machine {
	return Machine{
		Binary: "/usr/bin/qemu-system-x86_64", Name: "windows", Type: "pc-q35-7.2", Accel: KVM,
		CPU: "core2duo", SMP: 2, Memory: Memory{MiB: 1024},
		Drives: []Drive{
			{ID: "c", Model: IDEDisk, File: "/run/c.qcow2", Format: "qcow2"},
			{ID: "cd", Model: IDECD, File: "/media/xp.iso", Format: "raw"},
		},
		NIC:       &NIC{Model: "rtl8139", MAC: "52:54:00:00:00:01", FD: 3},
		VGAMemMiB: 16, NoRNG: true, AllowReboot: true, NoSandbox: true, Panic: true,
		RTCBase: "2012-02-03", QMPFD: 4, TranslationMiB: 64, // of no use under KVM
	}
}

func TestGolden(t *testing.T) {
	for name, m := range map[string]Machine{
		"controller": controller(), "revived": revived(), "xp": xp(),
		"minimal": {Name: "m", Memory: Memory{MiB: 64}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := m.Validate(); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".argv", strings.Join(m.Args(), "\n")+"\n")
			golden(t, name+".identity", m.Identity())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update to make it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs; if that is meant, run with -update\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestArgsDoNotTouchTheDescription(t *testing.T) {
	m := controller()
	_, _, _ = m.Args(), m.Identity(), m.Command()
	if m.Type != "" || m.Drives[0].Model != "" || m.NIC.Model != "" {
		t.Fatalf("defaults were written into the caller's description: %+v", m)
	}
}

// What differs between suspend and revive by design is not in the identity;
// everything that would make a load fail, or hang, is.
func TestIdentity(t *testing.T) {
	base := controller().Identity()
	same := map[string]func(*Machine){
		"shared memory": func(m *Machine) { m.Memory.Shared = false; m.Incoming = true },
		"memory path":   func(m *Machine) { m.Memory.File = "/elsewhere" },
		"descriptors":   func(m *Machine) { m.NIC.FD = 40; m.Ports[0].FD = 41; m.QMPFD = 42; m.ConsoleFD = 43; m.Lane.FD = 44 },
		"overlay":       func(m *Machine) { m.Drives[0].File = "/tmp/o"; m.Drives[0].Format = "qcow2" },
		"kernel path":   func(m *Machine) { m.Kernel = "/k" },
		"defaults":      func(m *Machine) { *m = m.WithDefaults() },
		"name, sandbox": func(m *Machine) { m.Name = "x"; m.NoSandbox = true; m.Binary = "/q" },
	}
	for name, change := range same {
		m := controller()
		change(&m)
		if d := IdentityDiff(base, m.Identity()); d != "" || m.IdentityDigest() != controller().IdentityDigest() {
			t.Errorf("%s: must not matter, but: %s", name, d)
		}
	}
	differ := map[string]func(*Machine){
		"accel":     func(m *Machine) { m.Accel = KVM; m.CPU = "qemu64" },
		"cpu":       func(m *Machine) { m.CPU = "max" },
		"smp":       func(m *Machine) { m.SMP = 2 },
		"memory":    func(m *Machine) { m.Memory.MiB++ },
		"type":      func(m *Machine) { m.Type = "pc" },
		"mac":       func(m *Machine) { m.NIC.MAC = "52:54:00:00:00:03" },
		"nic model": func(m *Machine) { m.NIC.Model = "e1000" },
		"no nic":    func(m *Machine) { m.NIC = nil },
		"order":     func(m *Machine) { slices.Reverse(m.Drives) },
		"ports":     func(m *Machine) { slices.Reverse(m.Ports) },
		"serial":    func(m *Machine) { m.Drives[0].Serial = "other" },
		"append":    func(m *Machine) { m.Append += " x" },
		"vga":       func(m *Machine) { m.VGAMemMiB = 2 },
		"rng":       func(m *Machine) { m.NoRNG = true },
		"lane":      func(m *Machine) { m.Lane.MiB = 64 },
		"no lane":   func(m *Machine) { m.Lane = nil },
	}
	for name, change := range differ {
		m := controller()
		change(&m)
		if IdentityDiff(base, m.Identity()) == "" || m.IdentityDigest() == controller().IdentityDigest() {
			t.Errorf("%s: must matter", name)
		}
	}
	m := controller()
	m.CPU = "max"
	if got := IdentityDiff(base, m.Identity()); got != `saved with "cpu qemu64", now "cpu max"` {
		t.Errorf("diff: %s", got)
	}
}

func TestValidateRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Machine)
		want   string
	}{
		"name":          {func(m *Machine) { m.Name = "a,b" }, "name"},
		"no memory":     {func(m *Machine) { m.Memory = Memory{} }, "memory"},
		"huge memory":   {func(m *Machine) { m.Memory.MiB = 1 << 30 }, "memory"},
		"shared anon":   {func(m *Machine) { m.Memory = Memory{MiB: 1, Shared: true} }, "memory file"},
		"shared ro":     {func(m *Machine) { m.Memory.ReadOnlyFile = true }, "read-only"},
		"relative":      {func(m *Machine) { m.Memory.File = "mem" }, "absolute"},
		"accel":         {func(m *Machine) { m.Accel = "xen" }, "accelerator"},
		"cpu":           {func(m *Machine) { m.CPU = "max -x" }, "CPU model"},
		"smp":           {func(m *Machine) { m.SMP = 1000 }, "CPUs"},
		"type":          {func(m *Machine) { m.Type = "q35,x=y" }, "machine type"},
		"translation":   {func(m *Machine) { m.TranslationMiB = 2048 }, "translated code"},
		"vga":           {func(m *Machine) { m.VGAMemMiB = 3 }, "power of two"},
		"rtc":           {func(m *Machine) { m.RTCBase = "now,x" }, "clock"},
		"initrd alone":  {func(m *Machine) { m.Kernel = "" }, "needs a kernel"},
		"append":        {func(m *Machine) { m.Append = strings.Repeat("x", 2048) }, "2048"},
		"drive id":      {func(m *Machine) { m.Drives[1].ID = "root" }, "unique"},
		"drive format":  {func(m *Machine) { m.Drives[0].Format = "" }, "raw or qcow2"},
		"drive model":   {func(m *Machine) { m.Drives[0].Model = "nvme,x" }, "model"},
		"drive serial":  {func(m *Machine) { m.Drives[0].Serial = "a,b" }, "serial"},
		"drives":        {func(m *Machine) { m.Drives = make([]Drive, 17) }, "at most 16"},
		"ide":           {func(m *Machine) { m.Drives = make([]Drive, 7); m.Drives[0].Model = IDEDisk }, "drive id"},
		"port":          {func(m *Machine) { m.Ports[1].Name = m.Ports[0].Name }, "unique"},
		"ports":         {func(m *Machine) { m.Ports = make([]Port, 31) }, "at most 30"},
		"mac":           {func(m *Machine) { m.NIC.MAC = "01:54:00:00:00:01" }, "unicast"},
		"mac separator": {func(m *Machine) { m.NIC.MAC = "52-54-00-00-00-01" }, "unicast"},
		"lane":          {func(m *Machine) { m.Lane.MiB = 1 }, "shared memory"},
		"nic":           {func(m *Machine) { m.NIC.Model = "ne2k" }, "adapter"},
	} {
		m := controller()
		tc.change(&m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want something with %q", name, err, tc.want)
		}
	}
}

func TestCommandIsQuoted(t *testing.T) {
	m := Machine{Name: "m", Memory: Memory{MiB: 64}, Kernel: "/a b", Append: "it's"}
	if got := m.Command(); !strings.Contains(got, `-kernel '/a b' -append 'it'\''s' `) {
		t.Fatal(got)
	}
}

func TestSerialSize(t *testing.T) {
	// One port: numbers 0 and 1, and control: six queues, and one vector more.
	if p, v := serialSize(1); p != 2 || v != 7 {
		t.Fatalf("got %d ports and %d vectors", p, v)
	}
}

func TestParseRelease(t *testing.T) {
	v, err := ParseRelease("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright\n")
	want := Release{7, 2, 22, "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"}
	if err != nil || v != want {
		t.Fatalf("got %+v, %v", v, err)
	}
	if v, err = ParseRelease("QEMU emulator version 10.0"); err != nil || v.Major != 10 || v.Full != "10.0" {
		t.Fatalf("got %+v, %v", v, err)
	}
	if !v.AtLeast(8, 2) || !want.AtLeast(7, 2) || want.AtLeast(7, 3) || want.AtLeast(8, 0) {
		t.Fatal("AtLeast")
	}
	for _, bad := range []string{"", "QEMU", "bash 5.2", "QEMU emulator version 99999999999999999999.1"} {
		if _, err := ParseRelease(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestReadRelease(t *testing.T) {
	bin := needs.Tool(t, DefaultBinary)
	v, err := ReadRelease(t.Context(), bin)
	if err != nil || !v.AtLeast(7, 2) {
		t.Fatalf("got %+v, %v", v, err)
	}
	if text, err := Version(t.Context(), bin); err != nil || text != v.Full {
		t.Fatalf("got %q, %v", text, err)
	}
}

func TestReadReleaseOfSomethingElse(t *testing.T) {
	script := func(text string) string {
		path := filepath.Join(t.TempDir(), "qemu")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		"/nonexistent/qemu":                           "is QEMU installed?",
		script("echo broken >&2; exit 3"):             "broken",
		script("echo hello"):                          "no QEMU version",
		script("echo QEMU emulator version 6.1.0"):    "7.2 or newer is needed",
		script("yes aaaaaaaaaaaaaaaa | head -100000"): "no QEMU version",
	} {
		if _, err := ReadRelease(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}
