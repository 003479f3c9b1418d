package main

import "github.com/urfave/cli/v2"

var suspendCommand = &cli.Command{
	Name:      "suspend",
	Usage:     "boot an installed image and suspend it anew",
	ArgsUsage: "NAME",
	Flags:     []cli.Flag{noLaneFlag},
	Description: `Needed after an upgrade of QEMU or of winvm; harmless at any other time. Builds
that run go on; the old state is used until the new one is complete.`,
	Action: func(c *cli.Context) error {
		name, err := oneArg(c, "the image's NAME")
		if err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		_, err = h.Suspend(c.Context, name, c.Bool("no-lane"))
		return err
	},
}
