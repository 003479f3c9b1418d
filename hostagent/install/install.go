// Package install is stage 1: it puts an installed guest and its controller into
// a new image, with secrets of its own. For a guest made by a recipe, as `wine` is,
// that is building (or finding in the cache) both root file systems.
package install

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/pair"
)

// Config says what to install.
type Config struct {
	Store     *image.Store
	CacheDir  string
	Name      string
	Guest     string
	MemoryMiB int // 0 = the profile's
	CPUs      int // 0 = the profile's
	Rebuild   bool
	Report    *event.Reporter
	Log       *slog.Logger
}

// Secrets are an image's own: they open nothing but this image's guest and
// controller to each other.
type Secrets struct {
	ClientKey   string `json:"client_key"`   // PEM; how the controller logs in to the guest
	ClientPub   string `json:"client_pub"`   // authorized_keys format
	HostKey     string `json:"host_key"`     // PEM; the guest's SSH server's
	HostPub     string `json:"host_pub"`     // authorized_keys format; pinned
	SMBUser     string `json:"smb_user"`     // an account of the controller
	SMBPassword string `json:"smb_password"` // random
}

const secretsFile = "secrets.json"

// ReadSecrets reads an image's secrets.
func ReadSecrets(i *image.Image) (Secrets, error) {
	var s Secrets
	b, err := os.ReadFile(i.Path(secretsFile))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%w: %s: %w", image.ErrDamaged, i.Path(secretsFile), err)
	}
	return s, nil
}

// Install makes the image. If it exists already it is returned as it is, unless
// something else is asked for than it is. One that was made by other recipes than this
// hostagent's is made anew, as large as it was.
func Install(ctx context.Context, c Config) (*image.Image, error) {
	p, err := guest.Find(c.Guest)
	if err != nil {
		return nil, err
	}
	old, err := c.Store.Load(c.Name)
	switch {
	case errors.Is(err, image.ErrNotFound):
		old = &image.Image{}
	case err != nil:
		return nil, err
	default:
		if err := c.sameAs(old); err != nil {
			return old, err
		}
		if current, err := madeBy(old, recipes(p)); err != nil || current {
			return old, err
		}
		c.Report.Stage("install", "image %s was made by another recipe: it is made anew", c.Name)
	}
	if p.Setup != nil {
		return nil, fmt.Errorf("guest %s is installed from its own medium, with --iso FILE", p.Name)
	}
	mem := cmp.Or(c.MemoryMiB, old.MemoryMiB, p.Machine.MemoryMiB)
	cpus := cmp.Or(c.CPUs, old.CPUs, p.Machine.CPUs)
	if err := pair.CheckSize(p, mem, cpus); err != nil {
		return nil, err
	}
	vms := map[string]recipe.Artefact{}
	for _, vm := range []string{pair.Controller, pair.Guest} {
		name := recipes(p)[vm]
		c.Report.Stage("install", "the %s's root file system (%s)", vm, name)
		tell := func(line string) { c.Report.Tell(event.KindWaiting, "%s: %s", name, line) }
		if vms[vm], err = recipe.Get(ctx, name, c.CacheDir, c.Rebuild, tell, c.Log); err != nil {
			return nil, err
		}
	}
	if old.Dir != "" {
		if err := c.Store.RemoveOld(ctx, old); err != nil {
			return nil, err
		}
	}
	i, err := c.Store.Create(ctx, c.Name, func(dir string) (image.Meta, error) {
		m := image.Meta{
			Guest: p.Name, Created: time.Now().UTC(), MemoryMiB: mem, CPUs: cpus, Recipes: map[string]string{},
			ControllerMiB: old.ControllerMiB, Warm: old.Warm,
		}
		return m, fill(dir, &m, vms)
	})
	if errors.Is(err, image.ErrExists) && i != nil { // by another process, meanwhile
		return i, c.sameAs(i)
	}
	return i, err
}

// recipes are the names of a guest's recipes by VM.
func recipes(p guest.Profile) map[string]string {
	return map[string]string{pair.Controller: "controller", pair.Guest: p.Recipe}
}

// madeBy reports whether an image was made by these recipes as they are now.
func madeBy(i *image.Image, names map[string]string) (bool, error) {
	for vm, name := range names {
		digest, err := recipe.Digest(name)
		if err != nil || i.Recipes[vm] != digest {
			return false, err
		}
	}
	return true, nil
}

// sameAs refuses to take an image for what was asked for if it is another.
func (c *Config) sameAs(i *image.Image) error {
	differs := func(what string, has, want any) error {
		return fmt.Errorf("%w: %q has %s %v, not %v; `hostagent image remove %s` first, or choose another name", image.ErrExists, i.Name, what, has, want, i.Name)
	}
	switch {
	case c.Guest != i.Guest:
		return differs("guest", i.Guest, c.Guest)
	case c.MemoryMiB != 0 && c.MemoryMiB != i.MemoryMiB:
		return differs("memory", i.MemoryMiB, c.MemoryMiB)
	case c.CPUs != 0 && c.CPUs != i.CPUs:
		return differs("CPUs", i.CPUs, c.CPUs)
	}
	return nil
}

func fill(dir string, m *image.Meta, vms map[string]recipe.Artefact) error {
	for vm, a := range vms {
		m.Recipes[vm] = a.Digest
		if err := CopyRecipe(dir, vm, a); err != nil {
			return err
		}
	}
	s, err := NewSecrets()
	if err != nil {
		return err
	}
	return WriteSecrets(dir, s)
}

// CopyRecipe puts what a recipe made of a VM into an image that is being made in dir.
func CopyRecipe(dir, vm string, a recipe.Artefact) error {
	if err := os.Mkdir(filepath.Join(dir, vm), 0o755); err != nil {
		return err
	}
	for _, f := range []string{recipe.Kernel, recipe.Initrd, recipe.Root, recipe.Packages} {
		if err := a.CopyTo(f, filepath.Join(dir, vm, f)); err != nil {
			return err
		}
	}
	return nil
}

// WriteSecrets puts an image's secrets into it.
func WriteSecrets(dir string, s Secrets) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, secretsFile), append(b, '\n'), 0o600)
}

// ProfileFile is an image's copy of the profile that it was installed by, if that was
// from a medium.
const ProfileFile = "profile.yaml"

// ProfileOf is the profile of an image's guest: the image's own copy, or the one that
// winvm brings.
func ProfileOf(i *image.Image) (guest.Profile, error) {
	p, _, err := guest.ReadFile(i.Path(ProfileFile))
	if errors.Is(err, fs.ErrNotExist) {
		return guest.Find(i.Guest)
	}
	return p, err
}

// NewSecrets makes an image's secrets.
func NewSecrets() (Secrets, error) {
	s := Secrets{SMBUser: "winvm", SMBPassword: rand.Text()}
	var err error
	if s.ClientKey, s.ClientPub, err = newKey("winvm controller"); err != nil {
		return s, err
	}
	s.HostKey, s.HostPub, err = newKey("winvm guest")
	return s, err
}

func newKey(comment string) (private, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return "", "", err
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment + "\n"
	return string(pem.EncodeToMemory(block)), line, nil
}
