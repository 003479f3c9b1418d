package main

import (
	"github.com/urfave/cli/v2"

	"winvm/hostagent/doctor"
)

var doctorCommand = &cli.Command{
	Name:  "doctor",
	Usage: "look at what this host has and lacks, and say what to do about it",
	Description: `Exits with 1 if something is missing without which nothing works. With --json
(before the command) it prints an array of checks: name, status (ok, warn or
fail), found, hint.`,
	Action: func(c *cli.Context) error {
		if err := noArgs(c); err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		checks := h.Doctor(c.Context)
		if err := c.Err(); err != nil { // what was found then means nothing
			return err
		}
		if c.Bool("json") {
			err = printJSON(c.App.Writer, checks)
		} else {
			err = doctor.Print(c.App.Writer, checks)
		}
		if err == nil && doctor.Failed(checks) {
			return &statusError{status: 1}
		}
		return err
	},
}
