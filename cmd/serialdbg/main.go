// Command serialdbg looks at the channel between the host agent and the controller agent,
// and at what is at its ends: it captures, decodes and measures it. It needs neither
// agent's code to be running, only a capture, a socket or a device.
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
)

// version is what --version says and what is told to the agents.
const version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
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
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE): // a pager that was left, for one
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintf(stderr, "serialdbg: %s\n", cliapp.Printable(err.Error()))
	return 1
}

const unknownKey = "unknown"

func unknown(name string) error {
	return fmt.Errorf("no such command: %s; `serialdbg help` lists them", name)
}

func usageError(_ *cli.Context, err error, _ bool) error {
	return fmt.Errorf("%w; `serialdbg help` shows the usage", err)
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	commands := []*cli.Command{
		captureCommand, decodeCommand, statsCommand, replayCommand,
		pingCommand, benchCommand, respondCommand, lsCommand, statCommand, catCommand, attachCommand,
		dissectorCommand, cliapp.Completion("serialdbg"), cliapp.Man("serialdbg"),
	}
	for _, c := range commands {
		c.OnUsageError = usageError
	}
	return &cli.App{
		Name:  "serialdbg",
		Usage: "look at the channel between winvm's two agents",
		Description: `A CAPTURE is a file of serialdbg capture, - for standard input, or the debug
socket of a host agent at work (hostagent build --debug-socket PATH).`,
		Version:                   version,
		Reader:                    stdin,
		Writer:                    stdout,
		ErrWriter:                 stderr,
		EnableBashCompletion:      true,
		Suggest:                   true,
		Metadata:                  map[string]any{},
		ExitErrHandler:            func(*cli.Context, error) {}, // run does
		OnUsageError:              usageError,
		CommandNotFound:           func(c *cli.Context, name string) { c.App.Metadata[unknownKey] = name },
		DisableSliceFlagSeparator: true,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return unknown(c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: commands,
	}
}

// oneArg returns the only argument of a command.
func oneArg(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", fmt.Errorf("%s takes one argument, %s; it was given %d (flags stand before it)", c.Command.Name, what, c.NArg())
	}
	return c.Args().First(), nil
}
