//go:build vmsuite

package inside_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
)

// kernelProfile tells in which of the kernel's functions most ticks of its clock
// came, from /proc/profile: the length of a step, then a count for each from _stext on.
func kernelProfile() string {
	counts, err := os.ReadFile("/proc/profile")
	if err != nil || len(counts) < 8 {
		return ""
	}
	text, _ := os.ReadFile("/proc/kallsyms")
	type symbol struct {
		at    uint64
		name  string
		ticks uint32
	}
	var all []symbol
	var start uint64
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		at, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil || len(f) > 3 || !strings.Contains("tTwW", f[1]) {
			continue
		}
		if f[2] == "_stext" {
			start = at
		}
		all = append(all, symbol{at: at, name: f[2]})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].at < all[j].at })
	step := uint64(binary.LittleEndian.Uint32(counts))
	for i := 4; i+4 <= len(counts); i += 4 {
		ticks := binary.LittleEndian.Uint32(counts[i:])
		if ticks == 0 {
			continue
		}
		at := start + uint64(i/4-1)*step
		n := sort.Search(len(all), func(i int) bool { return all[i].at > at })
		if n > 0 {
			all[n-1].ticks += ticks
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ticks > all[j].ticks })
	out := ""
	for _, s := range all[:min(len(all), 25)] {
		out += fmt.Sprintf("%6d %s\n", s.ticks, s.name)
	}
	return out
}
