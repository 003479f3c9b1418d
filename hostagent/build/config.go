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
	Out       string          // "" = outputs are thrown away
	Xchg      string          // "" = a directory of the build's own
	Env       []string        // K=V or K
	Dir       string          // in the guest; "" = the profile's
	Args      []string

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

// defaultOutName is what $out is called without --out.
const defaultOutName = "out"

// outName is the name of the output below the store directory, as the guest
// sees it.
func (c *Config) outName() string {
	if c.Out == "" {
		return defaultOutName
	}
	return filepath.Base(c.Out)
}

// checkOut makes the output's path absolute and says early what would go wrong
// at the end.
func (c *Config) checkOut() error {
	if c.Out == "" {
		return nil
	}
	abs, err := filepath.Abs(c.Out)
	if err != nil {
		return err
	}
	c.Out = abs
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
