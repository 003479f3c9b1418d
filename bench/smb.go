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

// smbMetrics are the figures of the Windows guest's part.
var smbMetrics = []report.Metric{
	{ID: "smb-files", Name: "SMB: small files read, cold, a file", Unit: "ms", Better: report.Lower, Part: inGuest},
	{ID: "smb-walk", Name: "SMB: walk and lstat, cold, an entry", Unit: "ms", Better: report.Lower, Part: inGuest},
	{ID: "smb-walk-again", Name: "SMB: walk and lstat, again, an entry", Unit: "ms", Better: report.Lower, Part: inGuest},
	{ID: "smb-read", Name: "SMB: sequential read, 1 MiB blocks", Unit: "MB/s", Better: report.Higher, Part: inGuest},
	{ID: "smb-write", Name: "SMB: sequential write and flush, 1 MiB blocks", Unit: "MB/s", Better: report.Higher, Part: inGuest},
	{ID: "smb-create", Name: "SMB: create a small file", Unit: "ms", Better: report.Lower, Part: inGuest},
	{ID: "smb-rename", Name: "SMB: rename it", Unit: "ms", Better: report.Lower, Part: inGuest},
	{ID: "smb-remove", Name: "SMB: remove it", Unit: "ms", Better: report.Lower, Part: inGuest},
	{ID: "smb-compile", Name: "SMB: TinyCC compiles and links three files, cold", Unit: "ms", Better: report.Lower, Part: inGuest},
	{ID: "smb-compile-again", Name: "SMB: the same, again", Unit: "ms", Better: report.Lower, Part: inGuest},
}

// smbWorkloads are done in the guest. Its caches can't be dropped from outside, so every
// sample has files of its own (smbPath).
var smbWorkloads = []workload{
	{id: "smb-files", run: smbFiles},
	{id: "smb-walk", run: smbWalk},
	{id: "smb-read", run: smbRead},
	{id: "smb-write", run: smbWrite},
	{id: "smb-storm", run: smbStorm},
	{id: "smb-compile", run: smbCompile},
}

// compileSource is what smb-compile compiles, seen from the top of the checkout.
const compileSource = "tools/demo/src/c"

// smbPath is a sample's directory of files.
func smbPath(sample int, name string) string { return fmt.Sprintf("store/sample-%d/%s", sample, name) }

// makeSMBFiles makes the files of all samples, and puts the program for the guest
// beside them.
func makeSMBFiles(dir string, cfg *config, program []byte) error {
	s := cfg.sizes
	for _, d := range []string{writeDir, filepath.Join("store", lab.ProgramDir)} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	err := os.WriteFile(filepath.Join(dir, "store", lab.ProgramDir, lab.ProgramFile), program, 0o755)
	for n := range cfg.samples {
		if cfg.tcc != "" {
			err = errors.Join(err,
				os.CopyFS(filepath.Join(dir, smbPath(n, "tcc")), os.DirFS(cfg.tcc)),
				os.CopyFS(filepath.Join(dir, smbPath(n, "src")), os.DirFS(compileSource)))
		}
		err = errors.Join(err,
			makeTree(filepath.Join(dir, smbPath(n, "tree")), s.smbDirs, s.smbPerDir),
			makeTree(filepath.Join(dir, smbPath(n, "walk")), s.smbDirs, s.smbPerDir),
			makeBig(filepath.Join(dir, smbPath(n, "big")), uint64(n+1), s.smbBulk),
		)
	}
	return err
}

