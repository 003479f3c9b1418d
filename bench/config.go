package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"winvm/bench/lab"
	"winvm/hostagent/qemu"
)

// A config says what to measure and how thoroughly.
type config struct {
	filter   *regexp.Regexp // of WORKLOAD/SIDE
	samples  int
	sizes    sizes
	kernel   string
	accel    qemu.Accel
	cacheDir string
	profiles string // where CPU profiles of our side go; "" = there are none
	agent    string // the controller agent's program
	tcc      string // TinyCC for Windows; "" = nothing is compiled
	log      *slog.Logger
	tell     func(format string, args ...any) // progress
}

// sizes are how much work there is.
type sizes struct {
	bulk       int64 // bytes of the big file, and of what is written
	randReads  int
	dirs       int // of the tree
	perDir     int // files of 4,000 bytes in each
	toolchain  string
	storm      int
	tiny       int
	rawEchoes  int
	attachMany int // files of the closure whose attachment is timed

	smbBulk            int64 // the same, seen from the Windows guest
	smbDirs, smbPerDir int
	smbStorm           int
}

var (
	fullSizes = sizes{
		bulk: 128 << 20, randReads: 400, dirs: 20, perDir: 50, toolchain: "crypto",
		storm: 300, tiny: 300, rawEchoes: 1000, attachMany: 100_000,
		smbBulk: 32 << 20, smbDirs: 3, smbPerDir: 8, smbStorm: 10,
	}
	quickSizes = sizes{
		bulk: 16 << 20, randReads: 100, dirs: 5, perDir: 20, toolchain: "encoding",
		storm: 50, tiny: 100, rawEchoes: 200, attachMany: 0,
		smbBulk: 4 << 20, smbDirs: 2, smbPerDir: 5, smbStorm: 5,
	}
)

// scratchDir makes the directory that everything of a run lies in: in memory, if there
// is room, so that the disk is in nobody's figures.
func scratchDir() (string, error) {
	const parent = "/dev/shm"
	if free(parent) > 4<<30 {
		return os.MkdirTemp(parent, "winvm-bench.")
	}
	return os.MkdirTemp("", "winvm-bench.")
}

// wants reports whether a workload is to be measured on a side.
func (c *config) wants(workload, side string) bool {
	return c.filter == nil || c.filter.MatchString(workload+"/"+side)
}

// wantsAny reports whether any of the workloads is to be measured on a side.
func (c *config) wantsAny(list []workload, s lab.Side) bool {
	for _, w := range list {
		if w.has(s) && c.wants(w.id, s.ID) {
			return true
		}
	}
	return false
}

// elapsed tells progress with the time since the run began.
func elapsed(begin time.Time, w *os.File) func(format string, args ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(w, "bench: %4.0f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
}

// buildInside builds the program that measures in a VM.
func buildInside(ctx context.Context, dir, goos string) ([]byte, error) {
	out := filepath.Join(dir, "inside-"+goos)
	if err := goBuild(ctx, out, goos); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(out) }()
	return os.ReadFile(out)
}
