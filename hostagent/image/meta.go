package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Format is the version of the image directory's layout.
const Format = 1

// Errors that callers tell apart.
var (
	ErrNotFound     = errors.New("no such image")
	ErrExists       = errors.New("image exists already")
	ErrBadName      = errors.New("not an image name")
	ErrDamaged      = errors.New("image is damaged")
	ErrMismatch     = errors.New("image does not fit this host")
	ErrNotSuspended = errors.New("image is not suspended yet")
)

// Meta is image.json.
type Meta struct {
	Format    int               `json:"format"`
	Name      string            `json:"name"`
	Guest     string            `json:"guest"` // profile
	Created   time.Time         `json:"created"`
	MemoryMiB int               `json:"memory_mib"`
	CPUs      int               `json:"cpus"`
	Recipes   map[string]string `json:"recipes"` // digest by VM
	// ControllerMiB is the controller's memory; 0 is DefaultControllerMiB.
	ControllerMiB int `json:"controller_mib,omitempty"`
	// Warm is what a suspend reads into the controller's caches; nil is nothing.
	Warm  *Warm           `json:"warm,omitempty"`
	Files map[string]File `json:"files"` // by path below the image
	State *State          `json:"state,omitempty"`
}

// DefaultControllerMiB is enough for the kernel, smbd, the agent and some page
// cache: the controller has no swap, and its memory file costs what is touched.
const DefaultControllerMiB = 512

// ControllerMemory is the controller's memory in MiB.
func (m *Meta) ControllerMemory() int {
	if m.ControllerMiB == 0 {
		return DefaultControllerMiB
	}
	return m.ControllerMiB
}

// Warm names inputs of a store, as a build's --store and --input do.
type Warm struct {
	Store  string   `json:"store"`
	Inputs []string `json:"inputs"`
}

// Warmed is what was read into the controller's caches before the state was saved.
type Warmed struct {
	StorePaths int   `json:"store_paths"`
	Files      int   `json:"files"`
	Bytes      int64 `json:"bytes"`
}

// File is what must be true of a file.
type File struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
}

// State is the suspended pair.
type State struct {
	Dir       string    `json:"dir"` // below the image
	Suspended time.Time `json:"suspended"`
	QEMU      string    `json:"qemu"`
	Accel     string    `json:"accel"`
	LaneMiB   int       `json:"lane_mib,omitempty"` // of shared memory; 0: none
	// Controller and Guest are the machines' identities.
	Controller string          `json:"controller"`
	Guest      string          `json:"guest"`
	Agent      string          `json:"agent"`   // SHA-256 of the controller agent
	Program    string          `json:"program"` // SHA-256 of winvm-run.exe
	Runner     string          `json:"runner"`  // the name it is parked under
	Warmed     *Warmed         `json:"warmed,omitempty"`
	Files      map[string]File `json:"files"` // by name in Dir
}

// An Image is an image that was loaded.
type Image struct {
	Meta
	Dir string
}

// Path returns the path of a file of the image.
func (i *Image) Path(elem ...string) string {
	return filepath.Join(append([]string{i.Dir}, elem...)...)
}

// StatePath returns the path of a file of the suspended state.
func (i *Image) StatePath(file string) string { return i.Path(i.State.Dir, file) }

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName says whether name can be an image's.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%w: %q (letters, digits, '.', '_', '-'; at most 64; not beginning with a sign)", ErrBadName, name)
	}
	return nil
}

// maxMeta bounds image.json.
const maxMeta = 1 << 20

func readMeta(path string) (Meta, error) {
	var m Meta
	st, err := os.Stat(path)
	if err != nil {
		return m, err
	}
	if st.Size() > maxMeta {
		return m, fmt.Errorf("%w: %s has %d bytes", ErrDamaged, path, st.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	return m, nil
}

// writeMeta replaces image.json so that at every instant there is a whole one.
func writeMeta(dir string, m Meta) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, ".image.json.new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, "image.json")); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir puts a directory's names on disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
