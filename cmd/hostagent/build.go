package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
	"winvm/hostagent/build"
	"winvm/hostagent/event"
)

var buildCommand = &cli.Command{
	Name:      "build",
	Usage:     "run a command in Windows and collect what it leaves in $out",
	ArgsUsage: "-- COMMAND [ARG]...",
	Description: `The command runs in a Windows VM that was suspended with its drives mapped:
S: is the store (exactly the closure of the inputs), X: is xchg. What it writes
to %out% becomes --out if it exits with 0, and not otherwise.

Exit status: the command's own; 1 if that does not fit 0-255; 124 timed out,
125 the host agent failed, 126 the command can't be run, 127 it was not found.
With --check: 123 if the outputs of two builds differ. --out is the first's.

As the builder of a Nix derivation it needs no flags, and, if lib.nix has made the
derivation, no command: docs/nix.md.`,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "image", Value: "wine", EnvVars: []string{"WINVM_IMAGE"}, Usage: "`NAME` of the image"},
		&cli.StringFlag{Name: "store", Value: build.DefaultStore, Usage: "store `DIR`"},
		&cli.StringSliceFlag{Name: "input", KeepSpace: true, Usage: "store `PATH` that the build may read, with its closure; none = the whole store"},
		&cli.StringFlag{Name: "out", Usage: "where the output goes: a `PATH` that does not exist yet"},
		&cli.StringFlag{Name: "xchg", Usage: "`DIR` to exchange files with the guest through drive X:"},
		&cli.StringSliceFlag{Name: "env", KeepSpace: true, Usage: "`K=V` to set, or K to unset, in the command's environment"},
		&cli.StringFlag{Name: "env-file", Usage: "`FILE` of K=V lines; a file with NUL bytes is split at those"},
		&cli.StringFlag{Name: "cwd", Usage: "the command's working `DIR` in the guest"},
		&cli.DurationFlag{Name: "timeout", Usage: "end the command after `D`, with status 124"},
		&cli.DurationFlag{Name: "max-silent", Usage: "end the command when it has said nothing for `D`, with status 124"},
		noLaneFlag,
		debugSocketFlag,
		&cli.IntFlag{Name: "jobs", EnvVars: []string{"WINVM_JOBS"}, Value: runtime.NumCPU(), Usage: "wait while `N` builds are at work; 0 = for memory only"},
		&cli.BoolFlag{Name: "keep-failed", Usage: "keep what a failed build leaves, and its VMs, paused: see hostagent shell --attach"},
		&cli.DurationFlag{Name: "keep-for", Value: time.Hour, Usage: "how long --keep-failed keeps the VMs: `D`; 0 = not at all"},
		&cli.BoolFlag{Name: "check", Usage: "build twice, and name what differs, with status 123"},
		&cli.BoolFlag{Name: "timeline", Usage: "print where the time went"},
		&cli.StringFlag{Name: "timeline-file", Usage: "write that to `FILE`, as a trace for chrome://tracing or Perfetto"},
		&cli.PathFlag{Name: "report", Usage: "write which inputs the build has opened and read, and what it has written, to `DIR`"},
		&cli.BoolFlag{Name: "trim-inputs", Usage: "print the smallest set of --input that would have done"},
		&cli.StringFlag{Name: "result", Usage: "write the result as JSON to `FILE`"},
	},
	Action: runBuild,
}

func runBuild(c *cli.Context) error {
	zero := processStart()
	h, err := newHost(c)
	if err != nil {
		return err
	}
	nix, err := nixBuild(c)
	if err != nil {
		return err
	}
	if nix != nil {
		return runNixBuild(c, h, nix)
	}
	keeps := c.Bool("keep-failed") && c.Duration("keep-for") > 0
	keeper, ctx, err := asKeeper(c.Context)
	if err != nil {
		return err
	}
	if keeps && keeper == nil {
		return superviseKeeper(ctx)
	}
	env := c.StringSlice("env")
	if f := c.String("env-file"); f != "" {
		list, err := readEnvFile(f)
		if err != nil {
			return err
		}
		env = append(list, env...)
	}
	cfg := build.Config{
		Image: c.String("image"), StoreDir: c.String("store"), Inputs: c.StringSlice("input"),
		Out: c.String("out"), Xchg: c.String("xchg"), Env: env, Dir: c.String("cwd"), Args: c.Args().Slice(),
		Timeout: c.Duration("timeout"), MaxSilent: c.Duration("max-silent"), Jobs: c.Int("jobs"), KeepFailed: c.Bool("keep-failed"), NoLane: c.Bool("no-lane"),
		Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
		DebugSocket: c.Path("debug-socket"), ReportDir: c.Path("report"), NoteUse: c.Bool("trim-inputs"),
		TraceFile: c.String("timeline-file"), Timeline: event.NewTimeline(zero),
	}
	if c.Bool("json") { // the output is in the events
		cfg.Stdout, cfg.Stderr = nil, nil
	}
	if cfg.Jobs < 0 {
		return fmt.Errorf("--jobs must not be negative")
	}
	if cfg.Timeout < 0 || cfg.MaxSilent < 0 || c.Duration("keep-for") < 0 {
		return fmt.Errorf("--timeout, --max-silent and --keep-for must not be negative")
	}
	if keeper != nil {
		cfg.KeepFor = c.Duration("keep-for")
	}
	cfg.Timeline.Mark("process start to build")
	build := h.Build
	if c.Bool("check") {
		build = h.CheckBuild
	}
	result, err := build(ctx, cfg)
	err = finishBuild(c, h, cfg, result, err)
	if result.Held == nil {
		return err
	}
	return hold(ctx, c, h, keeper, result, err)
}

