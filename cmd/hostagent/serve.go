package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
)

var serveCommand = &cli.Command{
	Name:  "serve",
	Usage: "serve the shares on a socket, without a VM, for `controlleragent mount`",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "socket", Usage: "`PATH` of the Unix socket to listen on"},
		&cli.StringFlag{Name: "store", Usage: "store `DIR` to serve as the share nixstore"},
		&cli.StringSliceFlag{Name: "input", Usage: "store `PATH` to serve, with its closure; none = the whole store"},
		&cli.StringFlag{Name: "xchg", Usage: "`DIR` to serve as the share xchg"},
		debugSocketFlag,
	},
	Action: func(c *cli.Context) error {
		if err := noArgs(c); err != nil {
			return err
		}
		if c.String("socket") == "" {
			return errors.New("--socket is missing: a path to listen on, which `controlleragent mount --socket` then names")
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		return h.Serve(c.Context, hostagent.ServeOptions{
			Socket: c.String("socket"), Store: c.String("store"), Inputs: c.StringSlice("input"), Xchg: c.String("xchg"),
			DebugSocket: c.Path("debug-socket"),
		})
	},
}
