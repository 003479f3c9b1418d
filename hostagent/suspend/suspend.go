// Package suspend is stage 2: it boots both VMs of an installed image, lets the
// controller log in to the guest and map the drives, warms what every build needs,
// parks winvm-run.exe, and saves the pair.
//
// An attempt that fails because a VM hung while it booted is repeated once: under
// emulation one boot in some dozens does.
package suspend

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

	"winvm/hostagent/event"
	"winvm/hostagent/export"
	"winvm/hostagent/guest"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/image"
	"winvm/hostagent/install"
	"winvm/hostagent/job"
	"winvm/hostagent/manifest"
	"winvm/hostagent/nixstore"
	"winvm/hostagent/pair"
	"winvm/hostagent/session"
	"winvm/transport/agentrpc"
)

// runnerFile is the program's name among the helper files and on drive X:.
const runnerFile = "winvm-run.exe"

// Limits of a step. Under emulation each takes a few seconds.
const (
	controllerBoot = 90 * time.Second
	commandLimit   = 3 * time.Minute
	saveLimit      = 2 * time.Minute
)

// Config says what to suspend and with what.
type Config struct {
	Store   *image.Store
	Image   *image.Image
	QEMU    string // binary
	Version string // QEMU's
	Accel   string
	LaneMiB int    // of memory shared with the controller; 0 = none
	Agent   string // path of the controller agent
	Runner  string // path of winvm-run.exe
	Build   string // this program's version
	// Change makes of the image's description what this suspend is to go by: what
	// is to be warm, the controller's memory. nil leaves it as it is.
	Change func(*image.Meta)
	// OnPair, if not nil, is given the pair while it runs, and nil at its end.
	OnPair    func(*pair.Pair)
	Manifests *manifest.Cache // of store paths; nil = none
	WorkDir   string          // for temporary files; removed by the caller
	LogDir    string          // for the consoles' logs
	Report    *event.Reporter
	Log       *slog.Logger
}

// Suspend gives the image a new suspended state.
func Suspend(ctx context.Context, c Config) error {
	p, err := install.ProfileOf(c.Image)
	if err != nil {
		return err
	}
	agent, err := os.ReadFile(c.Agent)
	if err != nil {
		return fmt.Errorf("the controller agent's program: %w", err)
	}
	digest, err := image.Describe(c.Agent)
	if err != nil {
		return err
	}
	program, err := image.Describe(c.Runner)
	if err != nil {
		return err
	}
	secrets, err := install.ReadSecrets(c.Image)
	if err != nil {
		return err
	}
	return c.Store.Replace(ctx, c.Image, func(dir string) (image.State, error) {
		if c.Change != nil {
			c.Change(&c.Image.Meta)
		}
		a := &attempt{Config: c, profile: p, secrets: secrets, dir: dir}
		if err := WriteInitrds(c.Image, p, secrets, agent, dir); err != nil {
			return image.State{}, err
		}
		err := a.run(ctx)
		if errors.Is(err, errBoot) && ctx.Err() == nil {
			c.Report.Tell(event.KindWarning, "%v; trying once more", err)
			err = a.run(ctx)
		}
		a.state.Agent, a.state.Program = digest.SHA256, program.SHA256
		return a.state, err
	})
}

// errBoot is wrapped by the error of a VM that did not come up.
var errBoot = errors.New("boot failed")

// An attempt is one boot and save.
type attempt struct {
	Config
	profile guest.Profile
	secrets install.Secrets
	dir     string // of the state
	state   image.State
}

