package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

var machinesCommand = &cli.Command{
	Name:      "machines-file",
	Usage:     "print this host's line for another machine's /etc/nix/machines",
	ArgsUsage: "URI",
	Description: `URI is how the other machine reaches this one, as ssh-ng://root@HOST. As many builds
at once are offered as there are CPUs and memory for.`,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "key", Usage: "`FILE` with the SSH key, on the other machine"},
		&cli.IntFlag{Name: "speed", Value: 1, Usage: "this machine's speed: `N` times another one's"},
		&cli.StringFlag{Name: "guest", Value: "wine", Usage: "guest `PROFILE` whose needs are reckoned with"},
		&cli.IntFlag{Name: "memory", Usage: "`MIB` of the guest's memory (default: the profile's)"},
	},
	Action: func(c *cli.Context) error {
		uri, err := oneArg(c, "the URI of this host, as ssh-ng://root@HOST")
		if err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		m, err := h.Machine(c.Context, c.String("guest"), c.Int("memory"))
		if err != nil {
			return err
		}
		m.URI, m.Key, m.Speed = uri, c.String("key"), c.Int("speed")
		line, err := m.Line()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, line)
		return err
	},
}
