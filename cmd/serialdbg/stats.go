package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"winvm/transport/capture"
	"winvm/transport/inspect"
)

var statsCommand = &cli.Command{
	Name:      "stats",
	Usage:     "add up what went over the channel: operations, latencies, round trips a file",
	ArgsUsage: "CAPTURE",
	Description: `Latencies are those seen where the capture was made, to 5 %. With a debug socket the
table is shown anew every --every, and for a last time when the channel has ended.`,
	Flags: []cli.Flag{
		filterFlag,
		&cli.BoolFlag{Name: "json", Usage: "write JSON objects"},
		&cli.DurationFlag{Name: "every", Value: time.Second, Usage: "with a debug socket: every `D`"},
	},
	Action: runStats,
}

func runStats(c *cli.Context) error {
	name, err := oneArg(c, "a CAPTURE")
	if err != nil {
		return err
	}
	filter, err := inspect.NewFilter(c.String("filter"))
	if err != nil {
		return err
	}
	if c.Duration("every") <= 0 {
		return errors.New("--every must be positive")
	}
	src, err := open(c.Context, c, name, 0)
	if err != nil {
		return err
	}
	defer src.close()
	stats := inspect.NewStats()
	d := inspect.NewDecoder(func(e *inspect.Event) {
		if filter.Match(e) {
			stats.Add(e)
		}
	})
	type item struct {
		p   capture.Packet
		err error
	}
	// Packets are read by another goroutine, so that the table changes also while
	// nothing comes. It ends with the source.
	items := make(chan item, 64)
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		defer close(items)
		done <- src.each(c.Context, func(p *capture.Packet) error {
			q := *p
			q.Data = append([]byte(nil), p.Data...)
			select {
			case items <- item{p: q}:
				return nil
			case <-stop:
				return errors.New("stopped")
			}
		}, func(err error) {
			select {
			case items <- item{err: err}:
			case <-stop:
			}
		})
	}()
	defer func() { close(stop); src.close() }()
	var tick <-chan time.Time
	if src.live {
		t := time.NewTicker(c.Duration("every"))
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case i, ok := <-items:
			switch {
			case !ok:
				d.End()
				if err := printStats(c, stats.Report(), src.live); err != nil {
					return err
				}
				if err := <-done; err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				return nil
			case i.err != nil:
				d.Problem(i.err)
			default:
				stats.Link(i.p.From, len(i.p.Data))
				d.Packet(&i.p)
			}
		case <-tick:
			if err := printStats(c, stats.Report(), true); err != nil {
				return err
			}
		}
	}
}

func printStats(c *cli.Context, r inspect.Report, live bool) error {
	if c.Bool("json") {
		return r.JSON(c.App.Writer)
	}
	if f, ok := c.App.Writer.(*os.File); ok && live && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		fmt.Fprint(c.App.Writer, "\x1b[H\x1b[2J")
	}
	return r.Print(c.App.Writer)
}