func (a *attempt) run(ctx context.Context) (err error) {
	controller, windows := pair.Machines(a.Image, a.profile, a.Accel, a.QEMU, a.dir, a.LaneMiB, false)
	for _, vm := range []string{pair.Controller, pair.Guest} { // of a first attempt
		_ = os.Remove(filepath.Join(a.dir, vm+".memory"))
		_ = os.Remove(filepath.Join(a.dir, vm+".state"))
	}
	if err := pair.Overlays(ctx, a.profile, a.Image.Path(pair.Guest), a.dir); err != nil {
		return err
	}
	a.state = image.State{
		Suspended: time.Now().UTC(), QEMU: a.Version, Accel: a.Accel, LaneMiB: a.LaneMiB, Runner: job.Runner,
		Controller: controller.Identity(), Guest: windows.Identity(),
	}
	cfg := pair.Config{Controller: controller, Guest: windows, StateDir: a.dir, LogDir: a.LogDir, Log: a.Log}
	a.Report.Stage("suspend", "booting both VMs (%s)", a.Accel)
	p, err := pair.Boot(ctx, cfg)
	if err != nil {
		return err
	}
	defer p.Kill()
	if a.OnPair != nil {
		a.OnPair(p)
		defer a.OnPair(nil)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with ctx, which this function ends
		select {
		case <-p.Failed():
			cancel(p.Err())
		case <-ctx.Done():
		}
	}()
	if err := a.prepare(ctx, p); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return fmt.Errorf("%w%s", err, p.Describe(context.WithoutCancel(ctx), a.LogDir))
	}
	a.Report.Stage("suspend", "saving both VMs")
	ctx, cancelSave := context.WithTimeout(ctx, saveLimit)
	defer cancelSave()
	if err := p.Save(ctx, cfg); err != nil {
		return err
	}
	a.Report.Stage("suspend", "writing the image to disk")
	return nil
}

// prepare brings the pair to the point at which it is saved.
func (a *attempt) prepare(ctx context.Context, p *pair.Pair) error {
	shares, store, err := a.shares(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	dialing, cancel := context.WithTimeout(ctx, controllerBoot)
	defer cancel()
	s, err := session.Dial(dialing, p.Link(), p.Lane, shares, a.Build, a.Log)
	if err != nil {
		return fmt.Errorf("%w: the controller VM: %w", errBoot, err)
	}
	defer s.Abort()
	attaching, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	if err := s.Attach(attaching); err != nil {
		return err
	}
	a.Report.Stage("suspend", "controller is up; waiting for the guest's SSH server")
	booting, cancel := context.WithTimeout(ctx, time.Duration(a.profile.Machine.BootLimitS)*time.Second)
	defer cancel()
	if _, err := s.WaitGuest(booting, nil); err != nil {
		return fmt.Errorf("%w: %w", errBoot, err)
	}
	a.Report.Stage("suspend", "guest is up; mapping drives")
	if err := a.commands(ctx, s, a.profile.MapCommands(a.secrets.SMBUser, a.secrets.SMBPassword)); err != nil {
		return err
	}
	a.Report.Stage("suspend", "warming up")
	if err := a.commands(ctx, s, a.profile.InstallRunner); err != nil {
		return err
	}
	if err := a.warmUp(ctx, s); err != nil {
		return err
	}
	if err := a.park(ctx, s); err != nil {
		return err
	}
	if err := a.warm(ctx, s, store); err != nil {
		return err
	}
	settled := time.NewTimer(a.profile.Settle.Duration)
	defer settled.Stop()
	select {
	case <-settled.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel = context.WithTimeout(ctx, commandLimit)
	defer cancel()
	return s.Quiesce(ctx)
}

// Names of the job that warms the guest up.
const (
	warmID    = "warm-up"
	warmBatch = "warm-up.bat"
)

// makeWarmUp puts the warm-up's batch file into xchg, with a directory for its exit
// file, and returns what winvm-run.exe is told.
func (a *attempt) makeWarmUp() ([]byte, error) {
	xchg := a.xchg()
	text := strings.Join(a.profile.WarmUp, "\r\n") + "\r\n"
	if err := os.WriteFile(filepath.Join(xchg, warmBatch), []byte(text), 0o644); err != nil {
		return nil, err
	}
	data, err := job.Job{Args: []string{"cmd", "/c", a.profile.XchgPath(warmBatch)}, Env: []string{"out=" + a.profile.StorePath("out")}}.Encode()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(job.Dir, warmID)
	if err := os.MkdirAll(filepath.Join(xchg, dir), 0o755); err != nil {
		return nil, err
	}
	return job.Input(a.profile.XchgPath(dir), data), os.WriteFile(filepath.Join(xchg, dir, job.ExitFile), nil, 0o644)
}

// xchg is the directory behind the share while the pair is prepared.
func (a *attempt) xchg() string { return filepath.Join(a.WorkDir, "xchg") }

// warmUp runs a job as a build would.
func (a *attempt) warmUp(ctx context.Context, s *session.Session) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	input, err := a.makeWarmUp()
	if err != nil {
		return err
	}
	said := &strings.Builder{}
	c, err := s.Start(ctx, agentrpc.ExecStart{Command: a.profile.RunnerPath})
	if err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	if err := c.Input(input); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	exit, err := c.Wait(ctx, session.Exec{Stdout: said, Stderr: said})
	if err != nil {
		return fmt.Errorf("warming up: %w: %s", err, said)
	}
	if exit.Status == nil || *exit.Status != 0 {
		return fmt.Errorf("warming up: %s ended with %v: %s", a.profile.RunnerPath, describeStatus(exit.Status), said)
	}
	return nil
}

func describeStatus(s *uint32) string {
	if s == nil {
		return "no exit status"
	}
	return fmt.Sprintf("exit status %d", *s)
}

// shares are the store with what is to be warm, and an xchg with the runner.
func (a *attempt) shares(ctx context.Context) (export.Shares, *nixstore.Store, error) {
	xchg := a.xchg()
	empty := filepath.Join(a.WorkDir, "store")
	for _, d := range []string{xchg, empty} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return export.Shares{}, nil, err
		}
	}
	if err := copyFile(a.Runner, filepath.Join(xchg, runnerFile)); err != nil {
		return export.Shares{}, nil, fmt.Errorf("the program that starts commands in the guest: %w", err)
	}
	tree, err := hostfs.New(hostfs.Config{Root: xchg, Logger: a.Log})
	if err != nil {
		return export.Shares{}, nil, err
	}
	store, err := a.openWarm(ctx)
	if err != nil {
		return export.Shares{}, nil, err
	}
	return export.Shares{Store: store, Xchg: tree}, store, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// commands runs commands in the guest one after the other; each must succeed.
