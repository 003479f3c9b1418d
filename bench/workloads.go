package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"winvm/bench/lab"
	"winvm/bench/report"
	"winvm/bench/work"
)

// Parts of the report.
const (
	inController = "in the controller VM"
	inGuest      = "in the Windows guest, over SMB"
)

// metrics are the figures of the controller VM's part, in the order of the table.
var metrics = []report.Metric{
	{ID: "tiny-p50", Name: "64 B file opened, read, closed: p50", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "tiny-p99", Name: "the same: p99", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "tiny-load-p50", Name: "the same under a bulk read: p50", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "tiny-load-p99", Name: "the same under a bulk read: p99", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "read-1m", Name: "sequential read, 1 MiB blocks", Unit: "MB/s", Better: report.Higher, Part: inController},
	{ID: "read-64k", Name: "sequential read, 64 KiB blocks", Unit: "MB/s", Better: report.Higher, Part: inController},
	{ID: "write-1m", Name: "sequential write and fsync, 1 MiB blocks", Unit: "MB/s", Better: report.Higher, Part: inController},
	{ID: "write-64k", Name: "sequential write and fsync, 64 KiB blocks", Unit: "MB/s", Better: report.Higher, Part: inController},
	{ID: "rand", Name: "random reads of 4 KiB", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "walk", Name: "walk and lstat, cold, an entry", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "walk-again", Name: "walk and lstat, again, an entry", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "mount-walk", Name: "mount, then walk and lstat, all of it", Unit: "ms", Better: report.Lower, Part: inController},
	{ID: "files", Name: "small files read, cold, a file", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "tool-walk", Name: "toolchain's tree: walk and lstat, cold, an entry", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "tool-tar", Name: "toolchain's tree: tar, cold", Unit: "ms", Better: report.Lower, Part: inController},
	{ID: "create", Name: "create a small file", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "rename", Name: "rename it", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "remove", Name: "remove it", Unit: "us", Better: report.Lower, Part: inController},
	{ID: "attach", Name: "closure of 100,000 files, until it can be used", Unit: "ms", Better: report.Lower, Part: inController},
	{ID: "attach-memory", Name: "memory for it in the controller, a file", Unit: "B", Better: report.Lower, Part: inController},
}

// A workload is what is done on one fresh mount.
type workload struct {
	id     string
	record bool // for the record also on the side that nobody would choose
	run    func(ctx context.Context, m *mounted) error
}

var workloads = []workload{
	{id: "tiny", run: func(ctx context.Context, m *mounted) error { return tiny(ctx, m, "tiny", "") }},
	{id: "tiny-load", run: func(ctx context.Context, m *mounted) error { return tiny(ctx, m, "tiny-load", loadFile) }},
	{id: "read-1m", record: true, run: func(ctx context.Context, m *mounted) error {
		return bulkRead(ctx, m, "read-1m", bigFile, m.cfg.sizes.bulk, 1<<20)
	}},
	{id: "read-64k", run: func(ctx context.Context, m *mounted) error {
		return bulkRead(ctx, m, "read-64k", bigFile, m.cfg.sizes.bulk, 64<<10)
	}},
	{id: "write-1m", record: true, run: func(ctx context.Context, m *mounted) error {
		return bulkWrite(ctx, m, "write-1m", m.cfg.sizes.bulk, 1<<20)
	}},
	{id: "write-64k", run: func(ctx context.Context, m *mounted) error {
		return bulkWrite(ctx, m, "write-64k", m.cfg.sizes.bulk, 64<<10)
	}},
	{id: "rand", run: randomReads},
	{id: "walk", record: true, run: walkTwice},
	{id: "files", record: true, run: smallFiles},
	{id: "tool-walk", run: toolWalk},
	{id: "tool-tar", run: toolTar},
	{id: "storm", run: func(ctx context.Context, m *mounted) error { return stormOf(ctx, m, "", m.cfg.sizes.storm, 1e6) }},
}

// A mounted side, and where its figures go.
type mounted struct {
	*measurement
	runner runner
	side   lab.Side
	sample int
	took   float64 // seconds, of the mount
}

// A runner does jobs in a VM.
type runner interface {
	Run(ctx context.Context, j work.Job) (work.Result, error)
}

func (m *mounted) do(ctx context.Context, j work.Job) (work.Result, error) {
	return m.runner.Run(ctx, j)
}

func (m *mounted) put(metric string, value float64) { m.results.Add(metric, m.side.ID, value) }

// once reports whether a check that nobody times is due: on a side's first sample.
func (m *mounted) once() bool { return m.sample == 0 }

