package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"

	"winvm/hostagent/accel"
	"winvm/hostagent/build"
	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/install"
	"winvm/hostagent/manifest"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/setup"
	"winvm/hostagent/suspend"
)

// Files among the helpers.
const (
	agentFile  = "controlleragent"
	runnerFile = "winvm-run.exe"
)

// A Host is where and with what everything is done.
type Host struct {
	StateDir   string
	CacheDir   string
	LibexecDir string
	QEMU       string // binary
	Accel      string // auto, kvm or tcg
	Version    string
	Report     *event.Reporter
	Log        *slog.Logger
}

// Images is the store of images.
func (h *Host) Images() *image.Store { return image.NewStore(h.StateDir) }

// CreateOptions say what image to create.
type CreateOptions struct {
	Name, Guest     string
	MemoryMiB, CPUs int
	Rebuild         bool
	// Profile is a user's own, "" = the one called Guest; Medium is for guests that are
	// installed from their vendor's.
	Profile string
	Medium  MediumOptions
	// InstallOnly leaves the suspend out.
	InstallOnly bool
	SuspendOptions
}

// MediumOptions say what to install a guest from.
type MediumOptions struct {
	ISO, Arch, Edition        string
	ProductKey                string
	OpenSSHZip, OpenSSHSHA256 string
	VirtioWin, CygwinMirror   string
	DiskGiB                   int
	Display                   string
}

// SuspendOptions say what to change of an image when it is suspended.
type SuspendOptions struct {
	ControllerMiB int         // 0 = as it is
	Warm          *image.Warm // nil = as it is
	Cold          bool        // nothing is to be warm
	NoLane        bool        // a controller that shares no memory with the host agent, for a QEMU that can't
}

// change is what the options make of an image's description.
func (o *SuspendOptions) change(m *image.Meta) {
	if o.ControllerMiB != 0 {
		m.ControllerMiB = o.ControllerMiB
	}
	if o.Warm != nil || o.Cold {
		m.Warm = o.Warm
	}
}

// changes reports whether the options ask for something else than there is.
func (o *SuspendOptions) changes(m image.Meta) bool {
	after := m
	o.change(&after)
	return after.ControllerMemory() != m.ControllerMemory() || !reflect.DeepEqual(after.Warm, m.Warm)
}

// CreateImage installs and suspends. What is done already is not done again.
func (h *Host) CreateImage(ctx context.Context, o CreateOptions) (*image.Image, error) {
	if err := image.CheckName(o.Name); err != nil {
		return nil, err
	}
	if err := pair.CheckControllerMemory(o.ControllerMiB); err != nil {
		return nil, err
	}
	if _, err := h.helpers(); err != nil { // before the long part
		return nil, err
	}
	version, err := qemu.Version(ctx, h.QEMU)
	if err != nil {
		return nil, err
	}
	ctx, m, err := h.begin(ctx, "(image create)", o.Name)
	if err != nil {
		return nil, err
	}
	i, err := h.create(ctx, o, version, m)
	return i, m.close(ctx, err)
}

func (h *Host) create(ctx context.Context, o CreateOptions, version string, m *making) (*image.Image, error) {
	i, err := h.install(ctx, o, m)
	if err != nil {
		return nil, err
	}
	if o.InstallOnly {
		h.Report.Stage("done", "image %s is installed; `hostagent suspend %s` suspends it", i.Name, i.Name)
		return i, nil
	}
	if err := i.Check(version); err == nil && h.current(i) && !o.changes(i.Meta) {
		h.Report.Stage("done", "image %s is there and suspended already", i.Name)
		return i, nil
	}
	return i, h.suspend(ctx, i, o.SuspendOptions, m)
}

// install is stage 1: by a recipe, or from the vendor's medium.
func (h *Host) install(ctx context.Context, o CreateOptions, m *making) (*image.Image, error) {
	p, source, err := h.profile(o)
	if err != nil {
		return nil, err
	}
	if p.Setup == nil {
		if o.Medium != (MediumOptions{}) {
			return nil, fmt.Errorf("guest %s is made by a recipe: --iso and what belongs to it are for guests that are installed from a medium", p.Name)
		}
		return install.Install(ctx, install.Config{
			Store: h.Images(), CacheDir: h.CacheDir, Name: o.Name, Guest: o.Guest,
			MemoryMiB: o.MemoryMiB, CPUs: o.CPUs, Rebuild: o.Rebuild, Report: h.Report, Log: h.Log,
		})
	}
	helpers, err := h.helpers()
	if err != nil {
		return nil, err
	}
	logs := m.run.KeepLogs() // an error names files in it
	c := setup.Config{
		Store: h.Images(), CacheDir: h.CacheDir, Name: o.Name, Profile: p, Source: source,
		ISO: o.Medium.ISO, Arch: o.Medium.Arch, Edition: o.Medium.Edition, ProductKey: o.Medium.ProductKey,
		OpenSSHZip: o.Medium.OpenSSHZip, OpenSSHSHA256: o.Medium.OpenSSHSHA256, VirtioWin: o.Medium.VirtioWin,
		CygwinMirror: o.Medium.CygwinMirror, DiskGiB: o.Medium.DiskGiB, Display: o.Medium.Display,
		MemoryMiB: o.MemoryMiB, CPUs: o.CPUs, Rebuild: o.Rebuild,
		QEMU: h.QEMU, Accelerator: h.accelerator, Agent: helpers[agentFile], Build: h.Version,
		OnPair: m.setPair, WorkDir: m.run.Path("install"), LogDir: logs, Report: h.Report, Log: h.Log,
	}
	i, err := setup.Install(ctx, c)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, os.RemoveAll(logs))
	}
	return i, err
}

