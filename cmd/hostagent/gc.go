package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"winvm/cmd/cliapp"
	"winvm/hostagent/garbage"
)

var gcCommand = &cli.Command{
	Name:  "gc",
	Usage: "remove what nobody uses",
	Description: `That is: directories of killed runs; images and states that were never finished; and,
if they are old enough, what --keep-failed kept, logs, and root file systems in the
cache that belong to no image and no recipe any more. What is in use stays. With
--json (before the command) it prints an object.`,
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "only say what would go"},
		&cli.DurationFlag{Name: "older-than", Value: 7 * 24 * time.Hour, Usage: "age of what is kept, logs and the cache: `D`"},
	},
	Action: func(c *cli.Context) error {
		if err := noArgs(c); err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		if c.Duration("older-than") < 0 {
			return errors.New("--older-than must not be negative")
		}
		dry := c.Bool("dry-run")
		gone, err := h.GC(c.Context, c.Duration("older-than"), dry)
		return errors.Join(printGone(c, gone, dry), err)
	},
}

func printGone(c *cli.Context, gone []garbage.Item, dry bool) error {
	var sum int64
	for _, i := range gone {
		sum += i.Bytes
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, struct {
			Removed []garbage.Item `json:"removed"`
			Bytes   int64          `json:"bytes"`
			DryRun  bool           `json:"dry_run"`
		}{gone, sum, dry})
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	for _, i := range gone {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", i.Kind, mib(i.Bytes), cliapp.PrintableLine(i.Path), i.Why)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	verb := "removed"
	if dry {
		verb = "would be removed"
	}
	_, err := fmt.Fprintf(c.App.Writer, "%d things with %s %s\n", len(gone), mib(sum), verb)
	return err
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
