package cliapp

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// Man makes the command that prints the manual page of a program.
func Man(program string) *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "print the manual page, made of the commands' help",
		Description: "To read it: " + program + " man | man -l -",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("man takes no arguments; it was given %q", c.Args().First())
			}
			page, err := c.App.ToManWithSection(1)
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.App.Writer, page)
			return err
		},
	}
}
