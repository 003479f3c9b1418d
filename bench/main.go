package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"winvm/bench/lab"
	"winvm/bench/report"
	"winvm/bench/work"
	"winvm/hostagent/accel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// runLimit bounds a run: under emulation the whole takes about a quarter of an hour.
const runLimit = 45 * time.Minute

func run(ctx context.Context, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	filter := fs.String("bench", ".", "measure only WORKLOAD/SIDE that match the regular expression")
	samples := fs.Int("samples", 5, "how often everything is measured")
	quick := fs.Bool("quick", false, "small files, one sample: tries the benchmark, says little about speed")
	out := fs.String("out", "build", "directory for bench.json, bench.md and bench.svg")
	kernel := fs.String("kernel", os.Getenv("WINVM_BENCH_KERNEL"), "kernel of the controller VM, with its modules in ../lib/modules")
	tcc := fs.String("tcc", "", "directory with TinyCC for Windows (tools/demo/toolchain.sh); without it nothing is compiled")
	profiles := fs.String("profiles", "", "directory for CPU profiles of our side in the controller VM, one a workload")
	debug := fs.Bool("debug", false, "log what is done")
	if err := fs.Parse(args); err != nil {
		return err
	}
	re, err := regexp.Compile(*filter)
	if err != nil {
		return fmt.Errorf("-bench: %w", err)
	}
	level := slog.LevelError
	if *debug {
		level = slog.LevelDebug
	}
	cfg := config{
		filter: re, samples: *samples, sizes: fullSizes, kernel: *kernel, cacheDir: os.Getenv("WINVM_CACHE_DIR"), tcc: *tcc, profiles: *profiles,
		agent: filepath.Join(os.Getenv("WINVM_LIBEXEC_DIR"), "controlleragent"),
		log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		tell:  elapsed(time.Now(), os.Stderr),
	}
	if *quick {
		cfg.samples, cfg.sizes = 1, quickSizes
	}
	if cfg.cacheDir == "" || cfg.kernel == "" {
		return errors.New("run it by `make bench`: it sets WINVM_CACHE_DIR and WINVM_BENCH_KERNEL")
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	r, err := measure(ctx, &cfg)
	return errors.Join(err, write(r, *out, stdout))
}

// measure makes the files and the VMs, and takes all samples. With an error it returns
// those that it has taken until then.
func measure(ctx context.Context, cfg *config) (r *report.Results, err error) {
	r = newResults()
	scratch, err := scratchDir()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	acc, err := accel.Probe(ctx, accel.Config{Kernel: cfg.kernel, Cache: filepath.Join(cfg.cacheDir, "accelerator.json"), Logger: cfg.log})
	if err != nil {
		return r, err
	}
	cfg.accel = acc.Accel
	inside, err := buildInside(ctx, scratch, "linux")
	if err != nil {
		return r, err
	}
	if err := controllerPart(ctx, cfg, scratch, inside, r); err != nil {
		return r, err
	}
	return r, guestPart(ctx, cfg, scratch, inside, r)
}

// controllerPart measures in the controller VM.
func controllerPart(ctx context.Context, cfg *config, scratch string, inside []byte, r *report.Results) (err error) {
	var sides []lab.Side
	for _, s := range lab.Sides {
		if cfg.wantsAny(workloads, s) {
			sides = append(sides, s)
		}
	}
	if len(sides) == 0 && !cfg.wants("raw", rawSide) {
		return nil
	}
	m := &measurement{cfg: cfg, dir: filepath.Join(scratch, "files"), results: r, host: map[string]work.Result{}}
	cfg.tell("making files")
	if err := makeFiles(ctx, m.dir, cfg.sizes); err != nil {
		return err
	}
	cfg.tell("booting the controller VM (%s)", cfg.accel)
	own := filepath.Join(scratch, "controller")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	m.lab, err = lab.Start(ctx, lab.Config{
		Dir: m.dir, Scratch: own, CacheDir: cfg.cacheDir, Kernel: cfg.kernel, Accel: cfg.accel,
		Inside: inside, Sides: sides, Profile: cfg.profiles != "", Log: cfg.log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.lab.Close(), os.RemoveAll(m.dir), os.RemoveAll(own)) }()
	return m.measureLab(ctx, sides)
}

// guestPart measures in Windows guests.
func guestPart(ctx context.Context, cfg *config, scratch string, inside []byte, r *report.Results) error {
	wanted := false
	for _, s := range lab.WindowsSides {
		wanted = wanted || cfg.wantsAny(smbWorkloads, s)
	}
	if !wanted {
		return nil
	}
	program, err := buildInside(ctx, scratch, "windows")
	if err != nil {
		return err
	}
	m := &measurement{cfg: cfg, dir: filepath.Join(scratch, "smbfiles"), results: r, host: map[string]work.Result{}}
	if err := makeSMBFiles(m.dir, cfg, program); err != nil {
		return err
	}
	return m.measureSMB(ctx, lab.WindowsConfig{
		Dir: m.dir, Scratch: scratch, CacheDir: cfg.cacheDir, Kernel: cfg.kernel, Accel: cfg.accel,
		Agent: cfg.agent, Inside: inside, Log: cfg.log,
	})
}

func newResults() *report.Results {
	r := &report.Results{Metrics: slices.Concat(metrics, smbMetrics)}
	for _, s := range slices.Concat(lab.Sides, lab.WindowsSides) {
		r.Sides = append(r.Sides, report.Side{ID: s.ID, Name: s.Name, Ours: s.Kind == work.SideOurs})
	}
	r.Sides = append(r.Sides, report.Side{ID: rawSide, Name: "raw port"})
	return r
}

// write writes the results: JSON, table and chart into dir, the table to stdout too.
func write(r *report.Results, dir string, stdout io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var table, data, chart bytes.Buffer
	r.WriteTable(&table)
	r.WriteTargets(&table, targets)
	if err := r.WriteJSON(&data); err != nil {
		return err
	}
	r.WriteSVG(&chart, "How many times as good winvm is as what else could be mounted")
	for name, b := range map[string]*bytes.Buffer{"bench.md": &table, "bench.json": &data, "bench.svg": &chart} {
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	_, err := stdout.Write(table.Bytes())
	return err
}
