// Command hostagent runs Windows builds in VMs: it makes images, suspends and
// revives them, serves files to them and collects what builds leave.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"winvm/cmd/cliapp"
	"winvm/hostagent/build"
	"winvm/hostagent/event"
)

// version is what --version says and what the agents tell each other.
const version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A reader of our output that went away is an error of that write, not the end
	// of this process in the middle of a build.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	status := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(stdin, stdout, stderr)
	err := app.RunContext(ctx, args)
	if name, ok := app.Metadata[unknownKey].(string); ok && err == nil {
		err = unknown(name)
	}
	if err == nil {
		return 0
	}
	var s *statusError
	if errors.As(err, &s) && s.err == nil {
		return s.status
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = build.ErrInterrupted
	}
	sayError(app, err)
	switch {
	case s != nil:
		return s.status
	case errors.Is(err, build.ErrInterrupted), errors.Is(err, build.ErrKilled):
		return build.StatusSignal
	default:
		return build.StatusFailed
	}
}

// sayError says what went wrong, to people and in the events.
func sayError(app *cli.App, err error) {
	if r, ok := app.Metadata[reportKey].(*event.Reporter); ok {
		r.Tell(event.KindFailed, "%v", err)
	}
	fmt.Fprintf(app.ErrWriter, "hostagent: %s\n", cliapp.Printable(err.Error()))
}

// A statusError makes the process exit with a status; err is nil if there is
// nothing to say beside it.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// What the commands tell run, in the App's metadata.
const (
	unknownKey = "unknown" // a command that does not exist
	reportKey  = "report"  // where events go, with --json
)

func unknown(name string) error {
	return &statusError{status: build.StatusFailed, err: fmt.Errorf("no such command: %s; `hostagent help` lists them", name)}
}

func usageError(_ *cli.Context, err error, _ bool) error {
	return &statusError{status: build.StatusFailed, err: fmt.Errorf("%w; `hostagent help` shows the usage", err)}
}

// strict makes all commands return usage errors. The default is to print the help
// to standard output, where results belong.
func strict(commands []*cli.Command) []*cli.Command {
	for _, c := range commands {
		c.OnUsageError = usageError
		strict(c.Subcommands)
	}
	return commands
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:                 "hostagent",
		Usage:                "hermetic Windows builds on a Linux host, awake in a blink",
		Version:              version,
		Reader:               stdin,
		Writer:               stdout,
		ErrWriter:            stderr,
		EnableBashCompletion: true,
		Suggest:              true,
		Metadata:             map[string]any{},
		Flags:                globalFlags,
		ExitErrHandler:       func(*cli.Context, error) {}, // run does
		OnUsageError:         usageError,
		// Called by the help command, which then returns no error.
		CommandNotFound: func(c *cli.Context, name string) { c.App.Metadata[unknownKey] = name },
		// A comma in --env or --input is part of the value.
		DisableSliceFlagSeparator: true,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return unknown(c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: strict([]*cli.Command{
			buildCommand, imageCommand, guestCommand, suspendCommand, shellCommand,
			psCommand, killCommand, logsCommand, screenshotCommand, gcCommand,
			serveCommand, doctorCommand, cliapp.Completion("hostagent"), cliapp.Man("hostagent"), machinesCommand, nixInputsCommand,
		}),
	}
}
