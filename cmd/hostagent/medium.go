package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
)

// mediumFlags are for guests that are installed from their vendor's medium.
var mediumFlags = []cli.Flag{
	profileFlag,
	&cli.PathFlag{Name: "iso", Usage: "install from the vendor's ISO `FILE`"},
	&cli.StringFlag{Name: "arch", Usage: "`ARCH` of the guest: x86_64 or i686 (default: the profile's)"},
	&cli.StringFlag{Name: "edition", Usage: "`NAME` or ID of the edition to install (default: the profile's first that the ISO has)"},
	&cli.StringFlag{Name: "product-key", EnvVars: []string{"WINVM_PRODUCT_KEY"}, Usage: "product `KEY`; other users can see command lines, so --product-key-file is better"},
	&cli.PathFlag{Name: "product-key-file", Usage: "take the product key from `FILE`"},
	&cli.PathFlag{Name: "openssh-zip", Usage: "`FILE` with a release of Win32-OpenSSH"},
	&cli.StringFlag{Name: "openssh-sha256", Usage: "the SHA-256 that the zip must have, in `HEX`"},
	&cli.PathFlag{Name: "virtio-win", Usage: "virtio-win's ISO `FILE`, for drivers"},
	&cli.PathFlag{Name: "cygwin", Usage: "`DIR` with a local mirror of Cygwin: setup.ini, setup.exe, packages"},
	&cli.IntFlag{Name: "disk", Usage: "`GIB` of the guest's disk (default: the profile's)"},
	&cli.StringFlag{Name: "display", Usage: "show the screen of the install at `WHERE`: vnc=unix:PATH or vnc=127.0.0.1:N"},
	&cli.BoolFlag{Name: "install-only", Usage: "do not suspend the guest"},
}

// maxKeyFile bounds the file of --product-key-file.
const maxKeyFile = 4096

func mediumOptions(c *cli.Context) (hostagent.MediumOptions, error) {
	o := hostagent.MediumOptions{
		ISO: c.Path("iso"), Arch: c.String("arch"), Edition: c.String("edition"), ProductKey: c.String("product-key"),
		OpenSSHZip: c.Path("openssh-zip"), OpenSSHSHA256: c.String("openssh-sha256"),
		VirtioWin: c.Path("virtio-win"), CygwinMirror: c.Path("cygwin"), DiskGiB: c.Int("disk"), Display: c.String("display"),
	}
	file := c.Path("product-key-file")
	if file == "" {
		return o, nil
	}
	if o.ProductKey != "" {
		return o, fmt.Errorf("--product-key and --product-key-file: want one of them")
	}
	f, err := os.Open(file)
	if err != nil {
		return o, fmt.Errorf("--product-key-file: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	o.ProductKey = strings.TrimSpace(string(b))
	return o, err
}
