package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"winvm/hostagent/export"
	"winvm/hostagent/guest"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/image"
	"winvm/hostagent/install"
	"winvm/hostagent/nixstore"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/session"
	"winvm/hostagent/vm"
	"winvm/transport/agentrpc"
)

// stageLimit bounds whatever is done at once.
const stageLimit = 3 * time.Minute

// An old is the 2014 way: a guest saved by itself, a controller that is booted.
type old struct {
	controller, guest qemu.Machine // as they are booted
	profile           guest.Profile
	secrets           install.Secrets
	shares            export.Shares
	store             *nixstore.Store
	saved             string // the guest's state, with its memory, through gzip
	log               *slog.Logger
}

func open(stateDir, name, work string, log *slog.Logger) (*old, error) {
	i, err := image.NewStore(stateDir).Load(name)
	if err != nil {
		return nil, err
	}
	if i.State.Dir == "" {
		return nil, fmt.Errorf("image %s is not suspended: `hostagent suspend %s`", name, name)
	}
	o := &old{saved: filepath.Join(work, "guest.gz"), log: log}
	if o.profile, err = guest.Find(i.Guest); err != nil {
		return nil, err
	}
	if o.secrets, err = install.ReadSecrets(i); err != nil {
		return nil, err
	}
	o.controller, o.guest = pair.Machines(i, o.profile, i.State.Accel, "", i.Path(i.State.Dir), 0, false)
	// Memory that is no file is part of what is saved.
	o.controller.Memory.File, o.controller.Memory.Shared = "", false
	o.guest.Memory.File, o.guest.Memory.Shared = "", false
	store, xchg := filepath.Join(work, "store"), filepath.Join(work, "xchg")
	for _, d := range []string{store, xchg} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	if o.store, err = nixstore.New(store, nil); err != nil {
		return nil, err
	}
	tree, err := hostfs.New(hostfs.Config{Root: xchg, Logger: log})
	if err != nil {
		return nil, errors.Join(err, o.store.Close())
	}
	o.shares = export.Shares{Store: o.store, Xchg: tree}
	return o, nil
}

func (o *old) close() error { return errors.Join(o.store.Close(), o.shares.Xchg.(*hostfs.FS).Close()) }

// vms are both VMs, and a session with the controller.
type vms struct {
	controller, guest *vm.VM
	session           *session.Session
}

func (v *vms) kill() {
	if v.session != nil {
		v.session.Abort()
	}
	var g errgroup.Group
	for _, m := range []*vm.VM{v.controller, v.guest} {
		if m != nil {
			g.Go(m.Kill)
		}
	}
	_ = g.Wait()
}

// start boots the controller, starts the guest - from its saved state if revived is set -
// and returns when the controller has logged in to it.
func (o *old) start(ctx context.Context, revived bool) (_ *vms, err error) {
	a, b, err := vm.LinkPair()
	if err != nil {
		return nil, err
	}
	v := &vms{}
	defer func() {
		if err != nil {
			v.kill()
		}
	}()
	windows := o.guest
	windows.Incoming = revived
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		v.controller, err = vm.Start(gctx, vm.Config{Machine: o.controller, Link: a, Logger: o.log})
		return err
	})
	g.Go(func() (err error) {
		if v.guest, err = vm.Start(gctx, vm.Config{Machine: windows, Link: b, Logger: o.log}); err != nil || !revived {
			return err
		}
		if err := o.load(gctx, v.guest); err != nil {
			return err
		}
		return v.guest.Resume(gctx)
	})
	if err := g.Wait(); err != nil {
		return v, err
	}
	if v.session, err = session.Dial(ctx, v.controller.Port(pair.Port), nil, o.shares, "wake", o.log); err != nil {
		return v, err
	}
	if err := v.session.Attach(ctx); err != nil {
		return v, err
	}
	_, err = v.session.WaitGuest(ctx, nil)
	return v, err
}

// load loads the guest's state.
func (o *old) load(ctx context.Context, v *vm.VM) error {
	f, err := os.Open(o.saved)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error {
		_, err := io.Copy(w, z)
		return errors.Join(err, w.Close())
	})
	err = v.Load(ctx, r)
	return errors.Join(err, r.Close(), g.Wait())
}

// save boots both VMs, logs in once, so that the guest is up, and saves the guest alone.
func (o *old) save(ctx context.Context) (took time.Duration, size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, stageLimit)
	defer cancel()
	v, err := o.start(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	defer v.kill()
	// What a build uses is in the guest's memory, as it is in an image.
	// Its drives are not mapped: their server would be another one.
	if err := sh(ctx, v.session, "exit 0"); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	size, err = o.write(ctx, v.guest)
	return time.Since(begin), size, err
}

func (o *old) write(ctx context.Context, v *vm.VM) (size int64, err error) {
	f, err := os.OpenFile(o.saved, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	var g errgroup.Group
	g.Go(func() error {
		z := gzip.NewWriter(f)
		_, err := io.Copy(z, r)
		return errors.Join(err, z.Close())
	})
	err = errors.Join(v.Save(ctx, w), w.Close(), v.Kill()) // QEMU holds the pipe open
	if err = errors.Join(err, g.Wait(), r.Close()); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// command is one run: VMs, login, drives, the command, and their end.
func (o *old) command(ctx context.Context, revived bool) error {
	ctx, cancel := context.WithTimeout(ctx, stageLimit)
	defer cancel()
	v, err := o.start(ctx, revived)
	if err != nil {
		return err
	}
	defer v.kill()
	return o.mapAndRun(ctx, v.session)
}

func (o *old) mapAndRun(ctx context.Context, s *session.Session) error {
	for _, c := range o.profile.MapCommands(o.secrets.SMBUser, o.secrets.SMBPassword) {
		if err := sh(ctx, s, c); err != nil {
			return fmt.Errorf("map a drive: %w", err)
		}
	}
	return sh(ctx, s, "exit 0")
}

// sh runs a line in the guest's shell, which is cmd.
func sh(ctx context.Context, s *session.Session, line string) error {
	exit, err := s.Run(ctx, session.Exec{ExecStart: agentrpc.ExecStart{Command: line}})
	if err == nil && (exit.Status == nil || *exit.Status != 0) {
		err = errors.New("the command did not exit with 0")
	}
	return err
}