// measureSMB boots a guest for each side, and lets one at a time run.
func (m *measurement) measureSMB(ctx context.Context, cfg lab.WindowsConfig) (err error) {
	var guests []*lab.Windows
	defer func() {
		for _, w := range guests {
			err = errors.Join(err, w.Close())
		}
	}()
	var image *lab.Image
	for _, s := range lab.WindowsSides {
		if !m.cfg.wantsAny(smbWorkloads, s) {
			continue
		}
		if image == nil {
			if image, err = lab.MakeImage(ctx, cfg); err != nil {
				return err
			}
		}
		m.cfg.tell("booting a guest: %s", s.Name)
		w, err := lab.StartWindows(ctx, cfg, image, s)
		if err != nil {
			return err
		}
		guests = append(guests, w)
	}
	for sample := range m.cfg.samples {
		for _, w := range smbWorkloads {
			m.cfg.tell("guest, %d of %d: %s", sample+1, m.cfg.samples, w.id)
			for i := range guests {
				g := guests[(i+sample)%len(guests)]
				if !m.cfg.wants(w.id, g.ID) {
					continue
				}
				if err := m.measureGuest(ctx, w, g, sample); err != nil {
					return fmt.Errorf("%s on %s: %w", w.id, g.Name, err)
				}
			}
		}
	}
	return nil
}

func (m *measurement) measureGuest(ctx context.Context, w workload, g *lab.Windows, sample int) error {
	if err := g.Resume(ctx); err != nil {
		return err
	}
	if err := w.run(ctx, &mounted{measurement: m, runner: g, side: g.Side, sample: sample}); err != nil {
		return err
	}
	return g.Pause(ctx)
}

func smbFiles(ctx context.Context, m *mounted) error {
	j := work.Job{Kind: work.Files, Path: smbPath(m.sample, "tree")}
	r, err := m.do(ctx, j)
	if err != nil {
		return err
	}
	m.put("smb-files", r.Seconds/float64(r.Entries)*1e3)
	return m.sameAsHost(j, r)
}

func smbWalk(ctx context.Context, m *mounted) error {
	j := work.Job{Kind: work.Walk, Path: smbPath(m.sample, "walk")}
	for _, metric := range []string{"smb-walk", "smb-walk-again"} {
		r, err := m.do(ctx, j)
		if err != nil {
			return err
		}
		m.put(metric, r.Seconds/float64(r.Entries)*1e3)
		if err := m.sameAsHost(j, r); err != nil {
			return err
		}
	}
	return nil
}

func smbRead(ctx context.Context, m *mounted) error {
	return bulkRead(ctx, m, "smb-read", smbPath(m.sample, "big"), m.cfg.sizes.smbBulk, 1<<20)
}

func smbWrite(ctx context.Context, m *mounted) error {
	return bulkWrite(ctx, m, "smb-write", m.cfg.sizes.smbBulk, 1<<20)
}

func smbStorm(ctx context.Context, m *mounted) error {
	return stormOf(ctx, m, "smb-", m.cfg.sizes.smbStorm, 1e3)
}

// smbCompile runs a real compiler, from the share, over sources on the share, twice.
func smbCompile(ctx context.Context, m *mounted) error {
	if m.cfg.tcc == "" {
		return nil
	}
	tcc, src := smbPath(m.sample, "tcc"), smbPath(m.sample, "src")
	for i, metric := range []string{"smb-compile", "smb-compile-again"} {
		out := filepath.Join(writeDir, fmt.Sprintf("%s-%d-%d.exe", m.side.ID, m.sample, i))
		r, err := m.do(ctx, work.Job{
			Kind: work.Exec, Path: tcc + "/tcc.exe", Out: out,
			Args: []string{"-I" + src + "/include", "-o", out, src + "/main.c", src + "/crc.c", src + "/emit.c"},
		})
		if err != nil {
			return err
		}
		m.put(metric, r.Seconds*1e3)
		if _, err := m.do(ctx, work.Job{Kind: work.Flush, Path: out}); err != nil { // 9p's loose cache has it still
			return err
		}
		if err := m.sameAsHost(work.Job{Kind: work.Sum, Path: out}, r); err != nil {
			return err
		}
		if err := m.sameAsBefore("the program that TinyCC made", r); err != nil {
			return err
		}
	}
	return nil
}