func (a *attempt) commands(ctx context.Context, s *session.Session, list []string) error {
	for _, c := range list {
		said := &strings.Builder{}
		limited, cancel := context.WithTimeout(ctx, commandLimit)
		exit, err := s.Run(limited, session.Exec{ExecStart: agentrpc.ExecStart{Command: c}, Stdout: said, Stderr: said})
		cancel()
		shown := strings.ReplaceAll(c, a.secrets.SMBPassword, "********")
		if err != nil {
			return fmt.Errorf("in the guest: %s: %w: %s", shown, err, said)
		}
		if exit.Status == nil || *exit.Status != 0 {
			return fmt.Errorf("in the guest: %s: %s: %s", shown, describeStatus(exit.Status), strings.TrimSpace(said.String()))
		}
		a.Log.Debug("in the guest", "command", shown, "said", said.String())
	}
	return nil
}

// park starts winvm-run.exe and leaves it waiting for a job.
func (a *attempt) park(ctx context.Context, s *session.Session) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	exit, err := s.Run(ctx, session.Exec{ExecStart: agentrpc.ExecStart{Command: a.profile.RunnerPath, Park: job.Runner}})
	if err != nil {
		return fmt.Errorf("starting %s in the guest: %w", a.profile.RunnerPath, err)
	}
	if want := job.Runner + " ready"; exit.Line != want {
		return fmt.Errorf("%s in the guest said %q instead of %q", a.profile.RunnerPath, exit.Line, want)
	}
	return nil
}
