package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

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
	"winvm/hostagent/qemu"
	"winvm/hostagent/rundir"
	"winvm/hostagent/session"
	"winvm/transport/capture"
	"winvm/transport/mux"
)

// Limits of the stages that are not the command.
const (
	reviveLimit  = time.Minute
	channelLimit = time.Minute
	flushLimit   = 10 * time.Minute // a disk may be slow, and there may be much to write
)

// A build is one run of Run.
type build struct {
	Config
	life
	profile  guest.Profile
	image    *image.Image
	version  string // QEMU's
	run      *rundir.Dir
	closure  []string
	store    *nixstore.Store
	outputs  *hostfs.FS
	sealed   *sealedTree // outputs, for the guest
	xchg     *hostfs.FS
	pair     *pair.Pair
	session  *session.Session
	tap      *capture.Tap // nil: none
	command  *session.Command
	lastByte []byte // of what the command is told
	written  writeErrors
	staging  string // directory that $out is made in
	xchgDir  string
	jobs     *os.Root // xchg, for the job's files
	jobDir   string   // of this build, below xchg
	result   Result

	succeeded bool
}

// Run builds. The error, if there is one, is an *Error; the Result is filled in as
// far as it is known in any case.
func Run(ctx context.Context, c Config) (Result, error) {
	begin := time.Now()
	b := &build{Config: c}
	ctx = b.begin(ctx)
	err := b.checkCommand()
	if err == nil {
		err = b.all(ctx, b.announce, b.runCommand)
	}
	b.result.Image, b.result.Took = c.Image, time.Since(begin)
	b.writeTrace()
	if err != nil {
		err = b.classify(ctx, err)
		b.result.Status, b.result.Error = StatusOf(err), err.Error()
	}
	if b.result.Held == nil {
		b.control.cancel(nil)
	}
	return b.result, err
}

// checkCommand refuses what can't be a command before anything is started.
func (b *build) checkCommand() error {
	if len(b.Args) == 0 {
		return failed("no command: hostagent build [flags] -- COMMAND [ARG]...")
	}
	if _, err := (job.Job{Dir: b.Dir, Args: b.Args, Env: b.Env}).Encode(); err != nil {
		return &Error{Status: StatusCantRun, Err: err}
	}
	return nil
}

// classify makes every error an *Error.
func (b *build) classify(ctx context.Context, err error) error {
	var e *Error
	switch known := errors.As(err, &e); {
	case ctx.Err() != nil && (!known || e.Status == StatusFailed):
		// Whatever step it was in failed for that reason.
		if errors.Is(context.Cause(ctx), ErrKilled) {
			return &Error{Status: StatusSignal, Err: ErrKilled}
		}
		return &Error{Status: StatusSignal, Err: ErrInterrupted}
	case known:
		return err
	default:
		return &Error{Status: StatusFailed, Err: err}
	}
}

// all does everything around work, which is given a pair and a session. announce is
// called when there is a session and nothing else.
func (b *build) all(ctx context.Context, announce, work func(context.Context) error) (err error) {
	run := ctx
	defer func() { err = errors.Join(err, b.cleanUp(run)) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := b.takeTurn(ctx); err != nil {
		return err
	}
	if err := b.scanAndRevive(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with ctx, which this function ends
		select {
		case <-b.pair.Failed():
			cancel(b.pair.Err())
		case <-ctx.Done():
		}
	}()
	if err = b.connect(ctx, announce); err == nil {
		go func() { // the same
			if err := b.session.Alive(ctx, b.pair.Controller.Pid(), b.pair.Guest.Pid()); err != nil {
				cancel(err)
			}
		}()
		err = work(ctx)
	}
	if cause := b.cause(ctx, err); err != nil && cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	var e *Error
	if err != nil && (!errors.As(err, &e) || e.Status == StatusFailed || e.Status == StatusTimeout) && !errors.Is(context.Cause(ctx), context.Canceled) {
		err = b.describe(ctx, err)
	}
	return err
}

// deathLimit is how long the end of a QEMU may be behind the end of the channel
// to it.
const deathLimit = time.Second

// cause is why ctx ended, or the death of a VM that is about to be known: of the
// controller the end of the session is seen first.
func (b *build) cause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err == nil || cause != nil {
		return cause
	}
	if !errors.Is(err, mux.ErrPeerGone) && !errors.Is(err, mux.ErrLink) {
		return nil
	}
	limit := time.NewTimer(deathLimit)
	defer limit.Stop()
	select {
	case <-b.pair.Failed():
		return b.pair.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		return nil
	}
}

