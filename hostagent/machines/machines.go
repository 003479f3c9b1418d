// Package machines writes lines of Nix's file of remote builders, /etc/nix/machines.
package machines

import (
	"errors"
	"fmt"
	"strings"
)

// Feature is the system feature of machines that run Windows builds.
const Feature = "windows-vm"

// A Machine is one line.
type Machine struct {
	URI    string // as ssh-ng://root@HOST
	System string
	Key    string // path of the SSH key, on the machine with the file; "" = none named
	Slots  int
	Speed  int
	KVM    bool
}

// ErrInvalid is wrapped by the errors of machines that there can be no line for.
var ErrInvalid = errors.New("no line for /etc/nix/machines")

// Line is the line. Builds that don't ask for the feature are kept away: it is mandatory.
func (m Machine) Line() (string, error) {
	key := m.Key
	if key == "" {
		key = "-"
	}
	for what, s := range map[string]string{"URI": m.URI, "key": key, "system": m.System} {
		if s == "" || strings.ContainsAny(s, " \t\n#") {
			return "", fmt.Errorf("%w: the %s %q is empty, or has a blank or a #", ErrInvalid, what, s)
		}
	}
	if m.Slots < 1 || m.Speed < 1 {
		return "", fmt.Errorf("%w: %d builds at once, speed %d: both must be at least 1", ErrInvalid, m.Slots, m.Speed)
	}
	features := Feature
	if m.KVM {
		features = "kvm," + Feature
	}
	return fmt.Sprintf("%s %s %s %d %d %s %s -", m.URI, m.System, key, m.Slots, m.Speed, features, Feature), nil
}

// Slots is how many builds at once a host has CPUs and memory for, each of which can come
// to take so many bytes. A twentieth of the memory, 256 MiB at least, stays the host's, as in
// the queue of builds.
func Slots(cpus int, memory, need int64) int {
	memory -= max(memory/20, 256<<20)
	return min(cpus, int(memory/need))
}
