package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"winvm/cmd/cliapp"
	"winvm/hostagent"
)

var psCommand = &cli.Command{
	Name:  "ps",
	Usage: "list the builds, shells, suspends and makings of images that run, and the pairs that are kept",
	Description: `MEMORY is the proportional set size of the host agent and both QEMUs: what several
share is divided among them. With --json (before the command) it prints an array.`,
	Action: func(c *cli.Context) error {
		if err := noArgs(c); err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		runs, err := h.Runs(c.Context)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return printJSON(c.App.Writer, append([]hostagent.Run{}, runs...)) // none is [], not null
		}
		w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tIMAGE\tSTAGE\tELAPSED\tMEMORY\tPIDS\tCOMMAND")
		for _, r := range runs {
			fmt.Fprintln(w, psLine(r, time.Now()))
		}
		return w.Flush()
	},
}

// psLine is a run as a line of a table. What a process says of itself may be anything.
func psLine(r hostagent.Run, now time.Time) string {
	if r.Problem != "" {
		return fmt.Sprintf("%s\t\t(%s)\t\t\t\t", r.ID, cliapp.PrintableLine(r.Problem))
	}
	stage, elapsed := r.Stage, now.Sub(r.Started).Round(100*time.Millisecond)
	if r.Until != nil {
		stage += " until " + r.Until.Local().Format("15:04")
	}
	pids := []string{fmt.Sprint(r.Pid)}
	for _, vm := range []string{"controller", "guest"} {
		if pid, ok := r.QEMU[vm]; ok {
			pids = append(pids, fmt.Sprint(pid))
		}
	}
	command := strings.Join(r.Command, " ")
	if len(command) > 60 {
		command = strings.ToValidUTF8(command[:57], "") + "..."
	}
	return fmt.Sprintf("%s\t%s\t%s\t%v\t%d MiB\t%s\t%s", r.ID, cliapp.PrintableLine(r.Image), cliapp.PrintableLine(stage), elapsed,
		r.PSS>>20, strings.Join(pids, ","), cliapp.PrintableLine(command))
}

var killCommand = &cli.Command{
	Name:        "kill",
	Usage:       "end a build, a shell or a pair that is kept",
	ArgsUsage:   "ID",
	Description: `Returns when it has ended and nothing of it is left. ID may be its last six characters.`,
	Action: func(c *cli.Context) error {
		id, err := idArg(c)
		if err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		return h.Kill(c.Context, id)
	},
}

var screenshotCommand = &cli.Command{
	Name:      "screenshot",
	Usage:     "write the guest's screen, a PNG, to a file or to standard output",
	ArgsUsage: "ID",
	Flags:     []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write; it must not exist"}},
	Action: func(c *cli.Context) error {
		id, err := idArg(c)
		if err != nil {
			return err
		}
		h, err := newHost(c)
		if err != nil {
			return err
		}
		path := c.String("output")
		if f, ok := c.App.Writer.(*os.File); ok && path == "" && term.IsTerminal(int(f.Fd())) {
			return fmt.Errorf("a PNG is nothing for a terminal: -o FILE")
		}
		png, err := h.Screenshot(c.Context, id)
		if err != nil {
			return err
		}
		if path == "" {
			_, err = c.App.Writer.Write(png)
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		if _, err := f.Write(png); err != nil {
			_ = f.Close()
			return err
		}
		return f.Close()
	},
}
