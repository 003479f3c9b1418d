package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"

	"winvm/hostagent/accel"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/qemu"
)

// Status is how a check ended.
type Status string

// The statuses.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// A Check is one line of the report.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Hint   string `json:"hint,omitempty"` // what to do, if it is not ok
}

// Config says where to look.
type Config struct {
	StateDir   string
	CacheDir   string
	LibexecDir string
	Helpers    []string // files in LibexecDir
	QEMU       string   // binary
	// Accelerator finds out what runs VMs here; kernel may be "".
	Accelerator func(ctx context.Context, kernel string) (accel.Result, error)
}

// host is what several checks look at.
type host struct {
	Config
	version string // QEMU's; "" if there is none
	images  []*image.Image
	broken  []Check // images that can't be loaded
	accel   string  // "" if unknown
}

// Run makes all checks, in the order in which a user should mend what they find.
func Run(ctx context.Context, c Config) []Check {
	h := &host{Config: c}
	h.loadImages()
	var out []Check
	for _, check := range []struct {
		name string
		look func(context.Context) Check
	}{
		{"kernel", kernel},
		{"QEMU", h.qemu},
		{"QEMU's sandbox", h.sandbox},
		{"accelerator", h.accelerator},
		{"memory", h.memory},
		{"open files", func(context.Context) Check { return openFiles(hardFileLimit()) }},
		{"state directory", func(context.Context) Check { return h.directory(c.StateDir, "--state-dir", "WINVM_STATE_DIR") }},
		{"cache directory", func(context.Context) Check { return h.directory(c.CacheDir, "--cache-dir", "WINVM_CACHE_DIR") }},
		{"helper programs", h.helpers},
		{"tools for images", h.tools},
		{"user namespaces", h.namespaces},
		{"FUSE", fuse},
		{"Samba", h.samba},
	} {
		line := check.look(ctx)
		line.Name = check.name
		out = append(out, line)
	}
	return append(out, h.checkImages()...)
}

// Failed reports whether any check failed.
func Failed(checks []Check) bool {
	for _, c := range checks {
		if c.Status == Fail {
			return true
		}
	}
	return false
}

// Print writes the checks for people: a line each, and a second one with the hint
// where something is not ok.
func Print(w io.Writer, checks []Check) error {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%-4s  %-*s  %s\n", c.Status, width, c.Name, oneLine(c.Found))
		if c.Hint != "" {
			fmt.Fprintf(&b, "%-4s  %-*s  -> %s\n", "", width, "", oneLine(c.Hint))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func ok(format string, args ...any) Check {
	return Check{Status: OK, Found: fmt.Sprintf(format, args...)}
}

// bad is a check that did not end well.
func bad(s Status, hint, format string, args ...any) Check {
	return Check{Status: s, Hint: hint, Found: fmt.Sprintf(format, args...)}
}

// needed is Fail, or Warn where there is an image already: what is needed only to
// make images does not keep anybody from building.
func (h *host) needed() Status {
	if len(h.images) > 0 {
		return Warn
	}
	return Fail
}

func (h *host) loadImages() {
	store := image.NewStore(h.StateDir)
	names, err := store.List()
	if err != nil {
		h.broken = append(h.broken, Check{
			Name: "images", Status: Fail, Found: err.Error(), Hint: "make the directory readable, or name another one with --state-dir",
		})
	}
	for _, n := range names {
		i, err := store.Load(n)
		if err != nil {
			h.broken = append(h.broken, Check{
				Name: "image " + n, Status: Warn, Found: err.Error(),
				Hint: fmt.Sprintf("`hostagent image remove %s` and `hostagent image create %s` make it anew", n, n),
			})
			continue
		}
		h.images = append(h.images, i)
	}
}

// checkImages looks at each image as a build would.
func (h *host) checkImages() []Check {
	out := append([]Check(nil), h.broken...)
	for _, i := range h.images {
		c := h.checkImage(i)
		c.Name = "image " + i.Name
		out = append(out, c)
	}
	if len(out) == 0 {
		c := bad(Warn, "`hostagent image create "+guest.Default+"` makes one", "there is none yet")
		c.Name = "images"
		out = append(out, c)
	}
	return out
}

func (h *host) checkImage(i *image.Image) Check {
	if h.version == "" {
		return bad(Warn, "see QEMU above", "can't be checked without QEMU")
	}
	if err := i.Check(h.version); err != nil {
		return bad(Warn, "the command named above mends it", "%v", err)
	}
	again := fmt.Sprintf("`hostagent suspend %s` makes the state anew, for %s", i.Name, h.accel)
	if h.accel != "" && i.State.Accel != h.accel {
		if i.State.Accel == string(qemu.KVM) {
			return bad(Fail, again, "was suspended under %s, which does not work here", i.State.Accel)
		}
		return bad(Warn, again, "was suspended under %s; %s works here and is quicker", i.State.Accel, h.accel)
	}
	return ok("%s, %d MiB, suspended under %s", i.Guest, i.MemoryMiB, i.State.Accel)
}
