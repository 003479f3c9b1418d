package e2e_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"winvm/hostagent/image"
)

// An ownImage is a copy of the image that a test may damage. Its large files are
// links to the shared ones, until set replaces them.
type ownImage struct {
	e   *env
	dir string
}

func (e *env) ownImage() *ownImage {
	e.t.Helper()
	from := filepath.Join(sharedImages(e.t), imageName)
	images := filepath.Join(e.state, "images")
	must(e.t, os.Remove(images)) // the link
	i := &ownImage{e, filepath.Join(images, imageName)}
	must(e.t, filepath.WalkDir(from, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		to := filepath.Join(i.dir, rel)
		switch name := d.Name(); {
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case strings.HasSuffix(name, "lock"):
			return nil
		case name == "image.json":
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			return os.WriteFile(to, b, 0o600)
		default:
			return os.Symlink(p, to)
		}
	}))
	return i
}

// edit changes image.json.
func (i *ownImage) edit(change func(m *image.Meta)) {
	i.e.t.Helper()
	var m image.Meta
	must(i.e.t, json.Unmarshal([]byte(readFile(i.e.t, filepath.Join(i.dir, "image.json"))), &m))
	change(&m)
	b, err := json.Marshal(m)
	must(i.e.t, err)
	must(i.e.t, os.WriteFile(filepath.Join(i.dir, "image.json"), b, 0o600))
}

// statePath is a file of the suspended state.
func (i *ownImage) statePath(name string) string {
	i.e.t.Helper()
	found, err := filepath.Glob(filepath.Join(i.dir, "state-*", name))
	if err != nil || len(found) != 1 {
		i.e.t.Fatalf("state file %s: %v, %v", name, found, err)
	}
	return found[0]
}

// set replaces a file by one of the same size that change has made of it. Holes
// stay holes where change leaves them.
func (i *ownImage) set(path string, change func(f *os.File, size int64) error) {
	i.e.t.Helper()
	st, err := os.Stat(path)
	must(i.e.t, err)
	must(i.e.t, os.Remove(path))
	f, err := os.Create(path)
	must(i.e.t, err)
	must(i.e.t, f.Truncate(st.Size()))
	must(i.e.t, change(f, st.Size()))
	must(i.e.t, f.Close())
}

func (i *ownImage) garbage(path string) {
	i.e.t.Helper()
	i.set(path, func(f *os.File, size int64) error {
		_, err := io.CopyN(f, rand.Reader, size)
		return err
	})
}

// damage keeps the file but for some bytes in the middle.
func (i *ownImage) damage(path string) {
	i.e.t.Helper()
	content := []byte(readFile(i.e.t, path))
	for k := len(content) / 2; k < len(content)/2+64; k++ {
		content[k] ^= 0xff
	}
	i.set(path, func(f *os.File, _ int64) error {
		_, err := f.Write(content)
		return err
	})
}

