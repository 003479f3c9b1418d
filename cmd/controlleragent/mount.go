package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"winvm/controlleragent"
)

var mountCommand = &cli.Command{
	Name:      "mount",
	Usage:     "mount a share that `hostagent serve` serves, until interrupted or unmounted",
	ArgsUsage: "MOUNTPOINT",
	Flags: []cli.Flag{
		&cli.PathFlag{Name: "socket", Required: true, Usage: "`PATH` of hostagent's socket"},
		&cli.StringFlag{Name: "share", Required: true, Usage: "nixstore or xchg"},
		&cli.BoolFlag{Name: "allow-other", Usage: "let other users in"},
	},
	Action: func(c *cli.Context) error {
		if c.NArg() != 1 {
			return fmt.Errorf("mount takes one argument, the MOUNTPOINT; it was given %d", c.NArg())
		}
		return controlleragent.MountShare(c.Context, controlleragent.MountConfig{
			Socket: c.Path("socket"), Share: c.String("share"), Dir: c.Args().First(),
			AllowOther: c.Bool("allow-other"), Build: version,
			Ready: func() { fmt.Fprintf(c.App.Writer, "mounted %s\n", c.Args().First()) },
		}, newLog(c))
	},
}
