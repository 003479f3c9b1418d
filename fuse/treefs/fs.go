package treefs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"winvm/transport/fsrpc"
)

// Config says how a Tree is shown. The zero value is usable.
type Config struct {
	// UID and GID own every file of the host agent's user; others' files
	// belong to 65534.
	UID, GID uint32
	// AttrTimeout and EntryTimeout are how long the kernel may believe
	// attributes and names; 0 is a second.
	AttrTimeout, EntryTimeout time.Duration
	// NegativeTimeout is how long it may believe that a name doesn't exist; 0 is
	// not at all.
	NegativeTimeout time.Duration
	// Grace is how long requests wait while there is no Tree; 0 is ten seconds.
	Grace time.Duration
	// Tag is set in every nodeid but the root's, and in every inode number. Only
	// bits 62 and 63 count.
	Tag uint64
	// MaxNodes is how many files the kernel may remember before it is made to
	// forget those it doesn't use; 0 is 65,536. If the host can hold fewer, that
	// is learned.
	MaxNodes int
	// Writeback opens files so that the kernel may cache writes; the mount must
	// ask for fuse.CAP_WRITEBACK_CACHE then.
	Writeback bool
	// Through lets the host have every write before it is answered, for a mount whose
	// kernel doesn't tell what was opened.
	Through bool
	// Logger gets what no request can be told; nil is nowhere.
	Logger *slog.Logger
}

func (c *Config) setDefaults() {
	if c.AttrTimeout == 0 {
		c.AttrTimeout = time.Second
	}
	if c.EntryTimeout == 0 {
		c.EntryTimeout = time.Second
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.MaxNodes <= 0 {
		c.MaxNodes = 1 << 16
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Tag &= 3 << 62
}

// Capabilities are the FUSE capabilities a mount should ask for: a listing's
// attributes only if they are used, O_TRUNC within the open, and no getxattr
// before each write (the host side never keeps setuid bits). Files open for appending
// can be mapped shared only where the kernel knows CAP_DIRECT_IO_ALLOW_MMAP (6.6).
const Capabilities = fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 |
	fuse.CAP_DIRECT_IO_ALLOW_MMAP

// FS is a fuse.RawFileSystem over the Tree of the current session.
type FS struct {
	fuse.RawFileSystem // ENOSYS for what isn't supported

	cfg     Config
	handles handleTable
	changes changes
	behind  behind
	absent  absent
	forgets *forgetter

	cur Slot[session]

	mu    sync.Mutex // held while cur changes
	epoch uint64
	shown map[string]time.Time // names in the root the kernel may have, and since when

	server     *fuse.Server
	live       map[fsrpc.NodeID]uint64 // lookup references the kernel has
	maxNodes   int                     // how many of them it may have
	looked     int                     // references it took since the last reclaim
	reclaiming bool
	turnedAway map[string]time.Time // names in the root, and when they were told ESTALE for want of nodes
	work       sync.WaitGroup       // of reclaim
}

var _ fuse.RawFileSystem = (*FS)(nil)

// A session is one Tree's time.
type session struct {
	epoch  uint64
	tree   fsrpc.Tree
	ctx    context.Context // of every request
	cancel context.CancelFunc
}

// over reports whether another Tree, or none, is in place.
func (s *session) over() bool { return s.ctx.Err() != nil }

// New returns a file system without a Tree. It must be closed.
func New(cfg Config) *FS {
	cfg.setDefaults()
	f := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg,
		shown:         map[string]time.Time{},
		live:          map[fsrpc.NodeID]uint64{},
		maxNodes:      cfg.MaxNodes,
	}
	f.behind.init(f)
	f.absent.f = f
	f.forgets = newForgetter(cfg.Logger)
	return f
}

// String implements fuse.RawFileSystem.
func (f *FS) String() string { return "winvm" }

// Init implements fuse.RawFileSystem.
func (f *FS) Init(server *fuse.Server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = server
}

// Swap puts tree in the place of the current one; nil leaves none. Requests of the
// former session end. It returns the names in the root that the kernel may still
// have from sessions before, to be given to Invalidate.
func (f *FS) Swap(tree fsrpc.Tree) (stale []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var next *session
	if tree != nil {
		f.epoch++
		next = &session{epoch: f.epoch, tree: tree}
		next.ctx, next.cancel = context.WithCancel(context.Background())
	}
	end(f.cur.Swap(next))
	if err := f.behind.takeLost(); err != nil {
		f.cfg.Logger.Warn("treefs: writes of the former session were lost", "err", err)
	}
	clear(f.live)
	f.looked = 0
	return f.takeShown()
}

// takeShown returns the names in the root that the kernel may have, for somebody
// who makes it forget them.
func (f *FS) takeShown() (names []string) {
	for name := range f.shown {
		names = append(names, name)
	}
	clear(f.shown)
	return names
}

// End ends the session, with none to follow yet. Names that the kernel has are left
// to the next Swap: requests that wait for it may hold the lock that Invalidate
// needs.
func (f *FS) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	end(f.cur.Swap(nil))
}

