package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
	"winvm/hostagent/build"
	"winvm/hostagent/image"
)

// suspendFlags are flags of all commands that suspend.
var suspendFlags = []cli.Flag{
	&cli.StringSliceFlag{Name: "warm", KeepSpace: true, Usage: "store `PATH` that builds will read, with its closure: what it has is kept in the controller's caches"},
	&cli.StringFlag{Name: "store", Value: build.DefaultStore, Usage: "store `DIR` that --warm means"},
	&cli.IntFlag{Name: "controller-memory", Usage: "`MIB` of the controller's memory (default: 512, or what it was)"},
	noLaneFlag,
}

// suspendOptions reads the flags of suspendFlags.
func suspendOptions(c *cli.Context) (hostagent.SuspendOptions, error) {
	o := hostagent.SuspendOptions{ControllerMiB: c.Int("controller-memory"), Cold: c.Bool("cold"), NoLane: c.Bool("no-lane")}
	warm := c.StringSlice("warm")
	if len(warm) == 0 {
		if c.IsSet("store") {
			return o, errors.New("--store says where --warm inputs are: give --warm too")
		}
		return o, nil
	}
	if o.Cold {
		return o, errors.New("--warm and --cold exclude each other")
	}
	store, err := filepath.Abs(c.String("store"))
	if err != nil {
		return o, fmt.Errorf("--store: %w", err)
	}
	inputs, err := build.AbsoluteInputs(warm)
	o.Warm = &image.Warm{Store: store, Inputs: inputs}
	return o, err
}

var suspendCommand = &cli.Command{
	Name:      "suspend",
	Usage:     "boot an installed image and suspend it anew",
	ArgsUsage: "NAME",
	Description: `Needed after an upgrade of QEMU or of winvm; harmless at any other time. Builds
that run go on; the old state is used until the new one is complete. What is to be
warm, and the controller's memory, stay what they are unless something else is asked for.`,
	Flags: append([]cli.Flag{
		&cli.BoolFlag{Name: "cold", Usage: "keep no inputs warm any more"},
	}, suspendFlags...),
	Action: func(c *cli.Context) error {
		name, err := oneArg(c, "the image's NAME")
		if err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		o, err := suspendOptions(c)
		if err != nil {
			return err
		}
		_, err = h.Suspend(c.Context, name, o)
		return err
	},
}
