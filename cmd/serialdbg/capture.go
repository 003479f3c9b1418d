package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"winvm/transport/capture"
)

var captureCommand = &cli.Command{
	Name:      "capture",
	Usage:     "write what goes over the channel of a host agent at work into a file",
	ArgsUsage: "DEBUG-SOCKET",
	Description: `The socket is that of hostagent build (or shell, serve) --debug-socket PATH. The file
is a pcapng file, for serialdbg decode and Wireshark. It has all that passes: contents
of files, command lines, environments.

With --ring only the last SIZE bytes are kept, and the first 128 KiB of either side,
in memory; they are written at the end of the channel or when serialdbg is interrupted.`,
	Flags: []cli.Flag{
		&cli.PathFlag{Name: "output", Aliases: []string{"o"}, Required: true, Usage: "`FILE` to write, - for standard output"},
		&cli.StringFlag{Name: "ring", Usage: "keep only the last `SIZE` bytes: 64M"},
		&cli.DurationFlag{Name: "for", Usage: "stop after `D`"},
		&cli.DurationFlag{Name: "wait", Usage: "wait up to `D` for the socket to appear"},
	},
	Action: runCapture,
}

func runCapture(c *cli.Context) (err error) {
	name, err := oneArg(c, "a DEBUG-SOCKET")
	if err != nil {
		return err
	}
	ring, err := parseSize(c.String("ring"))
	if err != nil {
		return fmt.Errorf("--ring: %w", err)
	}
	if c.Duration("for") < 0 || c.Duration("wait") < 0 {
		return errors.New("--for and --wait must not be negative")
	}
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	src, err := open(ctx, c, name, c.Duration("wait"))
	if err != nil {
		return err
	}
	defer src.close()
	if d := c.Duration("for"); d > 0 {
		defer time.AfterFunc(d, cancel).Stop()
	}
	out, finish, err := create(c)
	if err != nil {
		return err
	}
	defer func() {
		if ferr := finish(); err == nil {
			err = ferr
		}
	}()
	w, err := capture.NewWriter(out)
	if err != nil {
		return err
	}
	var kept *capture.Ring
	if ring > 0 {
		kept = capture.NewRing(ring)
	}
	var packets, bytes int64
	err = src.each(ctx, func(p *capture.Packet) error {
		packets++
		bytes += int64(len(p.Data))
		if kept != nil {
			kept.Add(p)
			return nil
		}
		if err := w.Write(p); err != nil {
			return err
		}
		return out.Flush()
	}, func(err error) { fmt.Fprintf(c.App.ErrWriter, "serialdbg: %v\n", err) })
	if kept != nil {
		for _, p := range kept.Packets() {
			if werr := w.Write(p); werr != nil {
				return werr
			}
		}
	}
	fmt.Fprintf(c.App.ErrWriter, "serialdbg: %d packets, %d bytes of the channel\n", packets, bytes)
	return err
}

// create makes the file for a capture, which others may not read.
func create(c *cli.Context) (out *bufio.Writer, finish func() error, err error) {
	if c.Path("output") == "-" {
		out = bufio.NewWriter(c.App.Writer)
		return out, out.Flush, nil
	}
	f, err := os.OpenFile(c.Path("output"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	out = bufio.NewWriter(f)
	return out, func() error { return errors.Join(out.Flush(), f.Close()) }, nil
}

// parseSize takes a number of bytes, with K, M or G.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimRight(s, "KMG")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit := map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[s[len(digits):]]
	if err != nil || n <= 0 || unit == 0 || n > 1<<40/unit {
		return 0, fmt.Errorf("%q is not a size: a number of bytes, with K, M or G", s)
	}
	return n * unit, nil
}