// describe adds what was last seen of the VMs, and keeps it.
func (b *build) describe(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	text := b.pair.Describe(ctx, b.run.KeepLogs())
	return &Error{Status: StatusOf(err), Err: fmt.Errorf("%w%s", err, text)}
}

// prepare checks everything that can be checked without a VM.
func (b *build) prepare(ctx context.Context) error {
	defer b.Timeline.Begin("prepare")()
	if b.StoreDir == "" {
		b.StoreDir = DefaultStore
	}
	if err := errors.Join(b.checkOut(), b.checkXchg()); err != nil {
		return err
	}
	var err error
	if b.version, err = qemu.RememberedVersion(ctx, b.QEMU, filepath.Join(b.CacheDir, "qemu.json")); err != nil {
		return err
	}
	if b.image, err = b.loadImage(); err != nil {
		return err
	}
	if b.profile, err = install.ProfileOf(b.image); err != nil {
		return err
	}
	inputs, err := AbsoluteInputs(b.Inputs)
	if err != nil {
		return err
	}
	if !b.NoInputs {
		if b.closure, err = nixstore.Closure(ctx, b.StoreDir, inputs); err != nil {
			return err
		}
	}
	if b.run, err = rundir.New(b.StateDir); err != nil {
		return err
	}
	b.result.ID = b.run.ID
	if b.tap, err = capture.Listen(ctx, b.DebugSocket, mux.SideHost); err != nil {
		return fmt.Errorf("--debug-socket: %w", err)
	}
	b.serveControl()
	return b.makeShares()
}

// loadImage loads the image and checks that it can be revived here.
func (b *build) loadImage() (*image.Image, error) {
	i, err := image.NewStore(b.StateDir).Load(b.Image)
	if err != nil {
		return nil, err
	}
	if err := i.Check(b.version); err != nil {
		return nil, err
	}
	if i.State.Runner != job.Runner {
		return nil, fmt.Errorf("%w: image %q was suspended by another version of winvm: it runs commands by %q, this hostagent by %q; `hostagent suspend %s` makes the state anew",
			image.ErrMismatch, i.Name, i.State.Runner, job.Runner, i.Name)
	}
	return i, nil
}

// makeShares makes the directories that the guest writes to.
func (b *build) makeShares() error {
	raise, err := hostfs.RaiseFileLimit()
	if err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	b.Log.Debug("limit of open files", "n", raise)
	b.staging = b.run.Path("outputs")
	if b.Out != "" {
		if b.staging, err = b.run.Beside(b.Out); err != nil {
			return fmt.Errorf("staging directory for --out: %w", err)
		}
	}
	b.xchgDir = b.Xchg
	if b.xchgDir == "" {
		b.xchgDir = b.run.Path("xchg")
	}
	for _, d := range []string{b.staging, b.xchgDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// scanAndRevive reads the closure's metadata while the VMs start.
func (b *build) scanAndRevive(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.scan(gctx) })
	g.Go(func() error { return b.revive(gctx) })
	err := g.Wait()
	return err
}

func (b *build) scan(ctx context.Context) (err error) {
	defer b.Timeline.Begin("closure's metadata")()
	if b.store, err = nixstore.Open(ctx, b.StoreDir, b.closure, b.Manifests, b.Log); err != nil {
		return err
	}
	for _, name := range b.outNames() {
		if err := checkClash(name, b.store.Names()); err != nil {
			return err
		}
	}
	b.preflight()
	if b.outputs, err = hostfs.New(hostfs.Config{Root: b.staging, Names: b.outNames(), Logger: b.Log}); err != nil {
		return err
	}
	b.sealed = &sealedTree{Tree: b.outputs}
	b.xchg, err = hostfs.New(hostfs.Config{Root: b.xchgDir, Logger: b.Log})
	return err
}

// maxWarnings is how many names that Windows can't have are told one by one.
const maxWarnings = 20

// preflight tells of the names in the closure that Windows can't represent.
func (b *build) preflight() {
	problems := manifest.Preflight(b.store.Manifests())
	for _, p := range problems[:min(len(problems), maxWarnings)] {
		b.Report.Tell(event.KindWarning, "%s", p)
	}
	if n := len(problems) - maxWarnings; n > 0 {
		b.Report.Tell(event.KindWarning, "and %d more names that Windows can't represent", n)
	}
}

