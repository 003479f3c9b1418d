// Package mounts holds the FUSE mounts of the controller VM, the store and xchg,
// over all the sessions whose shares stand behind them one after the other.
//
// smbd has the mounts' directories open for as long as the VM lives, so they are
// never unmounted in between: Attach puts another session's shares behind them, and
// Detach takes them away.
package mounts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/fuse/xchgfs"
	"winvm/transport/fsrpc"
)

// closeLimit bounds how long an unmount waits for requests in progress.
const closeLimit = 5 * time.Second

// Config says where to mount. An empty directory is not mounted.
type Config struct {
	StoreDir string
	XchgDir  string
	// User is whom the files belong to, and who but root may use the mounts: the
	// user that smbd serves as. "" takes UID and GID.
	User       string
	UID, GID   uint32
	AllowOther bool
	// NoOutputs makes the store read-only for good.
	NoOutputs bool
}

// Shares are one session's. Those not mounted are nil.
type Shares struct {
	Store   *fsrpc.StoreClient
	Outputs *fsrpc.TreeClient
	Xchg    *fsrpc.TreeClient
}

// Mounts are what is mounted.
type Mounts struct {
	cfg   Config
	store *storefs.FS
	xchg  *xchgfs.FS
	now   Shares
}

// Mount mounts with nothing behind. What an agent that died left mounted there is
// unmounted first.
func Mount(cfg Config, log *slog.Logger) (*Mounts, error) {
	if cfg.User != "" {
		if err := cfg.lookUpUser(); err != nil {
			return nil, err
		}
	}
	m := &Mounts{cfg: cfg}
	var err error
	if cfg.StoreDir != "" {
		if err = clean(cfg.StoreDir); err == nil {
			m.store, err = storefs.Mount(cfg.StoreDir, storefs.Config{UID: cfg.UID, GID: cfg.GID, AllowOther: cfg.AllowOther, ReadOnly: cfg.NoOutputs, Logger: log})
		}
	}
	if err == nil && cfg.XchgDir != "" {
		if err = clean(cfg.XchgDir); err == nil {
			m.xchg, err = xchgfs.Mount(cfg.XchgDir, xchgfs.Config{UID: cfg.UID, GID: cfg.GID, AllowOther: cfg.AllowOther, Logger: log})
		}
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (c *Config) lookUpUser() error {
	u, err := user.Lookup(c.User)
	if err != nil {
		return fmt.Errorf("the user that the shares belong to: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	c.UID, c.GID, c.AllowOther = uint32(uid), uint32(gid), true
	return nil
}

// clean detaches a FUSE mount whose process is gone.
func clean(dir string) error {
	for range 8 { // they can lie on each other
		_, err := os.Stat(dir)
		if !errors.Is(err, unix.ENOTCONN) {
			return err
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("a mount whose process is gone is on %s: %w", dir, err)
		}
	}
	return fmt.Errorf("too many dead mounts on %s", dir)
}

// Attach puts a session's shares behind the mounts.
func (m *Mounts) Attach(ctx context.Context, s Shares) error {
	if m.store != nil && s.Store != nil {
		var outputs fsrpc.Tree
		if s.Outputs != nil {
			outputs = s.Outputs
		}
		if err := m.store.SetSession(ctx, s.Store, outputs); err != nil {
			return fmt.Errorf("share nixstore: %w", err)
		}
	}
	if m.xchg != nil && s.Xchg != nil {
		m.xchg.SetTree(s.Xchg)
	}
	m.now = s
	return nil
}

// Detach takes the session's shares away; requests then wait for the next.
func (m *Mounts) Detach() {
	if m.store != nil {
		m.store.ClearSession()
	}
	if m.xchg != nil {
		m.xchg.ClearTree()
	}
	m.now = Shares{}
}

// Sync returns when everything written through the mounts is with the host's
// file system.
func (m *Mounts) Sync(ctx context.Context) error {
	var errs []error
	for _, dir := range []string{m.cfg.StoreDir, m.cfg.XchgDir} {
		if dir != "" {
			errs = append(errs, syncfs(dir)) // what the kernel still holds
		}
	}
	if m.now.Outputs != nil {
		m.store.CloseOutputs()
		errs = append(errs, m.now.Outputs.Sync(ctx))
	}
	if m.xchg != nil {
		errs = append(errs, m.xchg.Sync(ctx))
	}
	return errors.Join(errs...)
}

func syncfs(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// Done is closed when any of the mounts is gone, whoever unmounted it.
func (m *Mounts) Done() <-chan struct{} {
	switch {
	case m.store == nil:
		return m.xchg.Done()
	case m.xchg == nil:
		return m.store.Done()
	}
	done := make(chan struct{})
	go func() { // ends with the mounts
		select {
		case <-m.store.Done():
		case <-m.xchg.Done():
		}
		close(done)
	}()
	return done
}

// Close unmounts.
func (m *Mounts) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	var errs []error
	if m.xchg != nil {
		errs = append(errs, m.xchg.Close(ctx))
	}
	if m.store != nil {
		errs = append(errs, m.store.Close(ctx))
	}
	return errors.Join(errs...)
}
