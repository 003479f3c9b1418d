// Command wake measures, side by side, what stands between a user and the first command
// in a guest, in the wine guest of an image that was suspended with `hostagent image
// create`:
//
//	winvm  `hostagent build -- cmd /c exit 0`, the whole process
//	2014   the way of runInWindowsVM: the guest revived from all of its memory through
//	       gzip, without a connection to anything; the controller booted; then the SSH
//	       login, the drives mapped, and the same command
//	cold   both VMs booted, and the rest as in 2014
//
// The last two do no build: nothing is collected, and no job is made of the command. So
// the ratios are on the careful side. The sides take turns in each round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wake: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flag.NewFlagSet("wake", flag.ContinueOnError)
	rounds := fs.Int("rounds", 5, "how often each side is measured")
	agent := fs.String("hostagent", "build/bin/hostagent", "the hostagent to measure")
	state := fs.String("state-dir", os.Getenv("WINVM_STATE_DIR"), "its state directory")
	name := fs.String("image", "wine", "an image there")
	if err := fs.Parse(args); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "winvm-wake-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b, err := open(*state, *name, work, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	saved := time.Now()
	took, size, err := b.save(ctx)
	if err != nil {
		return fmt.Errorf("save the guest: %w", err)
	}
	fmt.Fprintf(os.Stderr, "the guest is saved (%.1fs to boot and save)\n", time.Since(saved).Seconds())
	sides := []side{
		{name: "winvm", run: func(ctx context.Context) error { return build(ctx, *agent, *state, *name, work) }},
		{name: "2014", run: func(ctx context.Context) error { return b.command(ctx, true) }},
		{name: "cold", run: func(ctx context.Context) error { return b.command(ctx, false) }},
	}
	for i := range *rounds {
		for j := range sides {
			s := &sides[j]
			begin := time.Now()
			if err := s.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.took = append(s.took, time.Since(begin))
			fmt.Fprintf(os.Stderr, "round %d: %s %.2fs\n", i+1, s.name, time.Since(begin).Seconds())
		}
	}
	report(out, sides, took, size)
	return nil
}

// A side is one way to a command's end.
type side struct {
	name string
	run  func(ctx context.Context) error
	took []time.Duration
}

func report(out io.Writer, sides []side, saving time.Duration, size int64) {
	fmt.Fprintf(out, "| to the end of `cmd /c exit 0` | median | least | most | against winvm |\n|---|---|---|---|---|\n")
	for _, s := range sides {
		slices.Sort(s.took)
		fmt.Fprintf(out, "| %s | %.2f s | %.2f s | %.2f s | %.1f x |\n", s.name,
			median(s.took).Seconds(), s.took[0].Seconds(), s.took[len(s.took)-1].Seconds(),
			float64(median(s.took))/float64(median(sides[0].took)))
	}
	fmt.Fprintf(out, "\nThe 2014 side's guest, through gzip: %.1f s to save, %d MB.\n", saving.Seconds(), size/1e6)
}

// median is of sorted values.
func median(d []time.Duration) time.Duration { return (d[(len(d)-1)/2] + d[len(d)/2]) / 2 }

// build is winvm's side.
func build(ctx context.Context, agent, state, name, work string) error {
	store := filepath.Join(work, "store")
	cmd := exec.CommandContext(ctx, agent, "--quiet", "--state-dir", state, "build", "--image", name, "--store", store, "--", "cmd", "/c", "exit 0")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}
