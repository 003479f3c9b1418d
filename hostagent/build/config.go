package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"winvm/hostagent/event"
	"winvm/hostagent/manifest"
)

// Config says what to build and how.
type Config struct {
	StateDir string
	CacheDir string
	Image    string
	QEMU     string // binary
	Version  string // of this program, told to the controller agent

	StoreDir  string          // "" = /nix/store
	Manifests *manifest.Cache // of store paths; nil = none
	Inputs    []string        // empty = all of StoreDir
	NoInputs  bool            // nothing of StoreDir
	Out       string          // "" = outputs are thrown away
	// Outputs are what is to be made if it is more than one thing, or one that is not
	// called "out": all in one directory. Out is then the first one's path.
	Outputs []Output
	Xchg    string   // "" = a directory of the build's own
	Env     []string // K=V or K
	Dir     string   // in the guest; "" = the profile's
	Args    []string

	Timeout    time.Duration // 0 = none
	MaxSilent  time.Duration // 0 = none
	Jobs       int           // how many builds of StateDir may be at work; 0 = any number
	KeepFailed bool
	NoLane     bool // all bytes go over the channel, none through shared memory
	// KeepFor, if not 0, is how long the paused pair of a build that failed is kept:
	// Result.Held.
	KeepFor time.Duration

	// ReportDir gets a report of what of the inputs was used; "" = there is none, and
	// nothing is noted.
	ReportDir string
	// NoteUse has Result.Use filled in.
	NoteUse bool

	// DebugSocket is a path for a socket that gives captures of the channel to who
	// connects; "" = there is none.
	DebugSocket string

	// TraceFile gets the timeline as a Chrome trace; "" = only the run's logs do.
	TraceFile string

	Stdout, Stderr io.Writer
	Report         *event.Reporter
	Timeline       *event.Timeline
	Log            *slog.Logger
}

// DefaultStore is the store directory where Nix has it.
const DefaultStore = "/nix/store"

// An Output is one of the things that a command has to leave: the variable that
// tells it where in the guest, and the path on the host.
type Output struct{ Var, Path string }

// defaultOutName is what $out is called without --out.
const defaultOutName = "out"

// allOutputs are what the command has to leave. Without --out it may leave something, and
// that output has no path.
func (c *Config) allOutputs() []Output {
	if len(c.Outputs) == 0 {
		return []Output{{Var: "out", Path: c.Out}}
	}
	return c.Outputs
}

// name is the output's name below the store directory, as the guest sees it.
func (o Output) name() string {
	if o.Path == "" {
		return defaultOutName
	}
	return filepath.Base(o.Path)
}

// outNames are the names of all outputs.
func (c *Config) outNames() []string {
	var names []string
	for _, o := range c.allOutputs() {
		names = append(names, o.name())
	}
	return names
}

// checkOut makes the outputs' paths absolute and says early what would go wrong
// at the end.
func (c *Config) checkOut() error {
	for i := range c.Outputs {
		if err := checkOut(&c.Outputs[i].Path); err != nil {
			return err
		}
		if filepath.Dir(c.Outputs[i].Path) != filepath.Dir(c.Outputs[0].Path) {
			return fmt.Errorf("outputs %s and %s: all outputs have to be in one directory", c.Outputs[0].Path, c.Outputs[i].Path)
		}
	}
	if len(c.Outputs) > 0 {
		c.Out = c.Outputs[0].Path
		return nil
	}
	if c.Out == "" {
		return nil
	}
	return checkOut(&c.Out)
}

func checkOut(path *string) error {
	abs, err := filepath.Abs(*path)
	if err != nil {
		return err
	}
	*path = abs
	if _, err := os.Lstat(abs); err == nil {
		return fmt.Errorf("--out %s exists already: remove it or choose another path", abs)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--out: %w", err)
	}
	parent := filepath.Dir(abs)
	if st, err := os.Stat(parent); err != nil || !st.IsDir() {
		return fmt.Errorf("--out %s: there is no directory %s to put it into", abs, parent)
	}
	if why := manifest.WindowsName(filepath.Base(abs)); why != "" {
		return fmt.Errorf("--out %s: Windows can't have a file of that name: it %s", abs, why)
	}
	return nil
}

// AbsoluteInputs makes inputs that are relative paths absolute. A name without a slash
// is one in the store directory.
func AbsoluteInputs(inputs []string) ([]string, error) {
	out := make([]string, len(inputs))
	for i, in := range inputs {
		if !strings.Contains(in, "/") {
			out[i] = in
			continue
		}
		abs, err := filepath.Abs(in)
		if err != nil {
			return nil, err
		}
		out[i] = abs
	}
	return out, nil
}

// checkXchg makes xchg's path absolute.
func (c *Config) checkXchg() error {
	if c.Xchg == "" {
		return nil
	}
	abs, err := filepath.Abs(c.Xchg)
	if err != nil {
		return err
	}
	st, err := os.Stat(abs)
	if err != nil {
		return fmt.Errorf("--xchg: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("--xchg %s is not a directory", abs)
	}
	c.Xchg = abs
	return nil
}

// checkClash refuses inputs of which one has the output's name, or another but
// for case.
func checkClash(out string, sections []string) error {
	for _, s := range sections {
		if strings.EqualFold(s, out) {
			return fmt.Errorf("the store has %q already, so the output can't be called %q: choose another --out", s, out)
		}
	}
	return nil
}
