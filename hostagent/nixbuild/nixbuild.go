package nixbuild

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"winvm/hostagent/build"
)

// Settings is the attribute that lib.nix adds.
type Settings struct {
	Builder string   `json:"builder"`
	Args    []string `json:"args"`
	System  string   `json:"system"`
	Image   string   `json:"image"` // a directory
	QEMU    string   `json:"qemu"`
	Shell   string   `json:"shell"`  // on the host, for the two hooks
	PreVM   string   `json:"preVM"`  // run by it before the VMs start
	PostVM  string   `json:"postVM"` // and after the command has succeeded
	Inputs  string   `json:"inputs"` // the store path whose closure ClosureFile lists
}

// The names of what lib.nix adds.
const (
	attribute    = "winvm"
	closureFile  = "winvm-closure"
	closureAttr  = "winvmClosure" // the same, among structured attributes
	attributePat = attribute + "Path"
)

// A Build is what the host agent was started for.
type Build struct {
	Settings
	Wrapped bool   // lib.nix has rewritten the derivation: Settings are there
	Top     string // the build's directory, NIX_BUILD_TOP
	Store   string // the store directory, as the derivation names it
	Outputs []build.Output
	Closure []string // what the guest may see; nil = all that the sandbox shows

	env map[string]string
}

// maxFile bounds the files that are read from the build's directory.
const maxFile = 256 << 20

// Detect reports whether this process is the builder of a derivation, and not of a
// `nix-shell`, where the same variables are set.
func Detect(getenv func(string) string) bool {
	if getenv("NIX_BUILD_TOP") == "" || getenv("NIX_STORE") == "" || getenv("IN_NIX_SHELL") != "" {
		return false
	}
	return getenv("out") != "" || getenv("outputs") != "" || getenv("NIX_ATTRS_JSON_FILE") != ""
}

// Read reads the build whose environment that is.
func Read(environ []string) (*Build, error) {
	b := &Build{env: map[string]string{}}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		b.env[name] = value
	}
	b.Top, b.Store = filepath.Clean(b.env["NIX_BUILD_TOP"]), filepath.Clean(b.env["NIX_STORE"])
	b.findAttributes()
	read := b.readPlain
	if b.env["NIX_ATTRS_JSON_FILE"] != "" {
		read = b.readStructured
	}
	if err := read(); err != nil {
		return nil, fmt.Errorf("what Nix says of this build: %w", err)
	}
	for _, o := range b.Outputs {
		if filepath.Dir(o.Path) != b.Store {
			return nil, fmt.Errorf("what Nix says of this build: output %s is %q, which is not in %s", o.Var, o.Path, b.Store)
		}
	}
	b.Closure = slices.DeleteFunc(b.Closure, func(p string) bool { return p == b.Inputs })
	return b, nil
}

func (b *Build) readPlain() error {
	names := strings.Fields(b.env["outputs"])
	if len(names) == 0 {
		names = []string{"out"}
	}
	for _, n := range names {
		b.Outputs = append(b.Outputs, build.Output{Var: n, Path: b.env[n]})
	}
	path := b.env[attributePat]
	if path == "" {
		return nil
	}
	text, err := readFile(path)
	if err != nil {
		return err
	}
	if err := b.setSettings(text); err != nil {
		return err
	}
	graph, err := readFile(filepath.Join(b.Top, closureFile))
	if err != nil {
		return err
	}
	b.Closure, err = parseGraph(string(graph))
	return err
}

func (b *Build) setSettings(text []byte) error {
	if err := json.Unmarshal(text, &b.Settings); err != nil {
		return fmt.Errorf("attribute %s: %w", attribute, err)
	}
	if b.Builder == "" || b.Image == "" || b.Inputs == "" {
		return fmt.Errorf("attribute %s lacks the builder, the image or the inputs: was it made by winvm's lib.nix?", attribute)
	}
	b.Wrapped = true
	return nil
}