// PackReport packs what an image keeps of its install, without secrets.
func (h *Host) PackReport(i *image.Image, w io.Writer) error { return setup.Report(i, h.Version, w) }

// profile is the guest's profile, and its file.
func (h *Host) profile(o CreateOptions) (guest.Profile, []byte, error) {
	if o.Profile != "" {
		return guest.ReadFile(o.Profile)
	}
	source, err := guest.Source(o.Guest)
	if err != nil {
		return guest.Profile{}, nil, err
	}
	p, err := guest.Find(o.Guest)
	return p, source, err
}

// accelerator is Accelerator, told to the user.
func (h *Host) accelerator(ctx context.Context, kernel string) (string, error) {
	h.Report.Stage("install", "looking for an accelerator")
	acc, err := h.Accelerator(ctx, kernel)
	if err == nil {
		h.Report.Tell(event.KindStage, "%s: %s", acc.Accel, acc.Reason)
	}
	return string(acc.Accel), err
}

// current reports whether the image's state was made by this hostagent's helpers.
func (h *Host) current(i *image.Image) bool {
	for file, digest := range map[string]string{agentFile: i.State.Agent, runnerFile: i.State.Program} {
		if d, err := image.Describe(filepath.Join(h.LibexecDir, file)); err != nil || d.SHA256 != digest {
			return false
		}
	}
	return true
}

// Suspend redoes stage 2 of an image.
func (h *Host) Suspend(ctx context.Context, name string, o SuspendOptions) (*image.Image, error) {
	if err := pair.CheckControllerMemory(o.ControllerMiB); err != nil {
		return nil, err
	}
	i, err := h.Images().Load(name)
	if err != nil {
		return nil, err
	}
	ctx, m, err := h.begin(ctx, "(suspend)", name)
	if err != nil {
		return i, err
	}
	return i, m.close(ctx, h.suspend(ctx, i, o, m))
}

func (h *Host) suspend(ctx context.Context, i *image.Image, o SuspendOptions, m *making) error {
	lane := pair.LaneMiB
	if o.NoLane {
		lane = 0
	}
	helpers, err := h.helpers()
	if err != nil {
		return err
	}
	version, err := qemu.Version(ctx, h.QEMU)
	if err != nil {
		return err
	}
	h.Report.Stage("suspend", "looking for an accelerator")
	acc, err := h.Accelerator(ctx, i.Path(pair.Controller, recipe.Kernel))
	if err != nil {
		return err
	}
	h.Report.Tell(event.KindStage, "%s: %s", acc.Accel, acc.Reason)
	logs := m.run.KeepLogs() // an error names files in it
	err = suspend.Suspend(ctx, suspend.Config{
		Store: h.Images(), Image: i, QEMU: h.QEMU, Version: version, Accel: string(acc.Accel), LaneMiB: lane,
		Agent: helpers[agentFile], Runner: helpers[runnerFile], Build: h.Version,
		Change: o.change, Manifests: h.manifests(), OnPair: m.setPair,
		WorkDir: m.run.Path("work"), LogDir: logs, Report: h.Report, Log: h.Log,
	})
	if err == nil || ctx.Err() != nil {
		err = errors.Join(err, os.RemoveAll(logs))
	}
	if err == nil {
		h.Report.Stage("done", "image %s is suspended", i.Name)
	}
	return err
}

// Accelerator finds out what runs VMs here; the answer is remembered.
func (h *Host) Accelerator(ctx context.Context, kernel string) (accel.Result, error) {
	return accel.Probe(ctx, accel.Config{
		Want: h.Accel, Kernel: kernel, Binary: h.QEMU,
		Cache: filepath.Join(h.CacheDir, "accelerator.json"), Logger: h.Log,
	})
}

// helpers finds the programs that go into the VMs.
func (h *Host) helpers() (map[string]string, error) {
	out := map[string]string{}
	for _, f := range []string{agentFile, runnerFile} {
		p := filepath.Join(h.LibexecDir, f)
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("helper program %s: %w; `make build` puts it beside hostagent, WINVM_LIBEXEC_DIR names another place", f, err)
		}
		out[f] = p
	}
	return out, nil
}

// Build runs a command in a revived pair.
func (h *Host) Build(ctx context.Context, c build.Config) (build.Result, error) {
	return build.Run(ctx, h.complete(c))
}

// complete fills in what all builds of this host have in common.
func (h *Host) complete(c build.Config) build.Config {
	c.StateDir, c.CacheDir, c.QEMU, c.Version, c.Report, c.Log = h.StateDir, h.CacheDir, h.QEMU, h.Version, h.Report, h.Log
	c.Manifests = h.manifests()
	return c
}

// CheckBuild runs a build twice and compares the outputs.
func (h *Host) CheckBuild(ctx context.Context, c build.Config) (build.Result, error) {
	return build.Check(ctx, h.complete(c))
}

// manifests is where the metadata of Nix's store paths is kept.
func (h *Host) manifests() *manifest.Cache {
	return manifest.NewCache(filepath.Join(h.CacheDir, "manifests"))
}
