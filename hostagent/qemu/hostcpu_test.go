package qemu

import (
	"strings"
	"testing"
)

const cpuinfo = `processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 85
model name	: Intel(R) Xeon(R)
stepping	: 7
microcode	: 0x1
cpu MHz		: 2000.000
flags		: sse2 avx fpu
bugs		: many

processor	: 1
flags		: other
`

func TestParseCPU(t *testing.T) {
	const want = "GenuineIntel family 6 model 85 stepping 7 flags avx fpu sse2"
	if got := parseCPU(strings.NewReader(cpuinfo)); got != want {
		t.Errorf("got %q", got)
	}
	for _, same := range []string{"microcode	: 0x2", "cpu MHz		: 3000"} {
		key, _, _ := strings.Cut(same, ":")
		text := ""
		for line := range strings.Lines(cpuinfo) {
			if strings.HasPrefix(line, key) {
				line = same + "\n"
			}
			text += line
		}
		if got := parseCPU(strings.NewReader(text)); got != want {
			t.Errorf("with %q: %q", same, got)
		}
	}
	for _, other := range [][2]string{{"avx", "avx2"}, {"model		: 85", "model		: 86"}, {"GenuineIntel", "AuthenticAMD"}} {
		if got := parseCPU(strings.NewReader(strings.Replace(cpuinfo, other[0], other[1], 1))); got == want || got == "" {
			t.Errorf("with %v: %q", other, got)
		}
	}
	if got := parseCPU(strings.NewReader("processor : 0\n")); got != "" {
		t.Errorf("of an unknown machine: %q", got)
	}
	if a := HostCPU(); a != HostCPU() || !strings.Contains(a, " flags ") {
		t.Errorf("this host: %q", a)
	}
}

// A state that depends on the host's CPU says which; one of a named model doesn't.
func TestIdentityOfHostCPU(t *testing.T) {
	m := Machine{Name: "x", Accel: KVM, Memory: Memory{MiB: 1}}
	if id := m.Identity(); !strings.Contains(id, "\nhost cpu unknown\n") {
		t.Errorf("of an unknown host: %s", id)
	}
	m.HostCPU = "Vendor family 1 flags a b"
	if id := m.Identity(); !strings.Contains(id, "\nhost cpu Vendor family 1 flags a b\n") {
		t.Errorf("got %s", id)
	}
	m.CPU = "host,-avx512f"
	if id := m.Identity(); !strings.Contains(id, "\nhost cpu Vendor") {
		t.Errorf("got %s", id)
	}
	m.CPU = "qemu64,+ssse3"
	if id := m.Identity(); strings.Contains(id, "host cpu") {
		t.Errorf("of a named model: %s", id)
	}
}
