package storefs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/hostagent/nixstore"
	"winvm/transport/fsrpc"
	"winvm/transport/needs"
)

// scaleArg makes the test binary the mounting process of BenchmarkScale: descriptor
// 3 is the share's stream, the next argument where to mount.
const scaleArg = "scale-mount"

// scaleResult is what the mounting process tells.
type scaleResult struct {
	Attach, Again time.Duration
	Entries       uint64
	Before, After int64 // bytes of resident memory
	Peak          int64
}

// BenchmarkScale puts closures of more and more files behind a mount that another
// process serves, and tells how long that takes on either side, and how much memory
// it takes there: with store paths of 50 files each, of 1,000, and with one of all.
func BenchmarkScale(b *testing.B) {
	needs.FUSE(b)
	sizes := []int{1000, 10_000, 100_000}
	if os.Getenv("WINVM_BENCH_MILLION") != "" { // takes a minute to make
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		for _, each := range slices.Compact([]int{50, 1000, n}) {
			b.Run(fmt.Sprintf("files=%d/paths=%d", n, n/each), func(b *testing.B) { benchScale(b, n, each) })
		}
	}
}

func benchScale(b *testing.B, n, each int) {
	dir := b.TempDir()
	var names []string
	for p := range n / each {
		names = append(names, fmt.Sprintf("0c8bazfh4s7rpwkcdbpnwz5dnjd5xj5q-package-%04d", p))
		for d := range (each + 49) / 50 {
			sub := filepath.Join(dir, names[p], fmt.Sprintf("lib/directory-%d/part-%d", d/30, d))
			if err := os.MkdirAll(sub, 0o755); err != nil {
				b.Fatal(err)
			}
			for f := range 50 {
				if err := unix.Mknod(filepath.Join(sub, fmt.Sprintf("source_file_%d.h", f)), unix.S_IFREG|0o444, 0); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for b.Loop() {
		begin := time.Now()
		store, err := nixstore.Open(b.Context(), dir, names, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		scan := time.Since(begin)
		r := mountElsewhere(b, store)
		_ = store.Close()
		b.ReportMetric(float64(scan.Microseconds())/1e3, "scan-ms")
		b.ReportMetric(float64(r.Attach.Microseconds())/1e3, "attach-ms")
		b.ReportMetric(float64(r.Again.Microseconds())/1e3, "again-ms")
		b.ReportMetric(float64((scan+r.Attach).Microseconds())/1e3, "usable-ms")
		b.ReportMetric(float64(r.After-r.Before)/float64(r.Entries), "B/entry")
		b.ReportMetric(float64(r.Peak-r.Before)/float64(r.Entries), "peak-B/entry")
	}
	b.ReportMetric(0, "ns/op")
}

// mountElsewhere serves a store to a process that mounts it, and returns what it says.
func mountElsewhere(b *testing.B, store fsrpc.Store) (r scaleResult) {
	b.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	if err != nil {
		b.Fatal(err)
	}
	_ = ours.Close()
	cmd := exec.Command("/proc/self/exe", scaleArg, b.TempDir())
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = theirs.Close()
	served := make(chan error, 1)
	go func() {
		served <- fsrpc.ServeStore(context.Background(), conn, store, slog.New(slog.DiscardHandler))
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		b.Error(err)
	}
	_ = cmd.Wait()
	if err := <-served; err != nil {
		b.Error(err)
	}
	return r
}

// scaleMount is the other process.
func scaleMount(dir string) error {
	ctx := context.Background()
	conn, err := net.FileConn(os.NewFile(3, "share"))
	if err != nil {
		return err
	}
	client, err := fsrpc.AttachStore(ctx, conn)
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := storefs.Mount(dir, storefs.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = m.Close(ctx) }()
	var r scaleResult
	r.Before = memory("VmRSS")
	begin := time.Now()
	if err := m.SetSession(ctx, client, nil); err != nil {
		return err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	r.Attach, r.Peak = time.Since(begin), memory("VmHWM")
	for at := uint32(0); ; {
		secs, err := client.Sections(ctx, at, 2048)
		if err != nil {
			return err
		}
		for _, s := range secs {
			r.Entries += uint64(s.Entries)
		}
		if at += uint32(len(secs)); int(at) >= len(names) {
			break
		}
	}
	begin = time.Now()
	if err := m.SetSession(ctx, client, nil); err != nil {
		return err
	}
	r.Again = time.Since(begin)
	debug.FreeOSMemory()
	r.After = memory("VmRSS")
	return json.NewEncoder(os.Stdout).Encode(r)
}

// memory reads a line of /proc/self/status, in bytes.
func memory(what string) int64 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, what+":"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}
