package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"winvm/cmd/cliapp"
	"winvm/hostagent"
	"winvm/hostagent/rundir"
)

var logsCommand = &cli.Command{
	Name:      "logs",
	Usage:     "print the consoles of a run's VMs, and where its other logs are",
	ArgsUsage: "[ID]",
	Description: `Works on runs that are over, too: the last 20 that failed and the last 20 others
are kept. Without an ID it lists them. ID may be its last six characters.`,
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the run has ended"},
		&cli.StringFlag{Name: "vm", Usage: "one `VM` only: controller or guest, without its name before each line"},
	},
	Action: runLogs,
}

func runLogs(c *cli.Context) error {
	h, err := newHost(c)
	if err != nil {
		return err
	}
	if c.NArg() == 0 {
		return listLogs(c, h)
	}
	id, err := idArg(c)
	if err != nil {
		return err
	}
	l, err := h.Logs(id)
	if err != nil {
		return err
	}
	if vm := c.String("vm"); vm != "" {
		if l.Names = []string{vm + ".console"}; vm != "controller" && vm != "guest" {
			return fmt.Errorf("--vm %s: there are controller and guest", vm)
		}
	} else {
		fmt.Fprintf(c.App.ErrWriter, "hostagent: the logs of run %s are in %s\n", l.ID, l.Dir)
	}
	p := &linePrinter{w: c.App.Writer, bare: c.String("vm") != "", rest: map[string][]byte{}}
	if c.Bool("follow") {
		err = h.FollowLogs(c.Context, l, p.piece)
	} else {
		err = printLogs(l, p)
	}
	p.flush()
	return err
}

func listLogs(c *cli.Context, h *hostagent.Host) error {
	ids, err := rundir.Logs(h.StateDir)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, append([]string{}, ids...))
	}
	for _, id := range ids {
		fmt.Fprintln(c.App.Writer, id)
	}
	return nil
}

func printLogs(l hostagent.LogFiles, p *linePrinter) error {
	for _, name := range l.Names {
		f, err := os.Open(filepath.Join(l.Dir, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if werr := p.piece(name, buf[:n]); werr != nil {
				_ = f.Close()
				return werr
			}
			if err != nil {
				break
			}
		}
		_ = f.Close()
	}
	return nil
}

// A linePrinter prints consoles by line, each with its VM's name, and nothing that
// could confuse a terminal: it comes from a VM.
type linePrinter struct {
	w    io.Writer
	bare bool
	rest map[string][]byte // by file: a line that has begun
}

// maxLine is at which length a line is printed although it has no end yet.
const maxLine = 16 << 10

func (p *linePrinter) piece(name string, b []byte) error {
	all := append(p.rest[name], b...)
	for {
		i := bytes.IndexByte(all, '\n')
		if i < 0 && len(all) < maxLine {
			break
		}
		if i < 0 {
			i = maxLine - 1
		}
		if err := p.line(name, all[:i]); err != nil {
			return err
		}
		all = all[i+1:]
	}
	p.rest[name] = append([]byte(nil), all...)
	return nil
}

func (p *linePrinter) line(name string, b []byte) error {
	text := cliapp.Printable(strings.TrimRight(strings.ToValidUTF8(string(b), "?"), "\r"))
	if !p.bare {
		text = fmt.Sprintf("%-10s | %s", strings.TrimSuffix(name, ".console"), text)
	}
	_, err := fmt.Fprintln(p.w, text)
	return err
}

func (p *linePrinter) flush() {
	for name, b := range p.rest {
		if len(b) > 0 {
			_ = p.line(name, b)
		}
	}
}
