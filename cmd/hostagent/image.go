package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/nixbuild"
)

var imageCommand = &cli.Command{
	Name:  "image",
	Usage: "create, list, show, verify, report and remove images",
	Subcommands: []*cli.Command{
		{
			Name:      "create",
			Usage:     "install and suspend a guest; does nothing if that is done already",
			ArgsUsage: "NAME",
			Flags: append([]cli.Flag{
				&cli.StringFlag{Name: "guest", Value: guest.Default, Usage: "guest `PROFILE`; `hostagent guest list` lists them"},
				&cli.IntFlag{Name: "memory", Usage: "`MIB` of the guest's memory (default: the profile's)"},
				&cli.IntFlag{Name: "cpus", Usage: "`N` CPUs of the guest (default: the profile's)"},
				&cli.BoolFlag{Name: "rebuild", Usage: "make the root file systems anew, from today's packages"},
			}, append(mediumFlags, suspendFlags...)...),
			Action: createImage,
		},
		{Name: "list", Usage: "list the images", Action: listImages},
		{Name: "show", Usage: "show what an image is", ArgsUsage: "NAME", Action: showImage},
		{Name: "verify", Usage: "compare every file of an image with its digest", ArgsUsage: "NAME", Action: verifyImage},
		{Name: "export", Usage: "write a suspended image to a directory, for Nix builds", ArgsUsage: "NAME DIR", Action: exportImage},
		{
			Name: "report", Usage: "pack what an image keeps of its install, without secrets, for somebody else to look at", ArgsUsage: "NAME",
			Flags:  []cli.Flag{&cli.PathFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `FILE` (default: NAME-report.tar.gz)"}},
			Action: reportImage,
		},
		{Name: "remove", Usage: "remove an image", ArgsUsage: "NAME", Action: removeImage},
	},
}

func createImage(c *cli.Context) error {
	name, err := oneArg(c, "the image's NAME")
	if err != nil {
		return err
	}
	h, err := newHost(c)
	if err != nil {
		return err
	}
	o, err := suspendOptions(c)
	if err != nil {
		return err
	}
	if nixbuild.Detect(os.Getenv) {
		end, err := nixImageHost(h)
		defer end()
		if err != nil {
			return err
		}
	}
	m, err := mediumOptions(c)
	if err != nil {
		return err
	}
	i, err := h.CreateImage(c.Context, hostagent.CreateOptions{
		Name: name, Guest: c.String("guest"), MemoryMiB: c.Int("memory"), CPUs: c.Int("cpus"), Rebuild: c.Bool("rebuild"),
		Profile: c.Path("profile"), Medium: m, InstallOnly: c.Bool("install-only"), SuspendOptions: o,
	})
	if err != nil {
		return err
	}
	if nixbuild.Detect(os.Getenv) {
		if i, err = h.Images().Load(name); err == nil {
			err = i.Export(c.Context, os.Getenv("out"))
		}
		if err != nil {
			return err
		}
	}
	h.Report.Result(event.KindResult, i.Meta, "")
	return nil
}

func exportImage(c *cli.Context) error {
	if c.NArg() != 2 {
		return fmt.Errorf("hostagent image export takes two arguments, the image's NAME and a DIR that does not exist yet; it was given %d", c.NArg())
	}
	h, err := newHost(c)
	if err != nil {
		return err
	}
	i, err := h.Images().Load(c.Args().First())
	if err != nil {
		return err
	}
	unlock, err := h.Images().LockShared(c.Context, i.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if i, err = h.Images().Load(i.Name); err != nil { // a suspend may have been at work until now
		return err
	}
	return i.Export(c.Context, c.Args().Get(1))
}

func listImages(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	h, err := newHost(c)
	if err != nil {
		return err
	}
	names, err := h.Images().List()
	if err != nil {
		return err
	}
	metas := []image.Meta{} // in JSON none is [], not null
	for _, n := range names {
		i, err := h.Images().Load(n)
		if err != nil {
			metas = append(metas, image.Meta{Name: n, Guest: "(" + err.Error() + ")"})
			continue
		}
		metas = append(metas, i.Meta)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, metas)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tGUEST\tMEMORY\tCPUS\tSUSPENDED\tQEMU\tACCEL")
	for _, m := range metas {
		suspended, version, acc := "no", "", ""
		if m.State != nil {
			suspended, version, acc = m.State.Suspended.Format("2006-01-02 15:04"), m.State.QEMU, m.State.Accel
		}
		fmt.Fprintf(w, "%s\t%s\t%d MiB\t%d\t%s\t%s\t%s\n", m.Name, m.Guest, m.MemoryMiB, m.CPUs, suspended, version, acc)
	}
	return w.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// loadImage is how the commands on one image begin.
func loadImage(c *cli.Context) (*hostagent.Host, *image.Image, error) {
	name, err := oneArg(c, "the image's NAME")
	if err != nil {
		return nil, nil, err
	}
	h, err := newHost(c)
	if err != nil {
		return nil, nil, err
	}
	i, err := h.Images().Load(name)
	return h, i, err
}

func showImage(c *cli.Context) error {
	_, i, err := loadImage(c)
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, i.Meta)
}

func verifyImage(c *cli.Context) error {
	h, i, err := loadImage(c)
	if err != nil {
		return err
	}
	h.Report.Stage("verify", "reading every file of image %s", i.Name)
	if err := i.Verify(c.Context); err != nil {
		return err
	}
	h.Report.Stage("done", "image %s is as it was written", i.Name)
	return nil
}

func reportImage(c *cli.Context) error {
	h, i, err := loadImage(c)
	if err != nil {
		return err
	}
	file := c.Path("out")
	if file == "" {
		file = i.Name + "-report.tar.gz"
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if err := errors.Join(h.PackReport(i, f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	h.Report.Stage("done", "%s", file)
	return nil
}

func removeImage(c *cli.Context) error {
	name, err := oneArg(c, "the image's NAME")
	if err != nil {
		return err
	}
	h, err := newHost(c)
	if err != nil {
		return err
	}
	return h.Images().Remove(c.Context, name)
}