func (b *build) revive(ctx context.Context) error {
	defer b.Timeline.Begin("revive")()
	ctx, cancel := context.WithTimeoutCause(ctx, reviveLimit, &timeoutError{"the VMs did not revive", reviveLimit})
	defer cancel()
	// Until both QEMUs hold the files open nobody may replace or remove them.
	unlock, err := image.NewStore(b.StateDir).LockShared(ctx, b.Image)
	if err != nil {
		return err
	}
	defer unlock()
	// A suspend may have replaced the state since prepare.
	if b.image, err = b.loadImage(); err != nil {
		return err
	}
	dir := b.image.Path(b.image.State.Dir)
	controller, windows := pair.Machines(b.image, b.profile, b.image.State.Accel, b.QEMU, dir, b.image.State.LaneMiB, true)
	if err := pair.CheckIdentity(b.image, controller, windows); err != nil {
		return err
	}
	if err := checkStates(b.image); err != nil {
		return err
	}
	if b.profile.Setup != nil { // what this build writes to the guest's disk is thrown away
		if err := pair.Overlays(ctx, b.profile, dir, b.run.Path("")); err != nil {
			return err
		}
		pair.SetDisk(&windows, b.run.Path(pair.GuestDisk), b.run.Path(pair.GuestVars))
	}
	b.pair, err = pair.Revive(ctx, pair.Config{
		Controller: controller, Guest: windows, StateDir: dir, LogDir: b.run.LogDir(),
		Timeline: b.Timeline, Log: b.Log,
	})
	b.control.setPair(b.pair)
	return err
}

// checkStates compares the device states, a megabyte in all, with their digests: a
// VM can load a damaged one and go on with wrong data.
func checkStates(i *image.Image) error {
	for _, vm := range []string{pair.Controller, pair.Guest} {
		name := vm + ".state"
		got, err := image.Describe(i.StatePath(name))
		if err != nil {
			return fmt.Errorf("%w: %q: %w", image.ErrDamaged, i.Name, err)
		}
		if got != i.State.Files[name] {
			return fmt.Errorf("%w: %q: %s is not what was written; `hostagent suspend %s` makes it anew",
				image.ErrDamaged, i.Name, filepath.Join(i.State.Dir, name), i.Name)
		}
	}
	return nil
}

// runCommand is the work of Run.
func (b *build) runCommand(ctx context.Context) error {
	if err := b.noteUse(ctx); err != nil {
		return err
	}
	exit, err := b.await(ctx)
	if err != nil {
		return err
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	if err := b.tellUse(ctx); err != nil {
		return err
	}
	return b.collect(exit)
}

func (b *build) connect(ctx context.Context, announce func(context.Context) error) error {
	defer b.Timeline.Begin("channel")()
	ctx, cancel := context.WithTimeoutCause(ctx, channelLimit, &timeoutError{"the controller agent did not answer", channelLimit})
	defer cancel()
	shares := export.Shares{Store: b.store, Outputs: b.written.watch(b.sealed, b.staging), Xchg: b.written.watch(b.xchg, b.xchgDir)}
	lane := b.pair.Lane
	if b.NoLane {
		lane = nil
	}
	var err error
	if b.session, err = session.Dial(ctx, b.tap.Wrap(b.pair.Link()), lane, shares, b.Version, b.Log); err != nil {
		return err
	}
	if err := announce(ctx); err != nil {
		return err
	}
	defer b.Timeline.Begin("attach shares")()
	return b.session.Attach(ctx)
}

// cleanUp leaves nothing behind but what was asked to be kept.
func (b *build) cleanUp(ctx context.Context) error {
	if b.hold(ctx) {
		return nil
	}
	err := b.end()
	b.control.close()
	return err
}

// end ends both VMs and what belongs to them.
func (b *build) end() error {
	defer b.Timeline.Begin("teardown")()
	if b.session != nil {
		b.session.Abort()
	}
	b.tap.Close()
	if b.pair != nil {
		if b.pair.Lane != nil {
			b.result.Lane = b.pair.Lane.Lent()
		}
		b.pair.Kill()
	}
	var errs []error
	for _, fs := range []*hostfs.FS{b.outputs, b.xchg} {
		if fs != nil {
			errs = append(errs, fs.Close())
		}
	}
	if b.store != nil {
		b.result.Store = b.store.Stats()
		errs = append(errs, b.store.Close())
	}
	errs = append(errs, b.ticket.Close())
	if b.run == nil {
		return errors.Join(errs...)
	}
	b.logs = b.run.EndLogs()
	if b.KeepFailed && !b.succeeded {
		b.keep()
		return errors.Join(append(errs, b.run.Close())...)
	}
	errs = append(errs, b.removeJob(), b.run.Remove())
	return errors.Join(errs...)
}
