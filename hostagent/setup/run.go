package setup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"winvm/hostagent/event"
	"winvm/hostagent/export"
	"winvm/hostagent/guest"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/image"
	"winvm/hostagent/install"
	"winvm/hostagent/nixstore"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/qmp"
	"winvm/hostagent/session"
	"winvm/hostagent/suspend"
	"winvm/hostagent/vm"
	"winvm/transport/agentrpc"
)

// How often is looked, and limits of steps.
const (
	sampleEvery    = time.Second
	shotEvery      = 5 * time.Second
	tellEvery      = time.Minute
	keyPause       = 3 * time.Second // between two keys that are pressed
	controllerBoot = 3 * time.Minute
	shutdownLimit  = 10 * time.Minute
	buttonAfter    = 30 * time.Second // a guest that doesn't go down by itself
)

// A run is the guest at its install.
type run struct {
	*Config
	image   *image.Image
	media   string // directory
	secrets install.Secrets

	vm      *vm.VM
	tracker *Tracker
	begun   time.Time
	resets  int
	shot    string // the last screenshot
	shotAt  time.Time
	keyAt   time.Time
	keyRead int64 // bytes read from the CD when a key was pressed last
	keys    int
	toldAt  time.Time
	digest  string
}

// machines describes both VMs of an install.
func (r *run) machines() (controller, windows qemu.Machine) {
	controller, windows = pair.Machines(r.image, r.Profile, r.accel, r.QEMU, r.WorkDir, 0, false)
	controller.Memory = qemu.Memory{MiB: controller.Memory.MiB}
	windows.Memory = qemu.Memory{MiB: windows.Memory.MiB}
	pair.SetDisk(&windows, r.image.Path(pair.Guest, pair.GuestDisk), r.image.Path(pair.Guest, pair.GuestVars))
	windows.Drives = append(windows.Drives,
		qemu.Drive{ID: "vendor", Model: qemu.IDECD, File: r.ISO, Format: "raw", ReadOnly: true, Boot: 2},
		qemu.Drive{ID: "software", Model: qemu.IDECD, File: filepath.Join(r.media, softwareISO), Format: "raw", ReadOnly: true})
	if r.Profile.Setup.Answer == guest.WinntSIF {
		windows.Drives = append(windows.Drives,
			qemu.Drive{ID: "floppy", Model: qemu.Floppy, File: filepath.Join(r.media, floppyImage), Format: "raw", ReadOnly: true})
	}
	windows.AllowReboot = true
	windows.Panic = true
	windows.Display = r.Display
	return controller, windows
}

// run installs, and returns how long each stage took.
func (r *run) run(ctx context.Context) (map[string]time.Duration, error) {
	agent, err := os.ReadFile(r.Agent)
	if err != nil {
		return nil, fmt.Errorf("the controller agent's program: %w", err)
	}
	if err := os.MkdirAll(r.WorkDir, 0o700); err != nil {
		return nil, err
	}
	if err := suspend.WriteInitrds(r.image, r.Profile, r.secrets, agent, r.WorkDir); err != nil {
		return nil, err
	}
	if r.ISO, err = filepath.Abs(r.ISO); err != nil {
		return nil, err
	}
	controller, windows := r.machines()
	r.Report.Stage("install", "starting (%s)", r.accel)
	p, err := pair.Boot(ctx, pair.Config{Controller: controller, Guest: windows, StateDir: r.WorkDir, LogDir: r.LogDir, Log: r.Log})
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	if r.OnPair != nil {
		r.OnPair(p)
		defer r.OnPair(nil)
	}
	r.vm, r.begun, r.tracker = p.Guest, time.Now(), NewTracker(r.Profile.Setup.Limits)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connected := make(chan error, 1)
	s, store, err := r.dial(ctx, p)
	if err == nil {
		defer func() { _ = store.Close() }()
		defer s.Abort()
		go func() { // ends with ctx, or the session, which this function ends
			_, err := s.WaitGuest(ctx, nil)
			connected <- err
		}()
		err = r.watch(ctx, p, connected)
	}
	if err == nil {
		err = r.shutdown(ctx, s)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("%w%s", err, r.describe())
	}
	return r.tracker.Took, nil
}

// dial makes the session with the controller agent, over which the SSH server is waited
// for.
func (r *run) dial(ctx context.Context, p *pair.Pair) (*session.Session, *nixstore.Store, error) {
	xchg := filepath.Join(r.WorkDir, "xchg")
	empty := filepath.Join(r.WorkDir, "store")
	for _, d := range []string{xchg, empty} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, nil, err
		}
	}
	tree, err := hostfs.New(hostfs.Config{Root: xchg, Logger: r.Log})
	if err != nil {
		return nil, nil, err
	}
	store, err := nixstore.New(empty, nil)
	if err != nil {
		return nil, nil, err
	}
	limited, cancel := context.WithTimeout(ctx, controllerBoot)
	defer cancel()
	s, err := session.Dial(limited, p.Link(), p.Lane, export.Shares{Store: store, Xchg: tree}, r.Build, r.Log)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the controller VM: %w", err), store.Close())
	}
	if err := s.Attach(limited); err != nil {
		s.Abort()
		return nil, nil, errors.Join(err, store.Close())
	}
	return s, store, nil
}

