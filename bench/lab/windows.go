package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"winvm/bench/work"
	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/install"
	"winvm/hostagent/qemu"
	"winvm/hostagent/suspend"
	"winvm/hostagent/vm"
)

// WindowsSides are the ways in which a Windows guest can have the files of the host over
// SMB. The first is ours.
var WindowsSides = []Side{
	{"smb-ours", "winvm over SMB", work.SideOurs, ""},
	{"smb-9p", "9p + Samba", work.SideNinep, ""},
	{"smb-slirp", "QEMU's user network, smb=", "slirp", ""},
}

// ProgramDir is where in the store the program for the guest has to be put, as
// ProgramFile.
const (
	ProgramDir  = "bench-1"
	ProgramFile = "inside.exe"
)

// WindowsConfig says what guest to boot.
type WindowsConfig struct {
	Dir, Scratch, CacheDir string // as in Config
	Kernel                 string // of the controller that mounts 9p; ours has the product's
	Accel                  qemu.Accel
	Agent                  string // the controller agent's program
	Inside                 []byte // the program for Linux
	Log                    *slog.Logger
}

// A Windows is a booted guest whose drives are mapped, with the program that measures
// running in it. It has to be resumed before it is asked anything.
type Windows struct {
	Side
	store, xchg string // what the directories are called in the guest

	client  *work.Client
	vms     []*vm.VM
	closers []func() // called from the last to the first
}

// An Image is what the guests are booted from.
type Image struct {
	image   *image.Image
	profile guest.Profile
	secrets install.Secrets
	initrds string
}

// windowsBoot is how long a guest may take until its SSH server has let us in, and
// commandLimit how long a command in it.
const (
	windowsBoot  = 4 * time.Minute
	commandLimit = time.Minute
)

