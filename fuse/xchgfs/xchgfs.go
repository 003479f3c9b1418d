package xchgfs

import (
	"context"
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
	// Source is what mounts(5) shows as the device; "" is winvm-xchg.
	Source string
	// UID and GID own every file.
	UID, GID uint32
	// AllowOther lets users other than the mounting one in.
	AllowOther bool
	// AttrTimeout and EntryTimeout bound how late changes on the host are seen;
	// 0 is a second. NegativeTimeout is that of names that don't exist; 0 is none.
	AttrTimeout, EntryTimeout, NegativeTimeout time.Duration
	// Grace is how long requests wait while there is no Tree; 0 is ten seconds.
	Grace time.Duration
	// Writeback lets the kernel gather writes: they are quicker, and an error is
	// told by fsync or close. But it knows better than the host then how long a
	// file is that it has in memory, so changes of it on the host stay unseen.
	Writeback bool
	// ReadAhead is the kernel's readahead in bytes; 0 is 1 MiB.
	ReadAhead int
	// Logger gets what no request can be told; nil is nowhere.
	Logger *slog.Logger
}

// FS is a mounted share.
type FS struct {
	tree  *treefs.FS
	mount *mount.Mount

	notify sync.Mutex // held while the kernel is notified; no request takes it
}

// Mount mounts the share on dir, with no Tree yet.
func Mount(dir string, cfg Config) (*FS, error) {
	if cfg.Source == "" {
		cfg.Source = "winvm-xchg"
	}
	tree := treefs.New(treefs.Config{
		UID: cfg.UID, GID: cfg.GID,
		AttrTimeout: cfg.AttrTimeout, EntryTimeout: cfg.EntryTimeout, NegativeTimeout: cfg.NegativeTimeout,
		Grace: cfg.Grace, Writeback: cfg.Writeback, Logger: cfg.Logger,
	})
	opts := mount.Options{
		Source: cfg.Source, AllowOther: cfg.AllowOther, ReadAhead: cfg.ReadAhead,
		Capabilities: treefs.Capabilities, Cut: tree.Cut, Logger: cfg.Logger,
	}
	if cfg.Writeback {
		opts.Capabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	m, err := mount.New(dir, tree, opts)
	if err != nil {
		tree.Close()
		return nil, err
	}
	return &FS{tree: tree, mount: m}, nil
}

// SetTree puts tree in the place of the one before. When it returns, nothing of
// the former one is to be found any more.
func (fs *FS) SetTree(tree fsrpc.Tree) {
	stale := fs.tree.Swap(tree)
	fs.notify.Lock()
	defer fs.notify.Unlock()
	treefs.Invalidate(fs.mount.Server(), stale)
}

// ClearTree ends the session: requests in progress fail, later ones wait for the
// next SetTree.
func (fs *FS) ClearTree() { fs.tree.End() }

// Sync returns when everything written is with the host's file system, and tells the
// first error of it that no program was told of.
func (fs *FS) Sync(ctx context.Context) error { return fs.tree.Sync(ctx) }

// Dir tells where the share is mounted.
func (fs *FS) Dir() string { return fs.mount.Dir() }

// Done is closed when the share is no longer mounted, whoever unmounted it.
func (fs *FS) Done() <-chan struct{} { return fs.mount.Done() }

// Close unmounts the share. If it is in use, or ctx ends first, what is in
// progress fails and what has it open gets ENOTCONN; in any case no mount is left.
func (fs *FS) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, fs.tree.Cut)
	defer stop()
	err := fs.mount.Close(ctx)
	fs.tree.Close()
	return err
}