// finishBuild tells what came of a build, everywhere where that was asked for, and
// turns it into an exit status.
func finishBuild(c *cli.Context, h *hostagent.Host, cfg build.Config, result build.Result, err error) error {
	h.Report.Result(event.KindResult, struct {
		build.Result
		Timeline []event.Span `json:"timeline"`
	}{result, cfg.Timeline.Spans()}, "")
	if c.Bool("timeline") {
		cfg.Timeline.Print(c.App.ErrWriter)
	}
	tellUse(c, result)
	if f := c.String("result"); f != "" {
		if werr := writeResult(f, result); werr != nil && err == nil {
			err = &build.Error{Status: build.StatusFailed, Err: werr}
		}
	}
	return buildStatus(c, result, err)
}

// tellUse prints what of the inputs was used.
func tellUse(c *cli.Context, r build.Result) {
	if r.Use == nil {
		return
	}
	if dir := c.Path("report"); dir != "" {
		fmt.Fprintf(c.App.ErrWriter, "hostagent: what was used of the inputs is in %s\n", filepath.Join(dir, "report.txt"))
	}
	if !c.Bool("trim-inputs") {
		return
	}
	if r.Use.Partial {
		fmt.Fprintln(c.App.ErrWriter, "hostagent: more was touched than could be noted: these are all inputs")
	}
	for _, path := range r.Use.Trimmed() {
		fmt.Fprintf(c.App.ErrWriter, "--input %s\n", path)
	}
}

// buildStatus turns what came of a build into an exit status and what is to be
// said about it.
func buildStatus(c *cli.Context, r build.Result, err error) error {
	if r.Kept != "" {
		fmt.Fprintf(c.App.ErrWriter, "hostagent: what the build left is kept in %s\n", r.Kept)
	}
	if r.Second != "" {
		fmt.Fprintf(c.App.ErrWriter, "hostagent: the second build's output is kept in %s\n", r.Second)
	}
	if r.Held != nil {
		printHeld(c, r)
	}
	switch {
	case err != nil:
		return &statusError{status: build.StatusOf(err), err: err}
	case r.ExitCode != nil && *r.ExitCode > 255:
		return &statusError{status: r.Status, err: fmt.Errorf("the command exited with %d (0x%08x), which becomes %d", *r.ExitCode, *r.ExitCode, r.Status)}
	case r.Status != 0:
		return &statusError{status: r.Status}
	default:
		return nil
	}
}

func writeResult(path string, r build.Result) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("--result: %w", err)
	}
	return nil
}

// readEnvFile reads K=V lines, or, if the file has NUL bytes, entries that NUL
// bytes end (as in /proc/PID/environ), which may have line breaks.
func readEnvFile(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	text := string(b)
	if strings.IndexByte(text, 0) >= 0 {
		return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00"), nil
	}
	var out []string
	s := bufio.NewScanner(strings.NewReader(text))
	s.Buffer(nil, len(text)+1)
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, _, ok := strings.Cut(line, "="); !ok || name == "" {
			return nil, fmt.Errorf("--env-file %s: line %d is not of the form K=V", path, n)
		}
		out = append(out, line)
	}
	return out, s.Err()
}

// processStart is when this process was started, as far as /proc tells: in
// hundredths of a second.
func processStart() time.Time {
	now := time.Now()
	age, err := processAge()
	if err != nil {
		return now
	}
	return now.Add(-age)
}