// findAttributes mends the names of the files with structured attributes: Nix 2.8 gives the
// ones that they have outside of the sandbox.
func (b *Build) findAttributes() {
	for _, name := range []string{"NIX_ATTRS_JSON_FILE", "NIX_ATTRS_SH_FILE"} {
		path := b.env[name]
		if path == "" {
			continue
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			b.env[name] = filepath.Join(b.Top, filepath.Base(path))
		}
	}
}

// readStructured reads .attrs.json.
func (b *Build) readStructured() error {
	text, err := readFile(b.env["NIX_ATTRS_JSON_FILE"])
	if err != nil {
		return err
	}
	var attrs struct {
		Outputs map[string]string `json:"outputs"`
		Winvm   string            `json:"winvm"`
		Closure []struct {
			Path string `json:"path"`
		} `json:"winvmClosure"`
	}
	if err := json.Unmarshal(text, &attrs); err != nil {
		return fmt.Errorf("%s: %w", b.env["NIX_ATTRS_JSON_FILE"], err)
	}
	for n, p := range attrs.Outputs {
		b.Outputs = append(b.Outputs, build.Output{Var: n, Path: p})
	}
	slices.SortFunc(b.Outputs, func(x, y build.Output) int { return strings.Compare(x.Var, y.Var) })
	if attrs.Winvm == "" {
		return nil
	}
	b.Closure = []string{}
	for _, c := range attrs.Closure {
		b.Closure = append(b.Closure, c.Path)
	}
	return b.setSettings([]byte(attrs.Winvm))
}

func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes", path, st.Size())
	}
	return os.ReadFile(path)
}

// errGraph is wrapped by the errors of graphs that are not what Nix writes.
var errGraph = errors.New("the graph of references is not of the form expected")

// parseGraph lists the paths of what exportReferencesGraph writes: for each a line with
// the path, one with its deriver, one with the number of references, and those.
func parseGraph(text string) ([]string, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	paths := []string{}
	for len(lines) >= 3 {
		var n int
		if _, err := fmt.Sscanf(lines[2], "%d", &n); err != nil || n < 0 || n > len(lines)-3 || !filepath.IsAbs(lines[0]) {
			return nil, fmt.Errorf("%w, at path %q", errGraph, lines[0])
		}
		paths = append(paths, lines[0])
		lines = lines[3+n:]
	}
	if len(lines) > 0 {
		return nil, fmt.Errorf("%w, at its end", errGraph)
	}
	return paths, nil
}

// HideHostFiles removes from the build's directory, which the guest is going to see, what
// lib.nix has put there for the host agent.
func (b *Build) HideHostFiles() error {
	if !b.Wrapped {
		return nil
	}
	if file := b.env["NIX_ATTRS_JSON_FILE"]; file != "" {
		return b.hideAttributes(file)
	}
	for _, p := range []string{b.env[attributePat], filepath.Join(b.Top, closureFile)} {
		if p == "" {
			continue
		}
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// hideAttributes makes the file of structured attributes what it would be for the
// original derivation.
func (b *Build) hideAttributes(file string) error {
	text, err := readFile(file)
	if err != nil {
		return err
	}
	var attrs map[string]json.RawMessage
	if err := json.Unmarshal(text, &attrs); err != nil {
		return err
	}
	delete(attrs, attribute)
	delete(attrs, closureAttr)
	for name, value := range map[string]string{"builder": b.Builder, "system": b.System} {
		if attrs[name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	var graph map[string]json.RawMessage
	if json.Unmarshal(attrs["exportReferencesGraph"], &graph) == nil {
		delete(graph, closureAttr)
		if attrs["exportReferencesGraph"], err = json.Marshal(graph); err != nil {
			return err
		}
		if len(graph) == 0 {
			delete(attrs, "exportReferencesGraph")
		}
	}
	if text, err = json.Marshal(attrs); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}