// Cut ends every request in progress, and lets none wait any more.
func (f *FS) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	end(f.cur.Close())
}

func end(s *session) {
	if s != nil {
		s.cancel()
	}
}

// Close gives back what the kernel didn't, if there is still a Tree to give it
// to, and ends. The mount must be off already, so no request comes any more.
func (f *FS) Close() {
	if f.cur.Now() != nil {
		for _, h := range f.handles.drop() {
			h.release(f)
		}
	}
	f.forgets.close()
	f.Cut()
	f.work.Wait()
	f.behind.work.Wait()
	f.absent.work.Wait()
}

// Sync returns when everything that was written is with the host's file system, and
// tells the first error of it that no program was told of.
func (f *FS) Sync(ctx context.Context) error {
	f.behind.drainAll()
	err := f.behind.takeLost()
	if s := f.cur.Now(); s != nil {
		err = errors.Join(err, s.tree.Sync(ctx))
	}
	return err
}

// at finds the session and node a request is about. A request about the root
// waits for a session; one about a node of a former session is stale.
func (f *FS) at(cancel <-chan struct{}, nodeid uint64) (*session, fsrpc.NodeID, fuse.Status) {
	if nodeid == fuse.FUSE_ROOT_ID {
		s, st := f.cur.Wait(cancel, f.cfg.Grace)
		return s, fsrpc.RootNode, st
	}
	s := f.cur.Now()
	if s == nil || s.epoch != f.epochOf(nodeid) {
		return nil, 0, estale
	}
	return s, nodeOf(nodeid), fuse.OK
}

// shownLimit is how many names of the root are remembered before those that the
// kernel has stopped believing are dropped.
const shownLimit = 1 << 18

// commit notes that the kernel learns of name in parent, and takes a lookup
// reference on n if that isn't 0. It reports false if the session is over: what it
// said must not be told any more.
func (f *FS) commit(s *session, parent uint64, name string, n fsrpc.NodeID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cur.Now() != s {
		return false
	}
	if n != 0 {
		f.live[n]++
		f.looked++
		if len(f.live) > f.maxNodes {
			f.reclaim()
		}
	}
	if parent != fuse.FUSE_ROOT_ID {
		return true
	}
	now := time.Now()
	if len(f.shown) >= shownLimit {
		for n, since := range f.shown {
			if now.Sub(since) > max(f.cfg.EntryTimeout, f.cfg.NegativeTimeout) {
				delete(f.shown, n)
			}
		}
	}
	f.shown[name] = now
	return true
}

// forgot notes that the kernel gave back references.
func (f *FS) forgot(n fsrpc.NodeID, count uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live[n] > count {
		f.live[n] -= count
	} else {
		delete(f.live, n)
	}
}

// gone notes that the kernel knows that name is not in parent any more.
func (f *FS) gone(parent uint64, name string) {
	if parent != fuse.FUSE_ROOT_ID || f.cfg.NegativeTimeout > 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.shown, name)
}

// Invalidate makes the kernel forget the root's attributes and these names in it,
// with all that is below them. See the package doc for where it must not be
// called.
func Invalidate(server *fuse.Server, names []string) {
	for _, name := range names {
		server.EntryNotify(fuse.FUSE_ROOT_ID, name) // ENOENT: it hadn't
	}
	server.InodeNotify(fuse.FUSE_ROOT_ID, 0, 0)
}

const estale = fuse.Status(syscall.ESTALE)

// status translates a Tree's error; after the session's end whatever it was is EIO.
func (s *session) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if s.over() {
		return fuse.EIO
	}
	return Status(err)
}

// Status translates an error of the host's for the kernel, which takes no errno it
// doesn't know, and takes ENOSYS as "never ask again".
func Status(err error) fuse.Status {
	errno := fsrpc.ToErrno(err)
	switch {
	case errno == syscall.ENOSYS:
		return fuse.Status(syscall.EOPNOTSUPP)
	case errno <= 0 || errno >= 512:
		return fuse.EIO
	}
	return fuse.Status(errno)
}
