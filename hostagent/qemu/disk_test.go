package qemu

import (
	"strings"
	"testing"
)

// installing is shaped like the machine of a guest at its install.
func installing(kind string) Machine {
	m := Machine{Name: "guest", Type: kind, Memory: Memory{MiB: 512}, NIC: &NIC{MAC: "52:54:00:77:76:01", Model: "rtl8139"}, VGAMemMiB: 16}
	m.Drives = []Drive{
		{ID: "system", Model: IDEDisk, File: "/i/guest.qcow2", Format: "qcow2", Boot: 1},
		{ID: "vendor", Model: IDECD, File: "/v.iso", Format: "raw", Boot: 2},
		{ID: "software", Model: IDECD, File: "/s.iso", Format: "raw"},
	}
	if kind == "pc" {
		m.Drives = append(m.Drives, Drive{ID: "floppy", Model: Floppy, File: "/f.img", Format: "raw", ReadOnly: true})
	} else {
		m.Firmware = &Firmware{Code: "/ovmf,code.fd", Vars: "/vars.qcow2", VarsFormat: "qcow2"}
	}
	return m
}

func TestArgsOfDisks(t *testing.T) {
	for kind, want := range map[string][]string{
		"q35": {
			"q35,dump-guest-core=off,vmport=off,pflash0=firmware,pflash1=variables",
			"driver=raw,node-name=firmware,read-only=on,file.driver=file,file.filename=/ovmf,,code.fd",
			"driver=qcow2,node-name=variables,read-only=off,file.driver=file,file.filename=/vars.qcow2",
			"ide-hd,id=disk-system,drive=drive-system,bus=ide.0,bootindex=1",
			"ide-cd,id=disk-vendor,drive=drive-vendor,bus=ide.1,bootindex=2",
			"ide-cd,id=disk-software,drive=drive-software,bus=ide.2",
			"-display none",
		},
		"pc": {
			"pc,dump-guest-core=off,vmport=off ",
			"ide-hd,id=disk-system,drive=drive-system,bus=ide.0,unit=0,bootindex=1",
			"ide-cd,id=disk-vendor,drive=drive-vendor,bus=ide.0,unit=1,bootindex=2",
			"ide-cd,id=disk-software,drive=drive-software,bus=ide.1,unit=0 ",
			"floppy,id=disk-floppy,drive=drive-floppy,drive-type=144",
		},
	} {
		m := installing(kind)
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		line := strings.Join(m.Args(), " ") + " "
		for _, part := range want {
			if !strings.Contains(line, part) {
				t.Errorf("%s: no %q in %s", kind, part, line)
			}
		}
	}
}

func TestIdentityOfFirmware(t *testing.T) {
	m := installing("q35")
	with := m.Identity()
	m.Firmware.Vars = "/elsewhere"
	if m.Identity() != with {
		t.Error("the path of the variables counts")
	}
	m.Firmware = nil
	if IdentityDiff(with, m.Identity()) == "" {
		t.Error("UEFI doesn't count")
	}
}

func TestDisksRefused(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		change func(*Machine)
		says   string
	}{
		"floppy on q35": {"q35", func(m *Machine) { m.Drives[2].Model = Floppy }, "unknown model"},
		"UEFI on pc":    {"pc", func(m *Machine) { m.Firmware = installing("q35").Firmware }, "on q35"},
		"relative":      {"q35", func(m *Machine) { m.Firmware.Vars = "vars" }, "absolute"},
		"format":        {"q35", func(m *Machine) { m.Firmware.VarsFormat = "vmdk" }, "raw or qcow2"},
		"boot order":    {"q35", func(m *Machine) { m.Drives[0].Boot = -1 }, "boot order -1"},
		"five on pc": {"pc", func(m *Machine) {
			m.Drives = append(m.Drives, Drive{ID: "a", Model: IDECD, File: "/a", Format: "raw"}, Drive{ID: "b", Model: IDECD, File: "/b", Format: "raw"})
		}, "has 4 ports"},
		"display":         {"q35", func(m *Machine) { m.Display = "gtk" }, "display"},
		"display's comma": {"q35", func(m *Machine) { m.Display = "vnc=unix:/a,b" }, "display"},
		"everywhere":      {"q35", func(m *Machine) { m.Display = "vnc=0.0.0.0:1" }, "display"},
	} {
		m := installing(c.kind)
		c.change(&m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	m := installing("q35")
	for _, d := range []string{"vnc=127.0.0.1:7", "vnc=unix:/run/x.sock"} {
		if m.Display = d; m.Validate() != nil {
			t.Errorf("%s: %v", d, m.Validate())
		}
	}
}
