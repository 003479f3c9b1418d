package qemu

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strings"
)

// HostCPU is the text that says which CPU this host has, as far as a guest with CPU
// model "host" can tell: vendor, family, model, stepping and flags, of /proc/cpuinfo. The
// microcode's number isn't in it: an update that changes what the CPU can do changes the
// flags. It is "" if that can't be read.
//
// The flags are what Linux sees of them, some of its own making among them. So another
// kernel can make the text another one without need; it can't hide a difference that
// a guest would see.
func HostCPU() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	return parseCPU(f)
}

// parseCPU reads the first CPU.
func parseCPU(r io.Reader) string {
	values := map[string]string{}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 64<<10)
	for in.Scan() && in.Text() != "" { // an empty line ends a CPU
		key, value, _ := strings.Cut(in.Text(), ":")
		values[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	if values["flags"] == "" {
		return ""
	}
	flags := strings.Fields(values["flags"])
	slices.Sort(flags)
	return strings.Join([]string{
		values["vendor_id"], "family", values["cpu family"], "model", values["model"], "stepping", values["stepping"],
		"flags", strings.Join(flags, " "),
	}, " ")
}
