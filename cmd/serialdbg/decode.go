package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"winvm/transport/capture"
	"winvm/transport/inspect"
)

var filterFlag = &cli.StringFlag{Name: "filter", Aliases: []string{"f"}, Usage: "show only what fits `EXPR`, such as 'op==read && ms>5'"}

var decodeCommand = &cli.Command{
	Name:      "decode",
	Usage:     "say what went over the channel, a line each",
	ArgsUsage: "CAPTURE",
	Description: `Requests and responses are matched; a response shows how long it took. A filter
compares fields with ==, !=, <, <=, >, >= and ~ (contains), joined by &&, ||, ! and
brackets. Fields: t (seconds), ms, op, kind, layer, stream, share, from, bytes, tag,
errno, slot, epoch, seq, link, problem, text, and what requests and responses show.

What is damaged is shown up to the damage, and from where something begins again.
The exit status is 1 if the capture is damaged or cut.`,
	Flags: []cli.Flag{
		filterFlag,
		&cli.BoolFlag{Name: "json", Usage: "write each as a JSON object"},
		&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "show windows and pieces of streams, too"},
	},
	Action: func(c *cli.Context) error {
		name, err := oneArg(c, "a CAPTURE")
		if err != nil {
			return err
		}
		filter, err := inspect.NewFilter(c.String("filter"))
		if err != nil {
			return err
		}
		src, err := open(c.Context, c, name, 0)
		if err != nil {
			return err
		}
		defer src.close()
		out := bufio.NewWriter(c.App.Writer)
		show := &shower{out: out, json: c.Bool("json"), all: c.Bool("all"), filter: filter}
		d := inspect.NewDecoder(show.event)
		err = src.each(c.Context, func(p *capture.Packet) error {
			d.Packet(p)
			if src.live && show.err == nil {
				show.err = out.Flush()
			}
			return show.err
		}, d.Problem)
		d.End()
		if ferr := out.Flush(); show.err == nil {
			show.err = ferr
		}
		if show.err != nil {
			return show.err
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	},
}

// A shower writes events.
type shower struct {
	out       io.Writer
	json, all bool
	filter    *inspect.Filter
	err       error
}

func (s *shower) event(e *inspect.Event) {
	if s.err != nil || e.Quiet() && !s.all || !s.filter.Match(e) {
		return
	}
	if !s.json {
		_, s.err = fmt.Fprintln(s.out, e)
		return
	}
	b, err := json.Marshal(e)
	if err == nil {
		_, err = s.out.Write(append(b, '\n'))
	}
	s.err = err
}