// MakeImage makes an image of the guest `wine` in cfg.Scratch.
func MakeImage(ctx context.Context, cfg WindowsConfig) (*Image, error) {
	i, err := install.Install(ctx, install.Config{
		Store: image.NewStore(cfg.Scratch), CacheDir: cfg.CacheDir, Name: "bench", Guest: "wine",
		Report: event.NewReporter(event.Text(io.Discard, true)), Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	p, err := guest.Find(i.Guest)
	if err != nil {
		return nil, err
	}
	s, err := install.ReadSecrets(i)
	if err != nil {
		return nil, err
	}
	agent, err := os.ReadFile(cfg.Agent)
	if err != nil {
		return nil, fmt.Errorf("the controller agent: %w", err)
	}
	made := &Image{image: i, profile: p, secrets: s, initrds: filepath.Join(cfg.Scratch, "initrds")}
	if err := os.Mkdir(made.initrds, 0o755); err != nil {
		return nil, err
	}
	return made, suspend.WriteInitrds(i, p, s, agent, made.initrds)
}

// StartWindows boots a guest for a side, and leaves it paused. The caller ends with
// Close. A boot that fails is tried once more, as in a suspend: under emulation one in
// some dozens hangs.
func StartWindows(ctx context.Context, cfg WindowsConfig, i *Image, s Side) (*Windows, error) {
	w, err := startWindows(ctx, cfg, i, s)
	if err != nil && ctx.Err() == nil {
		cfg.Log.Error("a guest did not boot; trying once more", "side", s.Name, "err", err)
		w, err = startWindows(ctx, cfg, i, s)
	}
	return w, err
}

func startWindows(ctx context.Context, cfg WindowsConfig, i *Image, s Side) (_ *Windows, err error) {
	w := &Windows{Side: s, store: `S:\`, xchg: `X:\`}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w%s", s.Name, err, w.consoles()), w.Close())
		}
	}()
	dir := filepath.Join(cfg.Scratch, s.ID)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, windowsBoot)
	defer cancel()
	start := map[string]func(context.Context, WindowsConfig, *Image, string) (commander, error){
		work.SideOurs: w.startOurs, work.SideNinep: w.startNinep, "slirp": w.startSlirp,
	}[s.Kind]
	c, err := start(ctx, cfg, i, dir)
	if err != nil {
		return nil, err
	}
	for _, command := range w.mapCommands(i) {
		if err := c.run(ctx, command); err != nil {
			return nil, fmt.Errorf("in the guest: %s: %w", strings.ReplaceAll(command, i.secrets.SMBPassword, "********"), err)
		}
	}
	stdin, stdout, err := c.start(w.store + ProgramDir + `\` + ProgramFile)
	if err != nil {
		return nil, err
	}
	w.client = work.NewClient(stdout, stdin)
	if _, err := w.do(ctx, commandLimit, work.Request{Job: work.Job{Kind: work.Walk, Path: w.store + ProgramDir}}); err != nil {
		return nil, err
	}
	return w, w.Pause(ctx)
}

// A commander runs commands in the guest.
type commander interface {
	run(ctx context.Context, command string) error
	// start starts a program that is to run until the guest ends.
	start(command string) (io.Writer, io.Reader, error)
}

func (w *Windows) mapCommands(i *Image) []string {
	if w.Kind != "slirp" {
		return i.profile.MapCommands(i.secrets.SMBUser, i.secrets.SMBPassword)
	}
	return []string{fmt.Sprintf(`net use S: \\%s\qemu %s /user:%s /persistent:no`, guest.ControllerIPv4, i.secrets.SMBPassword, slirpUser)}
}

// Pause stops the guest, and its controller. Time does not pass for them.
func (w *Windows) Pause(ctx context.Context) error {
	for _, v := range w.vms {
		if err := v.Pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Resume lets them go on.
func (w *Windows) Resume(ctx context.Context) error {
	for n := len(w.vms) - 1; n >= 0; n-- { // the controller first
		if err := w.vms[n].Resume(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Run does a job in the guest. Its path, written as for a Lab, is made the guest's.
func (w *Windows) Run(ctx context.Context, j work.Job) (work.Result, error) {
	j.Path, j.Out = w.path(j.Path), w.path(j.Out)
	args := make([]string, len(j.Args))
	for n, a := range j.Args {
		args[n] = w.path(a)
	}
	j.Args = args
	return w.do(ctx, jobLimit, work.Request{Job: j})
}

// path makes store/a/b and xchg/a/b the guest's paths; other words stay.
func (w *Windows) path(p string) string {
	for prefix, root := range map[string]string{"store/": w.store, "xchg/": w.xchg} {
		before, after, ok := strings.Cut(p, prefix)
		if ok && (before == "" || strings.HasPrefix(before, "-")) {
			return before + root + strings.ReplaceAll(after, "/", `\`)
		}
	}
	return p
}

func (w *Windows) do(ctx context.Context, limit time.Duration, r work.Request) (work.Result, error) {
	type answer struct {
		work.Result
		error
	}
	got := make(chan answer, 1)
	go func() { // ends with the answer, or when Close has ended the connection
		res, err := w.client.Do(r)
		got <- answer{res, err}
	}()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case a := <-got:
		return a.Result, a.error
	case <-ctx.Done():
		return work.Result{}, context.Cause(ctx)
	case <-late.C:
		return work.Result{}, fmt.Errorf("no answer to %s in %v", r.Job.Kind, limit)
	}
}

func (w *Windows) consoles() string {
	text := ""
	for _, v := range w.vms {
		tail := v.ConsoleTail()
		text += fmt.Sprintf("\nlast on the console of %s: %s", v.Name(), tail[max(0, len(tail)-1000):])
	}
	return text
}

// Close ends everything.
func (w *Windows) Close() error {
	for n := len(w.closers) - 1; n >= 0; n-- {
		w.closers[n]()
	}
	w.closers = nil
	var errs []error
	for _, v := range w.vms {
		errs = append(errs, v.Kill())
	}
	return errors.Join(errs...)
}

// atEnd has something called by Close.
func (w *Windows) atEnd(f func()) { w.closers = append(w.closers, f) }
