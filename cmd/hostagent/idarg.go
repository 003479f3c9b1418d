package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// idArg is the ID of a command on one run. Flags may stand behind it: the library
// takes them before arguments only, and `logs ID -f` is what people type.
func idArg(c *cli.Context) (string, error) {
	args := c.Args().Slice()
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return "", fmt.Errorf("%s takes a run's ID; `hostagent ps` lists those that run", c.Command.HelpName)
	}
	id, args := args[0], args[1:]
	for len(args) > 0 {
		name, value, hasValue := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		flag := flagOf(c.Command, name)
		if flag == nil || !strings.HasPrefix(args[0], "-") {
			return "", fmt.Errorf("%s takes one run's ID; what is %q?", c.Command.HelpName, args[0])
		}
		args = args[1:]
		if _, isBool := flag.(*cli.BoolFlag); isBool && !hasValue {
			value, hasValue = "true", true
		}
		if !hasValue && len(args) == 0 {
			return "", fmt.Errorf("%s: the flag %s needs a value", c.Command.HelpName, name)
		}
		if !hasValue {
			value, args = args[0], args[1:]
		}
		if err := c.Set(flag.Names()[0], value); err != nil {
			return "", fmt.Errorf("flag %s: %w", name, err)
		}
	}
	return id, nil
}

func flagOf(c *cli.Command, name string) cli.Flag {
	for _, f := range c.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}
