package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
	"winvm/hostagent/build"
	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/nixbuild"
	"winvm/hostagent/qemu"
)

// nixInputsCommand is the builder of a derivation of lib.nix whose output names all inputs
// of another one, so that its closure is what that one may see.
var nixInputsCommand = &cli.Command{
	Name: "nix-inputs", Hidden: true,
	Usage: "write the attribute text to $out",
	Action: func(*cli.Context) error {
		b, err := os.ReadFile(os.Getenv("textPath"))
		if err != nil {
			return fmt.Errorf("this is the builder of a derivation of lib.nix: %w", err)
		}
		return os.WriteFile(os.Getenv("out"), b, 0o644)
	},
}

// nixBuild is the Nix build that this process is the builder of, if it is one and no flag
// says otherwise.
func nixBuild(c *cli.Context) (*nixbuild.Build, error) {
	if !nixbuild.Detect(os.Getenv) || c.IsSet("out") || c.IsSet("store") || c.Bool("check") {
		return nil, nil
	}
	return nixbuild.Read(os.Environ())
}

// nixDir is for what a Nix build needs no longer than it runs. It is not in the build's
// directory, which the guest sees; in the sandbox it is on the disk of the store, where
// an image may be had without a copy, and it goes with the sandbox.
func nixDir(h *hostagent.Host) (remove func(), err error) {
	dir, err := os.MkdirTemp("/tmp", "winvm-nix-")
	if err != nil {
		return func() {}, fmt.Errorf("a directory for this build's VMs: %w", err)
	}
	h.StateDir, h.CacheDir = filepath.Join(dir, "state"), filepath.Join(dir, "cache")
	return func() { _ = os.RemoveAll(dir) }, os.MkdirAll(h.StateDir, 0o700)
}

// runNixBuild is `hostagent build` as a derivation's builder.
func runNixBuild(c *cli.Context, h *hostagent.Host, n *nixbuild.Build) error {
	end, err := nixDir(h)
	defer end()
	if err != nil {
		return err
	}
	if n.QEMU != "" {
		h.QEMU = n.QEMU
	}
	from := c.String("image")
	if n.Wrapped {
		from = n.Image
	}
	i, err := h.Images().Borrow(c.Context, from)
	if err != nil {
		return err
	}
	if err := checkAccelerator(h, i); err != nil {
		return err
	}
	cfg, err := nixConfig(c, n, i)
	if err != nil {
		return err
	}
	if err := nixHook(c.Context, n, "preVM", n.PreVM); err != nil {
		return err
	}
	if err := n.HideHostFiles(); err != nil {
		return err
	}
	result, err := h.Build(c.Context, cfg)
	if err == nil && result.Status == 0 {
		err = nixHook(c.Context, n, "postVM", n.PostVM)
	} else {
		saveLogs(h, n)
	}
	return buildStatus(c, result, err)
}

// checkAccelerator says once if the guest is emulated, and refuses an image that needs a
// /dev/kvm that is not there.
func checkAccelerator(h *hostagent.Host, i *image.Image) error {
	if i.State == nil || i.State.Accel != string(qemu.KVM) {
		h.Report.Tell(event.KindStage, "the VMs of image %s are emulated (TCG)", i.Name)
		return nil
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("image %s was suspended under KVM, which this build can't use: %w; let the derivation require the system feature kvm, or suspend the image under tcg", i.Name, err)
	}
	return f.Close()
}

// nixConfig is the build that a derivation asks for.
func nixConfig(c *cli.Context, n *nixbuild.Build, i *image.Image) (build.Config, error) {
	p, err := guest.Find(i.Guest)
	if err != nil {
		return build.Config{}, err
	}
	args := c.Args().Slice()
	if n.Wrapped && len(args) == 0 {
		if args, err = n.Command(p); err != nil {
			return build.Config{}, &build.Error{Status: build.StatusCantRun, Err: err}
		}
	}
	dir := c.String("cwd")
	if dir == "" {
		dir = p.XchgPath("")
	}
	return build.Config{
		Image: i.Name, StoreDir: n.Store, Inputs: n.Closure, NoInputs: n.Closure != nil && len(n.Closure) == 0, Outputs: n.Outputs, Xchg: n.Top,
		Env: append(n.Env(p, i.CPUs), c.StringSlice("env")...), Dir: dir, Args: args,
		Timeout: c.Duration("timeout"), MaxSilent: c.Duration("max-silent"), NoLane: c.Bool("no-lane"),
		Stdout: c.App.Writer, Stderr: c.App.ErrWriter, Timeline: event.NewTimeline(processStart()),
	}, nil
}

// nixHook runs one of the derivation's scripts beside the VMs, on the host.
func nixHook(ctx context.Context, n *nixbuild.Build, name, script string) error {
	if script == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, n.Shell, "-e", "-c", script)
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.Top, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s, run by %s: %w", name, n.Shell, err)
	}
	return nil
}

// logsDir is where a failed build's consoles are in its directory, for `nix-build -K`.
const logsDir = "winvm-logs"

// saveLogs copies the consoles of a build that failed. What the guest has put in their
// place stays.
func saveLogs(h *hostagent.Host, n *nixbuild.Build) {
	files, _ := filepath.Glob(filepath.Join(h.StateDir, "logs", "*", "*"))
	root, err := os.OpenRoot(n.Top)
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	if root.Mkdir(logsDir, 0o755) != nil {
		return
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			_ = root.WriteFile(filepath.Join(logsDir, filepath.Base(f)), b, 0o644)
		}
	}
}

// nixImageHost prepares the making of an image as a derivation: the root file systems, which
// a recipe can't fetch in the sandbox, come from the directory winvmRootfs.
func nixImageHost(h *hostagent.Host) (end func(), err error) {
	end, err = nixDir(h)
	if err != nil {
		return end, err
	}
	recipes := filepath.Join(h.CacheDir, "recipes")
	if err := os.MkdirAll(recipes, 0o755); err != nil {
		return end, err
	}
	rootfs := os.Getenv("winvmRootfs")
	entries, err := os.ReadDir(rootfs)
	if err != nil {
		return end, fmt.Errorf("the root file systems, in the attribute winvmRootfs: %w", err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(rootfs, e.Name()), filepath.Join(recipes, e.Name())); err != nil {
			return end, err
		}
	}
	return end, nil
}
