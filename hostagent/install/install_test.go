package install

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/pair"
)

// newConfig has a cache in which both recipes' artefacts lie already.
func newConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	c := Config{
		Store: image.NewStore(dir), CacheDir: filepath.Join(dir, "cache"), Name: "test", Guest: "wine",
		Log: slog.New(slog.DiscardHandler),
	}
	for _, name := range []string{"controller", "wine"} {
		digest, err := recipe.Digest(name)
		if err != nil {
			t.Fatal(err)
		}
		made := filepath.Join(c.CacheDir, "recipes", name+"-"+digest)
		if err := os.MkdirAll(made, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{recipe.Kernel, recipe.Initrd, recipe.Root, recipe.Packages} {
			if err := os.WriteFile(filepath.Join(made, f), []byte(name+" "+f), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

func mustInstall(t *testing.T, c Config) (*image.Image, Secrets) {
	t.Helper()
	i, err := Install(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadSecrets(i)
	if err != nil {
		t.Fatal(err)
	}
	return i, s
}

func TestInstall(t *testing.T) {
	c := newConfig(t)
	var told bytes.Buffer
	c.Report = event.NewReporter(event.Text(&told, false))
	i, s := mustInstall(t, c)
	p, err := guest.Find("wine")
	if err != nil {
		t.Fatal(err)
	}
	if i.Name != "test" || i.Guest != "wine" || i.MemoryMiB != p.Machine.MemoryMiB || i.CPUs != p.Machine.CPUs || i.Created.IsZero() || i.State != nil {
		t.Errorf("got %+v", i.Meta)
	}
	for vm, name := range map[string]string{pair.Controller: "controller", pair.Guest: "wine"} {
		if d, err := recipe.Digest(name); err != nil || i.Recipes[vm] != d {
			t.Errorf("%s is of recipe %q, not %q (%v)", vm, i.Recipes[vm], d, err)
		}
		if b, err := os.ReadFile(i.Path(vm, recipe.Root)); string(b) != name+" root.squashfs" {
			t.Errorf("%s: got %q, %v", vm, b, err)
		}
		if !strings.Contains(told.String(), "install: the "+vm+"'s root file system") {
			t.Errorf("%s is not told of: %s", vm, &told)
		}
	}
	if err := i.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	checkSecrets(t, i, s)
}

func checkSecrets(t *testing.T, i *image.Image, s Secrets) {
	t.Helper()
	st, err := os.Stat(i.Path("secrets.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("secrets.json has mode %v, %v", st.Mode(), err)
	}
	for name, key := range map[string][2]string{"client": {s.ClientKey, s.ClientPub}, "host": {s.HostKey, s.HostPub}} {
		private, err := ssh.ParsePrivateKey([]byte(key[0]))
		if err != nil {
			t.Errorf("%s key: %v", name, err)
			continue
		}
		public, comment, _, rest, err := ssh.ParseAuthorizedKey([]byte(key[1]))
		if err != nil || comment == "" || len(rest) > 0 {
			t.Errorf("%s key: comment %q, rest %q, %v", name, comment, rest, err)
			continue
		}
		if !bytes.Equal(private.PublicKey().Marshal(), public.Marshal()) {
			t.Errorf("the %s keys are no pair", name)
		}
	}
	if s.SMBUser == "" || len(s.SMBPassword) < 20 || s.ClientKey == s.HostKey {
		t.Errorf("secrets %+v", s)
	}
}

func TestSecretsAreAnImagesOwn(t *testing.T) {
	c := newConfig(t)
	_, a := mustInstall(t, c)
	c.Name = "other"
	_, b := mustInstall(t, c)
	if a.SMBPassword == b.SMBPassword || a.ClientKey == b.ClientKey || a.HostKey == b.HostKey {
		t.Error("two images share a secret")
	}
}

func TestInstallAgain(t *testing.T) {
	c := newConfig(t)
	c.MemoryMiB, c.CPUs = 768, 2
	first, secrets := mustInstall(t, c)
	if first.MemoryMiB != 768 || first.CPUs != 2 {
		t.Errorf("got %+v", first.Meta)
	}
	c.MemoryMiB, c.CPUs = 0, 0 // whatever it has
	again, s := mustInstall(t, c)
	if again.Dir != first.Dir || s != secrets {
		t.Error("made anew")
	}
	for name, test := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"memory": {func(c *Config) { c.MemoryMiB = 1024 }, "has memory 768, not 1024"},
		"CPUs":   {func(c *Config) { c.CPUs = 1 }, "has CPUs 2, not 1"},
	} {
		c := c
		test.change(&c)
		_, err := Install(t.Context(), c)
		if !errors.Is(err, image.ErrExists) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "hostagent image remove test") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	other := *first
	other.Guest = "windows-xp"
	if err := c.sameAs(&other); !errors.Is(err, image.ErrExists) || !strings.Contains(err.Error(), "has guest windows-xp, not wine") {
		t.Errorf("guest: got %v", err)
	}
}

// An image that was made by other recipes than there are now is made anew, as large as it was;
// one that somebody else has made anew meanwhile stays.
func TestInstallOtherRecipe(t *testing.T) {
	c := newConfig(t)
	c.MemoryMiB, c.CPUs = 768, 2
	first, secrets := mustInstall(t, c)
	path := first.Path("image.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	older := bytes.ReplaceAll(b, []byte(first.Recipes[pair.Guest]), []byte("an older one"))
	older = bytes.Replace(older, []byte(`"memory_mib"`), []byte(`"controller_mib": 600, "memory_mib"`), 1)
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := c.Store.Load(c.Name)
	if err != nil {
		t.Fatal(err)
	}
	c.MemoryMiB, c.CPUs = 0, 0
	again, s := mustInstall(t, c)
	if again.Recipes[pair.Guest] != first.Recipes[pair.Guest] || s == secrets {
		t.Errorf("not made anew: %+v", again.Meta)
	}
	if again.MemoryMiB != 768 || again.CPUs != 2 || again.ControllerMiB != 600 {
		t.Errorf("of another size: %+v", again.Meta)
	}
	if err := c.Store.RemoveOld(t.Context(), loaded); err != nil {
		t.Error(err)
	}
	if _, still := mustInstall(t, c); still != s {
		t.Error("the new image was taken for the old one")
	}
}

func TestInstallRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change   func(*Config)
		sentinel error
		says     string
	}{
		"guest":           {func(c *Config) { c.Guest = "windows-95" }, guest.ErrUnknown, "windows-95"},
		"name":            {func(c *Config) { c.Name = "../x" }, image.ErrBadName, "../x"},
		"too little":      {func(c *Config) { c.MemoryMiB = 16 }, nil, "--memory 16"},
		"negative":        {func(c *Config) { c.MemoryMiB = -1 }, nil, "--memory -1"},
		"too much":        {func(c *Config) { c.MemoryMiB = 1 << 40 }, nil, "--memory"},
		"too many CPUs":   {func(c *Config) { c.CPUs = 1000 }, nil, "--cpus 1000"},
		"CPUs below zero": {func(c *Config) { c.CPUs = -1 }, nil, "--cpus -1"},
	} {
		c := newConfig(t)
		test.change(&c)
		i, err := Install(t.Context(), c)
		if err == nil || test.sentinel != nil && !errors.Is(err, test.sentinel) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, %v", name, i, err)
		}
		if names, err := c.Store.List(); err != nil || len(names) > 0 {
			t.Errorf("%s: left %v, %v", name, names, err)
		}
	}
}

func TestInstallOverADamagedImage(t *testing.T) {
	c := newConfig(t)
	i, _ := mustInstall(t, c)
	if err := os.Truncate(i.Path("image.json"), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(t.Context(), c); !errors.Is(err, image.ErrDamaged) || !strings.Contains(err.Error(), "hostagent image remove test") {
		t.Errorf("got %v", err)
	}
}

func TestInstallTwiceAtOnce(t *testing.T) {
	c := newConfig(t)
	var wg sync.WaitGroup
	made := make([]*image.Image, 3)
	for n := range made {
		wg.Go(func() {
			var err error
			if made[n], err = Install(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, i := range made {
		if i == nil || !i.Created.Equal(made[0].Created) {
			t.Errorf("got %+v and %+v", i, made[0])
		}
	}
}

func TestReadSecretsRefuses(t *testing.T) {
	i := &image.Image{Dir: t.TempDir()}
	if _, err := ReadSecrets(i); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: got %v", err)
	}
	if err := os.WriteFile(i.Path("secrets.json"), []byte(`{"client_key": `), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecrets(i); !errors.Is(err, image.ErrDamaged) || !strings.Contains(err.Error(), "secrets.json") {
		t.Errorf("damaged: got %v", err)
	}
}
