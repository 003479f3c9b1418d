package main

import (
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"winvm/transport/fsrpc"
)

// dissector is the Lua program, without the names of the operations.
//
//go:embed winvm.lua
var dissector string

var dissectorCommand = &cli.Command{
	Name:  "dissector",
	Usage: "print a dissector for Wireshark, in Lua",
	Description: `To use it: serialdbg dissector >~/.local/lib/wireshark/plugins/winvm.lua
or         serialdbg dissector >winvm.lua; tshark -X lua_script:winvm.lua -r CAPTURE
Fields: winvm.op, winvm.tag, winvm.kind, winvm.name, winvm.errno, winvm.resync, ...`,
	Action: func(c *cli.Context) error {
		if c.Args().Present() {
			return fmt.Errorf("dissector takes no arguments; it was given %q", c.Args().First())
		}
		var ops strings.Builder
		for op := uint16(1); fsrpc.OpName(op) != ""; op++ {
			fmt.Fprintf(&ops, "[%d] = %q, ", op, fsrpc.OpName(op))
		}
		_, err := io.WriteString(c.App.Writer, strings.Replace(dissector, "--[[OPS]]", strings.TrimSuffix(ops.String(), ", "), 1))
		return err
	},
}
