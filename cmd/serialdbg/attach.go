package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

var attachCommand = &cli.Command{
	Name:      "attach",
	Usage:     "talk to a console on a socket or device",
	ArgsUsage: "SOCKET|DEVICE",
	Description: `What is typed goes there, byte by byte, and what comes is shown as it is. A terminal is made
raw; Ctrl-] ends it. Of a VM that another launcher has made: -chardev socket,path=…,server=on,wait=off.`,
	Action: func(c *cli.Context) error {
		name, err := oneArg(c, "a SOCKET or DEVICE")
		if err != nil {
			return err
		}
		link, _, err := openLink(name)
		if err != nil {
			return err
		}
		defer func() { _ = link.Close() }()
		stop := context.AfterFunc(c.Context, func() { _ = link.Close() })
		defer stop()
		if f, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			state, err := term.MakeRaw(int(f.Fd()))
			if err != nil {
				return err
			}
			defer func() { _ = term.Restore(int(f.Fd()), state) }()
			fmt.Fprintf(c.App.ErrWriter, "attached to %s; Ctrl-] ends it\r\n", name)
		}
		go func() { // a read of a terminal can't be broken off: it may stay until the end
			if typed(c.App.Reader, link) {
				_ = link.Close()
			}
		}()
		_, err = io.Copy(c.App.Writer, link)
		if errors.Is(err, os.ErrClosed) || c.Err() != nil {
			return nil
		}
		return err
	},
}

// escape is Ctrl-].
const escape = 0x1d

// typed passes on what is typed, and reports whether that ended by the escape.
func typed(r io.Reader, w io.Writer) bool {
	buf := make([]byte, 256)
	for {
		n, err := r.Read(buf)
		for i, b := range buf[:n] {
			if b == escape {
				_, _ = w.Write(buf[:i])
				return true
			}
		}
		if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
			return false
		}
	}
}
