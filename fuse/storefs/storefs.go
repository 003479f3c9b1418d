package storefs

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"winvm/fuse/mount"
	"winvm/fuse/treefs"
	"winvm/transport/fsrpc"
)

// Config says how the share is mounted. The zero value is usable.
type Config struct {
	// Source is what mounts(5) shows as the device; "" is winvm-nixstore.
	Source string
	// UID and GID own the outputs, and the root while there are some. Store
	// paths belong to root.
	UID, GID uint32
	// AllowOther lets users other than the mounting one in.
	AllowOther bool
	// ReadOnly means that there never are outputs.
	ReadOnly bool
	// Grace is how long requests wait while there is no session; 0 is ten seconds.
	Grace time.Duration
	// MaxCachedBytes is how much metadata is held of sections that the session
	// may lack; 0 is 256 MiB.
	MaxCachedBytes uint64
	// MaxSessionBytes is how much metadata a session may have; 0 is 1 GiB.
	MaxSessionBytes uint64
	// ReadAhead is the kernel's readahead in bytes; 0 is 1 MiB.
	ReadAhead int
	// Logger gets what no request can be told; nil is nowhere.
	Logger *slog.Logger
}

func (c *Config) setDefaults() {
	if c.Source == "" {
		c.Source = "winvm-nixstore"
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.MaxCachedBytes == 0 {
		c.MaxCachedBytes = 256 << 20
	}
	if c.MaxSessionBytes == 0 {
		c.MaxSessionBytes = 1 << 30
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// outputTag is set in the nodeids and inode numbers of outputs.
const outputTag = 1 << 62

// FS is a mounted share.
type FS struct {
	cfg      Config
	mount    *mount.Mount
	outputs  *treefs.FS
	handler  *handler
	sections registry
	cur      treefs.Slot[session]

	work sync.WaitGroup // what reads ahead

	change sync.Mutex // held by SetSession; no request takes it
	seq    uint64
}

// Mount mounts the share on dir, with no session yet.
func Mount(dir string, cfg Config) (*FS, error) {
	cfg.setDefaults()
	fs := &FS{cfg: cfg}
	fs.outputs = treefs.New(treefs.Config{
		UID: cfg.UID, GID: cfg.GID, Grace: cfg.Grace, Tag: outputTag, Through: true, Logger: cfg.Logger,
	})
	// Attributes come with every listing: they cost nothing here.
	// O_TRUNC must come as a truncation: there is no open that could do it.
	const capabilities = treefs.Capabilities &^ (fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ATOMIC_O_TRUNC)
	var err error
	fs.handler = newHandler(fs)
	fs.mount, err = mount.New(dir, fs.handler, mount.Options{
		Source: cfg.Source, ReadOnly: cfg.ReadOnly, AllowOther: cfg.AllowOther, CacheSymlinks: true,
		Capabilities: capabilities, ReadAhead: cfg.ReadAhead, Cut: fs.cut, Logger: cfg.Logger,
	})
	if err != nil {
		fs.outputs.Close()
		return nil, err
	}
	return fs, nil
}

// SetSession puts a session in the place of the one before: store's sections, and
// in outputs, which may be nil, the names that the build may make. It returns when
// nothing else can be found any more; if it fails, the former session stays in place.
func (fs *FS) SetSession(ctx context.Context, store fsrpc.Store, outputs fsrpc.Tree) error {
	if outputs != nil && fs.cfg.ReadOnly {
		return fmt.Errorf("store session: outputs on a mount that was made read-only")
	}
	fs.change.Lock()
	defer fs.change.Unlock()
	list, err := fs.list(ctx, store)
	if err != nil {
		return fmt.Errorf("store session: %w", err)
	}
	sections, err := fs.obtain(ctx, store, list)
	if err != nil {
		return fmt.Errorf("store session: %w", err)
	}
	fs.seq++
	s := newSession(fs, fs.seq, store, outputs != nil, sections)
	end(fs.cur.Swap(s))
	fs.handler.open.close()
	fs.invalidate(s, fs.outputs.Swap(outputs))
	fs.sections.used(sections, s.seq, fs.cfg.MaxCachedBytes)
	return nil
}

// invalidate makes the kernel forget what isn't true in session s any more.
func (fs *FS) invalidate(s *session, names []string) {
	for _, sec := range fs.sections.all() {
		if !s.has(sec) && sec.shown.Swap(false) {
			names = append(names, sec.key.name)
		}
	}
	treefs.Invalidate(fs.mount.Server(), names)
}

// ClearSession ends the session: requests in progress fail, later ones wait for
// the next SetSession.
func (fs *FS) ClearSession() {
	end(fs.cur.Swap(nil))
	fs.outputs.End()
}

// CloseOutputs closes the outputs' files on the host: only then are errors known that
// a close there tells. It is for the time when no program writes any more.
func (fs *FS) CloseOutputs() { fs.handler.open.close() }

// cut ends every request in progress, and lets none wait any more.
func (fs *FS) cut() {
	end(fs.cur.Close())
	fs.outputs.Cut()
}

func end(s *session) {
	if s != nil {
		s.cancel()
	}
}

// Dir tells where the share is mounted.
func (fs *FS) Dir() string { return fs.mount.Dir() }

// Done is closed when the share is no longer mounted, whoever unmounted it.
func (fs *FS) Done() <-chan struct{} { return fs.mount.Done() }

// Close unmounts the share. If it is in use, or ctx ends first, what is in
// progress fails and what has it open gets ENOTCONN; in any case no mount is left.
func (fs *FS) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, fs.cut)
	defer stop()
	err := fs.mount.Close(ctx)
	fs.outputs.Close()
	fs.cut()
	fs.work.Wait()
	return err
}