func tiny(ctx context.Context, m *mounted, metric, load string) error {
	j := work.Job{Kind: work.Tiny, Path: tinyDir, Count: m.cfg.sizes.tiny, Load: load}
	r, err := m.do(ctx, j)
	if err != nil {
		return err
	}
	j.Load = ""
	if err := m.sameAsHost(j, r); err != nil {
		return err
	}
	m.put(metric+"-p50", report.Median(r.Each)*1e6)
	m.put(metric+"-p99", report.Quantile(r.Each, 0.99)*1e6)
	return nil
}

func bulkRead(ctx context.Context, m *mounted, metric, file string, size int64, block int) error {
	r, err := m.do(ctx, work.Job{Kind: work.Read, Path: file, Block: block})
	if err != nil {
		return err
	}
	if r.Bytes != size {
		return fmt.Errorf("%d bytes read instead of %d", r.Bytes, size)
	}
	m.put(metric, float64(r.Bytes)/1e6/r.Seconds)
	if !m.once() {
		return nil
	}
	j := work.Job{Kind: work.Sum, Path: file}
	if r, err = m.do(ctx, j); err != nil {
		return err
	}
	return m.sameAsHost(j, r)
}

func bulkWrite(ctx context.Context, m *mounted, metric string, size int64, block int) error {
	name := filepath.Join(writeDir, fmt.Sprintf("%s-%s-%d", metric, m.side.ID, m.sample))
	seed := uint64(1000 + m.sample)
	r, err := m.do(ctx, work.Job{Kind: work.Write, Path: name, Block: block, Bytes: size, Seed: seed})
	if err != nil {
		return err
	}
	m.put(metric, float64(r.Bytes)/1e6/r.Seconds)
	path := filepath.Join(m.dir, name)
	got, err := work.Run(work.Job{Kind: work.Sum, Path: path})
	if err != nil {
		return err
	}
	if want := work.NewPattern(seed).Sum(size); got.Sum != want || got.Bytes != size {
		return fmt.Errorf("the host has %d bytes with the checksum %08x, and not %d with %08x", got.Bytes, got.Sum, size, want)
	}
	return os.Remove(path)
}

func randomReads(ctx context.Context, m *mounted) error {
	n := m.cfg.sizes.randReads
	r, err := m.do(ctx, work.Job{Kind: work.Rand, Path: bigFile, Block: 4096, Count: n, Seed: uint64(m.sample)})
	if err != nil {
		return err
	}
	m.put("rand", r.Seconds/float64(n)*1e6)
	return nil
}

func walkTwice(ctx context.Context, m *mounted) error {
	j := work.Job{Kind: work.Walk, Path: treeDir}
	first, err := m.do(ctx, j)
	if err != nil {
		return err
	}
	again, err := m.do(ctx, j)
	if err != nil {
		return err
	}
	m.put("walk", first.Seconds/float64(first.Entries)*1e6)
	m.put("walk-again", again.Seconds/float64(again.Entries)*1e6)
	m.put("mount-walk", (m.took+first.Seconds)*1e3)
	if err := m.sameAsHost(j, first); err != nil {
		return err
	}
	return m.sameAsHost(j, again)
}

func smallFiles(ctx context.Context, m *mounted) error {
	j := work.Job{Kind: work.Files, Path: treeDir}
	r, err := m.do(ctx, j)
	if err != nil {
		return err
	}
	m.put("files", r.Seconds/float64(r.Entries)*1e6)
	return m.sameAsHost(j, r)
}

func toolWalk(ctx context.Context, m *mounted) error {
	j := work.Job{Kind: work.Walk, Path: toolDir}
	r, err := m.do(ctx, j)
	if err != nil {
		return err
	}
	m.put("tool-walk", r.Seconds/float64(r.Entries)*1e6)
	return m.sameAsHost(j, r)
}

func toolTar(ctx context.Context, m *mounted) error {
	j := work.Job{Kind: work.Tar, Path: toolDir}
	r, err := m.do(ctx, j)
	if err != nil {
		return err
	}
	m.put("tool-tar", r.Seconds*1e3)
	return m.sameAsHost(j, r)
}

// stormOf has the metrics' prefix, and how many of their units a second has.
func stormOf(ctx context.Context, m *mounted, prefix string, n int, units float64) error {
	dir := filepath.Join(writeDir, fmt.Sprintf("storm-%s-%d", m.side.ID, m.sample))
	r, err := m.do(ctx, work.Job{Kind: work.Storm, Path: dir, Count: n})
	if err != nil {
		return err
	}
	for i, metric := range []string{"create", "rename", "remove"} {
		m.put(prefix+metric, r.Each[i]/float64(n)*units)
	}
	if _, err := os.Lstat(filepath.Join(m.dir, dir)); err == nil {
		return fmt.Errorf("%s is still there on the host", dir)
	}
	return nil
}