// What is wrong with an image is told before a VM starts, with what mends it.
func TestImageRefused(t *testing.T) {
	const suspendIt = "`hostagent suspend wine`"
	for name, c := range map[string]struct {
		spoil func(i *ownImage)
		says  []string
	}{
		"another QEMU": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.State.QEMU = "5.2.0" })
		}, []string{"was suspended by QEMU 5.2.0", suspendIt}},
		"another winvm": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.State.Runner = "runner" })
		}, []string{"suspended by another version of winvm", suspendIt}},
		"another machine": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.State.Guest = strings.Replace(m.State.Guest, "qemu64", "max", 1) })
		}, []string{"the guest", "was suspended as another machine", suspendIt}},
		"another memory size": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.MemoryMiB *= 2 })
		}, []string{"was suspended as another machine", suspendIt}},
		"never suspended": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.State = nil })
		}, []string{"not suspended yet", suspendIt}},
		"another format": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.Format = 99 })
		}, []string{"format 99"}},
		"another name": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.Name = "xp" })
		}, []string{`holds one called "xp"`}},
		"an unknown guest": {func(i *ownImage) {
			i.edit(func(m *image.Meta) { m.Guest = "dos" })
		}, []string{`no such guest profile: "dos"`}},
		"garbage for a description": {func(i *ownImage) {
			must(i.e.t, os.WriteFile(filepath.Join(i.dir, "image.json"), []byte("{\"format\": 1,"), 0o600))
		}, []string{"damaged", "hostagent image remove wine"}},
		"an empty description": {func(i *ownImage) {
			must(i.e.t, os.Truncate(filepath.Join(i.dir, "image.json"), 0))
		}, []string{"damaged"}},
		"a missing state": {func(i *ownImage) {
			must(i.e.t, os.Remove(i.statePath("guest.state")))
		}, []string{"damaged", "guest.state", suspendIt}},
		"truncated memory": {func(i *ownImage) {
			i.set(i.statePath("controller.memory"), func(f *os.File, size int64) error { return f.Truncate(size - 4096) })
		}, []string{"damaged", "controller.memory", "536866816 bytes instead of 536870912", suspendIt}},
		"an empty state": {func(i *ownImage) {
			i.set(i.statePath("controller.state"), func(f *os.File, _ int64) error { return f.Truncate(0) })
		}, []string{"damaged", "controller.state", suspendIt}},
		"a missing disk": {func(i *ownImage) {
			must(i.e.t, os.Remove(filepath.Join(i.dir, "guest", "root.squashfs")))
		}, []string{"damaged", "root.squashfs", "hostagent image create wine"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			c.spoil(e.ownImage())
			r := e.build("--", "cmd", "/c", "exit 0")
			r.wants(125, c.says...)
			if exists(filepath.Join(e.state, "logs")) || r.took > 10*time.Second {
				t.Errorf("a VM was started; it took %v", r.took)
			}
		})
	}
}

// A file of the right size and wrong content is an error of the revive, and no hang.
func TestStateDamaged(t *testing.T) {
	blank := func(*os.File, int64) error { return nil }
	for name, c := range map[string]struct {
		spoil func(i *ownImage)
		says  []string
	}{
		"garbage":     {func(i *ownImage) { i.garbage(i.statePath("controller.state")) }, []string{"damaged", "controller.state", "hostagent suspend wine"}},
		"some damage": {func(i *ownImage) { i.damage(i.statePath("guest.state")) }, []string{"damaged", "guest.state", "hostagent suspend wine"}},
		// The memory files are too large to be read for every build.
		"no memory of the controller": {func(i *ownImage) { i.set(i.statePath("controller.memory"), blank) }, []string{"VM controller"}},
		"no memory of the guest":      {func(i *ownImage) { i.set(i.statePath("guest.memory"), blank) }, []string{"VM guest"}},
		// A state that has the digest it should have, and that QEMU can't load.
		"garbage with a digest": {func(i *ownImage) {
			path := i.statePath("guest.state")
			i.garbage(path)
			f, err := image.Describe(path)
			must(i.e.t, err)
			i.edit(func(m *image.Meta) { m.State.Files["guest.state"] = f })
		}, []string{"load the state of VM guest", "Not a migration stream"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			c.spoil(e.ownImage())
			r := e.build("--", "cmd", "/c", "exit 0")
			r.wants(125, c.says...)
			if r.took > 20*time.Second {
				t.Errorf("it took %v", r.took)
			}
		})
	}
}

// `image verify` sees what a revive can't.
func TestVerifyFindsDamage(t *testing.T) {
	e := newEnv(t)
	i := e.ownImage()
	i.damage(i.statePath("controller.state"))
	r := e.start("image", "verify", imageName)
	r.wait()
	r.wants(125, "controller.state", "is not what was written", "hostagent suspend wine")
}

// A build that has looked at the image, and then waits while a suspend puts a new
// state in place of the one it saw, takes the new one.
func TestStateReplacedMeanwhile(t *testing.T) {
	e := newEnv(t)
	i := e.ownImage()
	unlock, err := image.NewStore(e.state).Lock(context.Background(), imageName)
	must(t, err)
	defer unlock()
	r := e.startBuild("--", "cmd", "/c", "echo worked")
	within(t, 20*time.Second, "the build has loaded the image", func() bool {
		runs, _ := os.ReadDir(filepath.Join(e.state, "run"))
		return len(runs) > 0
	})
	i.edit(func(m *image.Meta) {
		must(t, os.Rename(filepath.Join(i.dir, m.State.Dir), filepath.Join(i.dir, "state-new")))
		m.State.Dir = "state-new"
	})
	unlock()
	r.wait()
	r.wants(0)
	r.says("worked\n")
}