// watch looks at the guest until its SSH server answers or something is wrong.
func (r *run) watch(ctx context.Context, p *pair.Pair, connected <-chan error) error {
	events := r.vm.Events("RESET")
	defer events.Close()
	every := time.NewTicker(sampleEvery)
	defer every.Stop()
	r.Report.Stage("install", "%s", r.tracker.Stage())
	ssh := false
	for r.tracker.Stage() != Done {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.Failed():
			return p.Err()
		case err := <-connected:
			if err != nil {
				return err
			}
			ssh = true
		case <-every.C:
		}
		if err := r.look(ctx, events, ssh); err != nil {
			return err
		}
	}
	return nil
}

// look takes one sample and does what it calls for.
func (r *run) look(ctx context.Context, events *qmp.Subscription, ssh bool) error {
	for more := true; more; {
		select {
		case e, ok := <-events.C:
			if more = ok; ok && e.Bool("guest") {
				r.resets++
			}
		default:
			more = false
		}
	}
	moved, err := r.vm.Moved(ctx)
	if err != nil {
		return err
	}
	r.screenshot(ctx)
	sample := Sample{
		At: time.Since(r.begun), CDRead: moved["vendor"].Read, DiskMade: moved["system"].Written,
		Resets: r.resets, Screen: r.digest, Console: r.vm.ConsoleTail(), SSH: ssh,
	}
	news, err := r.tracker.Observe(sample)
	if err != nil {
		return err
	}
	if news || time.Since(r.toldAt) > tellEvery {
		r.toldAt = time.Now()
		r.Report.Stage("install", "%s (%v; %d MiB read, %d MiB written)%s", r.tracker.Stage(),
			sample.At.Round(time.Second), sample.CDRead>>20, sample.DiskMade>>20, r.remaining(sample.At))
	}
	return r.answerKey(ctx, sample.CDRead)
}

// answerKey presses a key if the boot loader of the CD asks for one. The question stays
// where it was read long after it was answered: so it is answered again only if nothing
// has been read from the CD since.
func (r *run) answerKey(ctx context.Context, read int64) error {
	const most = 5
	if r.tracker.Stage() > Setup || r.keys >= most || time.Since(r.keyAt) < keyPause || r.keys > 0 && read != r.keyRead {
		return nil
	}
	text := r.vm.ConsoleTail()
	if !r.Profile.UEFI() {
		var err error
		if text, err = r.vm.ScreenText(ctx, r.LogDir); err != nil {
			return err
		}
	}
	if !asksForKey(text) {
		return nil
	}
	r.keys, r.keyAt, r.keyRead = r.keys+1, time.Now(), read
	r.Report.Tell(event.KindStage, "the CD asks for a key")
	return r.vm.PressKey(ctx, "ret")
}

// keptShots is how many screenshots are kept: the last ones.
const keptShots = 20

// screenshot takes one every few seconds. That it can't is no reason to give up.
func (r *run) screenshot(ctx context.Context) {
	if time.Since(r.shotAt) < shotEvery {
		return
	}
	r.shotAt = time.Now()
	path := filepath.Join(r.LogDir, "screen-"+r.shotAt.UTC().Format("20060102-150405")+".png")
	if err := r.vm.Screenshot(ctx, path); err != nil {
		r.Log.Debug("no screenshot", "error", err)
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(b))
	if digest == r.digest {
		_ = os.Remove(path)
		return
	}
	r.digest, r.shot = digest, path
	shots, _ := filepath.Glob(filepath.Join(r.LogDir, "screen-*.png")) // sorted
	for _, old := range shots[:max(0, len(shots)-keptShots)] {
		_ = os.Remove(old)
	}
}

// describe says where to look for what happened.
func (r *run) describe() string {
	text := "\nthe logs: " + r.LogDir
	if r.shot != "" {
		text = "\nthe last screenshot: " + r.shot + text
	}
	return text
}

// shutdown has the guest shut down, so that its disk is whole.
func (r *run) shutdown(ctx context.Context, s *session.Session) error {
	r.Report.Stage("install", "sshd is up; shutting the guest down")
	ctx, cancel := context.WithTimeout(ctx, shutdownLimit)
	defer cancel()
	go func() { // ends with the session or ctx; a guest that goes down gives no answer
		_, _ = s.Run(ctx, session.Exec{ExecStart: agentrpc.ExecStart{Command: "shutdown /s /t 0"}})
	}()
	button := time.NewTimer(buttonAfter)
	defer button.Stop()
	for {
		select {
		case <-r.vm.Done():
			if err := r.vm.Err(); !errors.Is(err, vm.PoweredOff) {
				return fmt.Errorf("while it was to shut down: %w", err)
			}
			return nil
		case <-button.C:
			if err := r.vm.PowerButton(ctx); err != nil {
				r.Log.Debug("power button", "error", err)
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: the guest does not shut down", ErrStuck)
		}
	}
}
