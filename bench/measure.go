package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"winvm/bench/lab"
	"winvm/bench/report"
	"winvm/bench/work"
)

// A measurement is one run of the controller VM's part.
type measurement struct {
	cfg     *config
	dir     string // on the host: what the sides serve
	lab     *lab.Lab
	results *report.Results
	host    map[string]work.Result // what a job sees on the host: the truth; and what sameAsBefore has seen
}

// sameAsHost compares what a side has seen with what the host has. A side that has done
// less, or something else, has no figure.
func (m *measurement) sameAsHost(j work.Job, got work.Result) error {
	key := fmt.Sprint(j)
	want, ok := m.host[key]
	if !ok {
		here := j
		here.Path = filepath.Join(m.dir, j.Path)
		var err error
		if want, err = work.Run(here); err != nil {
			return fmt.Errorf("on the host: %w", err)
		}
		m.host[key] = want
	}
	if got.Sum != want.Sum || got.Bytes != want.Bytes || got.Entries != want.Entries {
		return fmt.Errorf("%s %s: %d entries, %d bytes, checksum %08x; the host has %d, %d, %08x",
			j.Kind, j.Path, got.Entries, got.Bytes, got.Sum, want.Entries, want.Bytes, want.Sum)
	}
	return nil
}

// sameAsBefore compares what every side has to make alike.
func (m *measurement) sameAsBefore(what string, got work.Result) error {
	want, ok := m.host[what]
	if !ok {
		m.host[what] = got
		return nil
	}
	if got.Sum != want.Sum || got.Bytes != want.Bytes {
		return fmt.Errorf("%s: %d bytes, checksum %08x; before it was %d, %08x", what, got.Bytes, got.Sum, want.Bytes, want.Sum)
	}
	return nil
}

// rawSide is the bare port: what the channel can do at best.
const rawSide = "raw"

// measureLab measures every workload on every side, all of them once before any of them
// again, and each time beginning with another side: so that a machine that gets slower
// does so for all.
func (m *measurement) measureLab(ctx context.Context, sides []lab.Side) error {
	for sample := range m.cfg.samples {
		if err := errors.Join(m.measureRaw(ctx), m.measureAttach(ctx)); err != nil {
			return err
		}
		for _, w := range workloads {
			m.cfg.tell("controller VM, %d of %d: %s", sample+1, m.cfg.samples, w.id)
			for i := range sides {
				s := sides[(i+sample)%len(sides)]
				if !m.cfg.wants(w.id, s.ID) || !w.has(s) {
					continue
				}
				if err := m.measureOne(ctx, w, s, sample); err != nil {
					return fmt.Errorf("%s on %s: %w", w.id, s.Name, err)
				}
			}
		}
	}
	return nil
}

// recordOnly is the id of a side that is slow and there for the record.
const recordOnly = "9p-none"

func (w *workload) has(s lab.Side) bool { return w.record || s.ID != recordOnly }

func (m *measurement) measureOne(ctx context.Context, w workload, s lab.Side, sample int) error {
	r, err := m.lab.Mount(ctx, s)
	if err != nil {
		return err
	}
	if err := w.run(ctx, &mounted{measurement: m, runner: m.lab, side: s, sample: sample, took: r.Seconds}); err != nil {
		return err
	}
	if err := m.lab.Unmount(ctx); err != nil || m.cfg.profiles == "" || s.Kind != work.SideOurs {
		return err
	}
	b, err := os.ReadFile(filepath.Join(m.dir, "xchg", work.ProfileFile))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.cfg.profiles, w.id+"-"+s.ID+".pprof"), b, 0o644)
}

// measureRaw is the yardstick: the same bytes, with no file system at all.
func (m *measurement) measureRaw(ctx context.Context) error {
	if !m.cfg.wants("raw", rawSide) {
		return nil
	}
	m.cfg.tell("controller VM: the raw port")
	for _, load := range []string{"", "-load"} {
		r, err := m.lab.Raw(ctx, work.RawEcho, work.Job{Count: m.cfg.sizes.rawEchoes}, load != "")
		if err != nil {
			return fmt.Errorf("raw port: %w", err)
		}
		m.results.Add("tiny"+load+"-p50", rawSide, report.Median(r.Each)*1e6)
		m.results.Add("tiny"+load+"-p99", rawSide, report.Quantile(r.Each, 0.99)*1e6)
	}
	for op, metrics := range map[string][]string{work.RawIn: {"read-1m", "read-64k"}, work.RawOut: {"write-1m", "write-64k"}} {
		for i, block := range []int{1 << 20, 64 << 10} {
			r, err := m.lab.Raw(ctx, op, work.Job{Bytes: m.cfg.sizes.bulk, Block: block}, false)
			if err != nil {
				return fmt.Errorf("raw port: %w", err)
			}
			m.results.Add(metrics[i], rawSide, float64(r.Bytes)/1e6/r.Seconds)
		}
	}
	return nil
}

// measureAttach attaches a closure of many files.
func (m *measurement) measureAttach(ctx context.Context) error {
	n := m.cfg.sizes.attachMany
	if n == 0 || !m.cfg.wants("attach", lab.Sides[0].ID) {
		return nil
	}
	m.cfg.tell("controller VM: a closure of %d files", n)
	dir := filepath.Join(filepath.Dir(m.dir), "many")
	if err := makeMany(dir, n); err != nil {
		return err
	}
	a, err := m.lab.Attach(ctx, dir)
	if err != nil {
		return fmt.Errorf("attaching %d files: %w", n, err)
	}
	m.results.Add("attach", lab.Sides[0].ID, (a.Scan+a.Attach)*1e3)
	m.results.Add("attach-memory", lab.Sides[0].ID, float64(a.Memory)/float64(n))
	return nil
}
