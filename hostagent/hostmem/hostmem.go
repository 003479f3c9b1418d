// Package hostmem reads what memory processes take and the host has left.
//
// All values are in bytes, and of one moment. What can't be read is an error, never
// zero.
package hostmem

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Use is what a process takes: proc(5), smaps_rollup.
type Use struct {
	PSS int64 // its own pages and its part of those it shares
	Own int64 // pages that only it has and that can't be read again from a file
}

// Of is the use of a process.
func Of(pid int) (Use, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Use{}, err
	}
	defer func() { _ = f.Close() }()
	return parseRollup(f)
}

func parseRollup(r io.Reader) (Use, error) {
	var u Use
	err := fields(r, map[string]*int64{"Pss:": &u.PSS, "Private_Dirty:": &u.Own})
	return u, err
}

// Host is the host's memory.
type Host struct {
	Total     int64
	Available int64 // what can be had without swapping, as the kernel sees it
}

// Read is the host's memory, or less if the control group of this process, or one it
// lies in, may have less.
func Read() (Host, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return Host{}, err
	}
	defer func() { _ = f.Close() }()
	var h Host
	if err := fields(f, map[string]*int64{"MemTotal:": &h.Total, "MemAvailable:": &h.Available}); err != nil {
		return Host{}, fmt.Errorf("/proc/meminfo: %w", err)
	}
	own, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			h = limit(h, "/sys/fs/cgroup", path)
		}
	}
	return h, nil
}

// limit applies the limits of a control group (version 2) and of those above it.
func limit(h Host, root, path string) Host {
	for p := filepath.Clean("/" + path); ; p = filepath.Dir(p) {
		dir := filepath.Join(root, p)
		most, err := number(filepath.Join(dir, "memory.max"))
		used, err2 := number(filepath.Join(dir, "memory.current"))
		if err == nil && err2 == nil { // "max" is no number
			var cache int64 // goes when it has to
			if f, err := os.Open(filepath.Join(dir, "memory.stat")); err == nil {
				_ = fields(f, map[string]*int64{"inactive_file": &cache})
				_ = f.Close()
			}
			h.Total = min(h.Total, most)
			h.Available = max(0, min(h.Available, most-used+cache))
		}
		if p == "/" {
			return h
		}
	}
}

func number(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// fields reads the values of lines "NAME N kB", or "NAME N", and insists on all of
// them.
func fields(r io.Reader, want map[string]*int64) error {
	found := 0
	for s := bufio.NewScanner(r); s.Scan() && found < len(want); {
		f := strings.Fields(s.Text())
		if len(f) < 2 || want[f[0]] == nil {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return fmt.Errorf("%q: %w", s.Text(), err)
		}
		if len(f) == 3 && f[2] == "kB" {
			n <<= 10
		}
		*want[f[0]] = n
		found++
	}
	if found < len(want) {
		return fmt.Errorf("only %d of %d values are there", found, len(want))
	}
	return nil
}
