// Command controlleragent is the one service of the controller VM (daemon); and,
// on any Linux machine, it mounts a share that `hostagent serve` serves (mount).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"winvm/controlleragent"
	"winvm/transport/agentrpc"
)

const version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := newApp(os.Stdout, os.Stderr).RunContext(ctx, os.Args)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "controlleragent: %v\n", err)
		os.Exit(1)
	}
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:                 "controlleragent",
		Usage:                "the controller's side of winvm",
		Version:              version,
		Writer:               stdout,
		ErrWriter:            stderr,
		EnableBashCompletion: true,
		ExitErrHandler:       func(*cli.Context, error) {}, // main does
		Flags:                []cli.Flag{&cli.BoolFlag{Name: "debug", Usage: "log what is done"}},
		Commands:             []*cli.Command{daemonCommand, mountCommand},
	}
}

func newLog(c *cli.Context) *slog.Logger {
	level := slog.LevelInfo
	if c.Bool("debug") {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level}))
}

var daemonCommand = &cli.Command{
	Name:  "daemon",
	Usage: "mount the shares, run smbd, serve host agents; in the controller VM only",
	Flags: []cli.Flag{&cli.PathFlag{Name: "config", Value: "/winvm/config.json", Usage: "configuration `FILE`"}},
	Action: func(c *cli.Context) error {
		b, err := os.ReadFile(c.Path("config"))
		if err != nil {
			return err
		}
		var cfg agentrpc.Config
		if err := json.Unmarshal(b, &cfg); err != nil {
			return fmt.Errorf("%s: %w", c.Path("config"), err)
		}
		return controlleragent.Run(c.Context, cfg, version, newLog(c))
	},
}
