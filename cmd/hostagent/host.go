package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
	"winvm/hostagent/event"
	"winvm/hostagent/qemu"
)

var globalFlags = []cli.Flag{
	&cli.StringFlag{Name: "state-dir", EnvVars: []string{"WINVM_STATE_DIR"}, Usage: "`DIR` of images and state (default: $XDG_STATE_HOME/winvm)"},
	&cli.StringFlag{Name: "cache-dir", EnvVars: []string{"WINVM_CACHE_DIR"}, Usage: "`DIR` of what can be made again (default: $XDG_CACHE_HOME/winvm)"},
	&cli.StringFlag{Name: "libexec-dir", EnvVars: []string{"WINVM_LIBEXEC_DIR"}, Usage: "`DIR` of the helper programs (default: ../libexec/winvm beside hostagent)"},
	&cli.StringFlag{Name: "qemu", EnvVars: []string{"WINVM_QEMU"}, Value: qemu.DefaultBinary, Usage: "QEMU `BINARY`"},
	&cli.StringFlag{Name: "accel", EnvVars: []string{"WINVM_ACCEL"}, Value: "auto", Usage: "accelerator: auto, kvm or tcg"},
	&cli.BoolFlag{Name: "json", Usage: "write events as JSON lines to standard output"},
	&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
	&cli.BoolFlag{Name: "debug", EnvVars: []string{"WINVM_DEBUG"}, Usage: "log what is done to standard error"},
}

// noLaneFlag is of the commands that start VMs.
var noLaneFlag = &cli.BoolFlag{
	Name: "no-lane", EnvVars: []string{"WINVM_NO_LANE"},
	Usage: "send contents over the channel too, not through memory shared with the controller VM",
}

// newHost makes a Host from the global flags.
func newHost(c *cli.Context) (*hostagent.Host, error) {
	h := &hostagent.Host{QEMU: c.String("qemu"), Accel: c.String("accel"), Version: version}
	if h.QEMU == "" { // an environment variable may be set to nothing
		h.QEMU = qemu.DefaultBinary
	}
	var err error
	if h.StateDir, err = directory(c.String("state-dir"), "XDG_STATE_HOME", ".local/state"); err != nil {
		return nil, err
	}
	if h.CacheDir, err = directory(c.String("cache-dir"), "XDG_CACHE_HOME", ".cache"); err != nil {
		return nil, err
	}
	if h.LibexecDir = c.String("libexec-dir"); h.LibexecDir == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		h.LibexecDir = filepath.Join(filepath.Dir(exe), "..", "libexec", "winvm")
	}
	level := slog.LevelWarn
	if c.Bool("debug") {
		level = slog.LevelDebug
	}
	h.Log = slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level}))
	h.Report = event.NewReporter(event.Text(c.App.ErrWriter, c.Bool("quiet")))
	if c.Bool("json") {
		h.Report = event.NewReporter(event.JSON(c.App.Writer))
		c.App.Metadata[reportKey] = h.Report
	}
	return h, nil
}

// directory is a flag's value, else winvm below an XDG base directory.
func directory(flag, xdg, home string) (string, error) {
	if flag != "" {
		return filepath.Abs(flag)
	}
	if base := os.Getenv(xdg); filepath.IsAbs(base) { // others are to be ignored, says XDG
		return filepath.Join(base, "winvm"), nil
	}
	h, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for files: %w; set WINVM_STATE_DIR and WINVM_CACHE_DIR", err)
	}
	return filepath.Join(h, home, "winvm"), nil
}

// oneArg is the one argument a command takes.
func oneArg(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", fmt.Errorf("%s takes one argument, %s; it was given %d", c.Command.HelpName, what, c.NArg())
	}
	return c.Args().First(), nil
}

// noArgs refuses the arguments of a command that takes none.
func noArgs(c *cli.Context) error {
	if c.NArg() != 0 {
		return fmt.Errorf("%s takes no arguments; it was given %q", c.Command.HelpName, c.Args().First())
	}
	return nil
}

var debugSocketFlag = &cli.PathFlag{
	Name:  "debug-socket",
	Usage: "let serialdbg see the channel through a socket at `PATH`, which only you can open",
}
