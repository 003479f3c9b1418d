package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"winvm/hostagent/event"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/install"
	"winvm/hostagent/install/inspect"
	"winvm/hostagent/pair"
)

// Record is what an image keeps of its install, in install/install.json.
type Record struct {
	Profile  string                   `json:"profile"`
	Image    inspect.Image            `json:"image"`
	Took     map[string]time.Duration `json:"took_ns"` // by stage
	Finished time.Time                `json:"finished"`
	QEMU     string                   `json:"qemu"`
	Accel    string                   `json:"accel"`
}

// Directory of an image for what is kept of its install, and the record in it.
const (
	keptDir    = "install"
	recordFile = "install.json"
)

// Install makes the image. One that is there already is returned as it is, unless
// something else is asked for than it is.
func Install(ctx context.Context, c Config) (*image.Image, error) {
	if i, err := c.Store.Load(c.Name); !errors.Is(err, image.ErrNotFound) {
		if err != nil {
			return nil, err
		}
		return i, c.sameAs(i)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	chosen, err := c.choose(ctx)
	if err != nil {
		return nil, err
	}
	c.Report.Stage("install", "the controller's root file system")
	tell := func(line string) { c.Report.Tell(event.KindWaiting, "controller: %s", line) }
	controller, err := recipe.Get(ctx, pair.Controller, c.CacheDir, c.Rebuild, tell, c.Log)
	if err != nil {
		return nil, err
	}
	if c.accel, err = c.Accelerator(ctx, controller.Path(recipe.Kernel)); err != nil {
		return nil, err
	}
	i, err := c.Store.Create(ctx, c.Name, func(dir string) (image.Meta, error) {
		m := image.Meta{
			Guest: c.Profile.Name, Created: time.Now().UTC(), MemoryMiB: c.memoryMiB(), CPUs: c.cpus(),
			Recipes: map[string]string{pair.Controller: controller.Digest},
		}
		return m, c.fill(ctx, dir, m, controller, chosen)
	})
	if errors.Is(err, image.ErrExists) && i != nil { // by another process, meanwhile
		return i, c.sameAs(i)
	}
	return i, err
}

func (c *Config) sameAs(i *image.Image) error {
	if i.Guest != c.Profile.Name || c.MemoryMiB != 0 && c.MemoryMiB != i.MemoryMiB || c.CPUs != 0 && c.CPUs != i.CPUs {
		return fmt.Errorf("%w: %q has guest %s, memory %d and CPUs %d; `hostagent image remove %s` first, or choose another name",
			image.ErrExists, i.Name, i.Guest, i.MemoryMiB, i.CPUs, i.Name)
	}
	return nil
}

// fill makes all of the image in dir, which is private.
func (c *Config) fill(ctx context.Context, dir string, m image.Meta, controller recipe.Artefact, chosen inspect.Image) error {
	if err := install.CopyRecipe(dir, pair.Controller, controller); err != nil {
		return err
	}
	secrets, err := install.NewSecrets()
	if err != nil {
		return err
	}
	if err := install.WriteSecrets(dir, secrets); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, install.ProfileFile), c.Source, 0o644); err != nil {
		return err
	}
	media, err := os.MkdirTemp(dir, ".media-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(media) }()
	c.Report.Stage("install", "making the software medium")
	kept := filepath.Join(dir, keptDir)
	if err := os.Mkdir(kept, 0o700); err != nil {
		return err
	}
	if err := c.media(ctx, media, kept, chosen, secrets, newPassword()); err != nil {
		return err
	}
	disk := filepath.Join(dir, pair.Guest, pair.GuestDisk)
	vars := filepath.Join(dir, pair.Guest, pair.GuestVars)
	if err := c.makeDisk(ctx, disk, vars); err != nil {
		return err
	}
	r := &run{Config: c, image: &image.Image{Meta: m, Dir: dir}, media: media, secrets: secrets}
	took, err := r.run(ctx)
	if err != nil {
		return err
	}
	for _, f := range []string{disk, vars} {
		if err := os.Chmod(f, 0o444); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.RemoveAll(media); err != nil {
		return err
	}
	return c.keep(kept, chosen, took)
}

// makeDisk makes an empty disk, and the variables of UEFI.
func (c *Config) makeDisk(ctx context.Context, disk, vars string) error {
	if err := os.MkdirAll(filepath.Dir(disk), 0o755); err != nil {
		return err
	}
	if err := pair.CreateDisk(ctx, disk, c.diskGiB()); err != nil {
		return err
	}
	if !c.Profile.UEFI() {
		return nil
	}
	if _, err := os.Stat(pair.FirmwareVars); err != nil {
		return fmt.Errorf("%w: UEFI for guests: %w; install Debian's package ovmf", ErrMissing, err)
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", pair.FirmwareVars, vars).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the variables of UEFI: %w: %s", err, out)
	}
	return nil
}

// keep writes down what is worth keeping of an install.
func (c *Config) keep(to string, chosen inspect.Image, took map[string]time.Duration) error {
	b, err := json.MarshalIndent(Record{
		Profile: c.Profile.Name, Image: chosen, Took: took, Finished: time.Now().UTC(), QEMU: c.QEMU, Accel: c.accel,
	}, "", "  ")
	if err != nil {
		return err
	}
	shots, _ := filepath.Glob(filepath.Join(c.LogDir, "*.png"))
	for _, s := range append(shots, filepath.Join(c.LogDir, pair.Guest+".console")) {
		if data, err := os.ReadFile(s); err == nil {
			if err := os.WriteFile(filepath.Join(to, filepath.Base(s)), data, 0o600); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(to, recordFile), append(b, '\n'), 0o600)
}
