package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Identity is the canonical text of what has to be equal between the machine that
// was suspended and the one that is revived: one property a line, in the order of
// the devices. It is meant to be stored with the state and compared as text; a
// difference between two of them can be shown to a person (see [IdentityDiff]).
//
// The accelerator is part of it: a state of TCG isn't one of KVM. With CPU model "host"
// so is the host's CPU.
//
// Whether there is a kernel and an initrd counts, because they make memory blocks
// of their own; their paths don't. The kernel's command line counts. The console
// isn't named: hostagent/vm gives every machine one.
func (m Machine) Identity() string {
	m = m.WithDefaults()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("winvm machine 1")
	line("machine %s", m.Type)
	line("accel %s", m.Accel)
	line("cpu %s", m.CPU)
	if m.followsHost() {
		host := m.HostCPU
		if host == "" {
			host = "unknown"
		}
		line("host cpu %s", host)
	}
	line("smp %d", m.SMP)
	line("memory %d MiB, file %s", m.Memory.MiB, onOff(m.Memory.File != ""))
	line("rtc %s", m.RTCBase)
	line("kernel %s, initrd %s, append %q", onOff(m.Kernel != ""), onOff(m.Initrd != ""), m.Append)
	if m.Firmware != nil {
		line("firmware uefi")
	}
	line("vga %d MiB", m.VGAMemMiB)
	for i, d := range m.Drives {
		line("drive %d %s %s read-only=%s serial=%q", i, d.ID, d.Model, onOff(d.ReadOnly), d.Serial)
	}
	if m.NIC != nil {
		line("nic %s %s", m.NIC.Model, m.NIC.MAC)
	}
	for i, p := range m.Ports {
		line("port %d %s", i+1, p.Name)
	}
	if m.Lane != nil {
		line("lane %d MiB", m.Lane.MiB)
	}
	line("rng %s", onOff(!m.NoRNG))
	line("pvpanic %s", onOff(m.Panic))
	return b.String()
}

// followsHost reports whether the guest sees the host's own CPU.
func (m Machine) followsHost() bool {
	model, _, _ := strings.Cut(m.CPU, ",")
	return model == "host" || model == "max" && m.Accel == KVM
}

// IdentityDigest is the SHA-256 of [Machine.Identity], in hexadecimal.
func (m Machine) IdentityDigest() string {
	sum := sha256.Sum256([]byte(m.Identity()))
	return hex.EncodeToString(sum[:])
}

// IdentityDiff says in one line what differs between two identities; it is empty
// if nothing does.
func IdentityDiff(saved, now string) string {
	was, is := strings.Split(saved, "\n"), strings.Split(now, "\n")
	var diffs []string
	for _, l := range missing(was, is) {
		diffs = append(diffs, "saved with "+fmt.Sprintf("%q", l))
	}
	for _, l := range missing(is, was) {
		diffs = append(diffs, "now "+fmt.Sprintf("%q", l))
	}
	if len(diffs) == 0 && saved != now {
		return "the same properties in another order"
	}
	return strings.Join(diffs, ", ")
}

// missing is what of a isn't in b.
func missing(a, b []string) (out []string) {
	in := make(map[string]bool, len(b))
	for _, l := range b {
		in[l] = true
	}
	for _, l := range a {
		if !in[l] {
			out = append(out, l)
		}
	}
	return out
}
