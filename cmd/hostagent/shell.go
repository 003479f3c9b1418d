package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"winvm/hostagent/build"
	"winvm/hostagent/event"
	"winvm/hostagent/session"
	"winvm/transport/agentrpc"
)

var shellCommand = &cli.Command{
	Name:      "shell",
	Usage:     "an interactive session in a revived pair; all of it is thrown away at the end",
	ArgsUsage: "[-- COMMAND]",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "image", Value: "wine", EnvVars: []string{"WINVM_IMAGE"}, Usage: "`NAME` of the image"},
		&cli.StringFlag{Name: "store", Value: build.DefaultStore, Usage: "store `DIR`"},
		&cli.StringSliceFlag{Name: "input", Usage: "store `PATH` that may be read, with its closure; none = the whole store"},
		&cli.StringFlag{Name: "xchg", Usage: "`DIR` to exchange files with the guest through drive X:"},
		noLaneFlag,
		debugSocketFlag,
		&cli.StringFlag{Name: "attach", Usage: "use the pair that a build with --keep-failed has left: the build's `ID`"},
	},
	Description: `With --attach the pair of a failed build runs as long as the shell does, and is paused
again afterwards; hostagent kill ends it. The other flags are that build's then.`,
	Action: runShell,
}

func runShell(c *cli.Context) error {
	h, err := newHost(c)
	if err != nil {
		return err
	}
	e := session.Exec{
		ExecStart: agentrpc.ExecStart{Command: strings.Join(c.Args().Slice(), " ")},
		Stdin:     c.App.Reader, Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
	}
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	restore, err := terminal(ctx, c.App.Reader, &e)
	if err != nil {
		return err
	}
	defer restore()
	if id := c.String("attach"); id != "" {
		status, err := h.Attach(ctx, id, e)
		restore()
		return shellStatus(status, err)
	}
	status, err := h.Shell(ctx, build.Config{
		Image: c.String("image"), StoreDir: c.String("store"), Inputs: c.StringSlice("input"), Xchg: c.String("xchg"),
		NoLane: c.Bool("no-lane"), DebugSocket: c.Path("debug-socket"), Timeline: event.NewTimeline(processStart()),
	}, e)
	restore()
	return shellStatus(status, err)
}

func shellStatus(status int, err error) error {
	if err != nil {
		return &statusError{status: build.StatusOf(err), err: err}
	}
	if status != 0 {
		return &statusError{status: status}
	}
	return nil
}

// terminal, if stdin is one, asks for one in the guest of the same kind and size,
// and has ours made raw when the command starts, so that Ctrl-C goes to the guest
// from then on, and ends hostagent before.
func terminal(ctx context.Context, stdin io.Reader, e *session.Exec) (restore func(), err error) {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}, nil
	}
	fd := int(f.Fd())
	size := func() agentrpc.PTY {
		cols, rows, err := term.GetSize(fd)
		if err != nil || cols < 1 || rows < 1 {
			cols, rows = 80, 25
		}
		name := os.Getenv("TERM")
		if name == "" {
			name = "xterm"
		}
		return agentrpc.PTY{Term: name, Cols: cols, Rows: rows}
	}
	pty := size()
	e.PTY = &pty
	old, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	e.OnStart = func() error {
		if _, err := term.MakeRaw(fd); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		return nil
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	sizes := make(chan agentrpc.PTY)
	e.Resize = sizes
	go func() { // ends with ctx, which the caller ends
		defer signal.Stop(resized)
		for {
			select {
			case <-resized:
			case <-ctx.Done():
				return
			}
			select {
			case sizes <- size():
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { _ = term.Restore(fd, old) }, nil
}
