package machines

import (
	"errors"
	"testing"
)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		m    Machine
		want string
	}{
		{Machine{URI: "ssh-ng://root@a", System: "x86_64-linux", Slots: 4, Speed: 1}, "ssh-ng://root@a x86_64-linux - 4 1 windows-vm windows-vm -"},
		{Machine{URI: "ssh://b", System: "x86_64-linux", Key: "/etc/nix/key", Slots: 2, Speed: 3, KVM: true}, "ssh://b x86_64-linux /etc/nix/key 2 3 kvm,windows-vm windows-vm -"},
	} {
		if got, err := c.m.Line(); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v; want %q", c.m, got, err, c.want)
		}
	}
	for _, m := range []Machine{
		{System: "x86_64-linux", Slots: 1, Speed: 1},
		{URI: "a b", System: "x86_64-linux", Slots: 1, Speed: 1},
		{URI: "a", System: "x86_64-linux", Key: "a\nb", Slots: 1, Speed: 1},
		{URI: "a", System: "x86_64-linux", Speed: 1},
		{URI: "a", System: "x86_64-linux", Slots: 1},
	} {
		if line, err := m.Line(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %q, %v", m, line, err)
		}
	}
}

func TestSlots(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		cpus         int
		memory, need int64
		want         int
	}{
		{8, 64 * gib, 2 * gib, 8},
		{8, 10 * gib, 2 * gib, 4},
		{8, 2 * gib, 2 * gib, 0},
		{2, gib / 8, gib, 0},
	} {
		if got := Slots(c.cpus, c.memory, c.need); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
