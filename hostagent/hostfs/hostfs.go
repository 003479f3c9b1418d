package hostfs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// Config says what to serve, and how much of it at a time.
type Config struct {
	// Root is the directory, as a path. It may be a symbolic link.
	Root string
	// Names, if not nil, are the only names that can exist or be made in Root.
	Names []string
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// MaxNodes is the most files the mount side can hold references to, and so
	// the most descriptors held for that. 0: three eighths of RLIMIT_NOFILE.
	MaxNodes int
	// MaxHandles is the most files open at once. 0: a sixteenth of RLIMIT_NOFILE.
	MaxHandles int
	// Logger gets what the user should know. nil: nothing.
	Logger *slog.Logger
}

// FS serves one directory. It implements fsrpc.Tree.
type FS struct {
	cfg   Config
	log   *slog.Logger
	names map[string]bool // nil: any
	uid   uint32

	rootMu sync.RWMutex
	root   *os.File // opened for reading, for syncfs and statfs; nil once closed

	mu     sync.Mutex
	closed bool
	nodes  map[fsrpc.NodeID]*node
	byKey  map[inode]*node
	lastID fsrpc.NodeID

	hmu        sync.RWMutex
	handles    map[fsrpc.HandleID]*handle
	reserved   int // handles being opened
	lastHandle fsrpc.HandleID

	fold     foldCache
	lost     lostError
	nodeFull quiet
	openFull quiet
}

var _ fsrpc.Tree = (*FS)(nil)

// New opens the directory. The caller ends with Close.
func New(cfg Config) (*FS, error) {
	limit, err := fileLimit()
	if err != nil {
		return nil, err
	}
	if cfg.MaxNodes <= 0 {
		cfg.MaxNodes = int(limit * 3 / 8)
	}
	if cfg.MaxHandles <= 0 {
		cfg.MaxHandles = int(limit / 16)
	}
	root, err := os.OpenFile(cfg.Root, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory to share: %w", err)
	}
	fs := &FS{
		cfg: cfg, log: cfg.Logger, uid: uint32(os.Geteuid()), root: root,
		nodes: map[fsrpc.NodeID]*node{}, byKey: map[inode]*node{}, lastID: fsrpc.RootNode,
		handles: map[fsrpc.HandleID]*handle{},
	}
	if fs.log == nil {
		fs.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Names != nil {
		fs.names = map[string]bool{}
		for _, n := range cfg.Names {
			fs.names[n] = true
		}
	}
	if err := fs.openRoot(); err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("share %s: %w", cfg.Root, err)
	}
	return fs, nil
}

// openRoot makes node 1, and finds out whether openat2(2) and /proc are there.
func (fs *FS) openRoot() error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve}
	fd, err := openat2(int(fs.root.Fd()), ".", &how)
	if err != nil {
		return fmt.Errorf("openat2 (Linux 5.6 or later is needed): %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	again, err := unix.Open(procPath(fd), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("open through /proc/self/fd (is /proc mounted?): %w", err)
	}
	_ = unix.Close(again)
	n := &node{id: fsrpc.RootNode, key: keyOf(&st), fd: fd, kind: st.Mode & unix.S_IFMT, refs: 1}
	fs.nodes[n.id], fs.byKey[n.key] = n, n
	return nil
}

// Close closes everything that is still open; operations that are under way
// end first or fail. It returns the error Sync would have returned, without
// syncing.
func (fs *FS) Close() error {
	fs.hmu.Lock()
	handles := fs.handles
	fs.handles = nil
	fs.hmu.Unlock()
	for _, h := range handles {
		if err := h.close(); err != nil {
			fs.lost.keep(err)
		}
	}
	fs.mu.Lock()
	fs.closed = true
	for _, n := range fs.nodes {
		n.refs = 0
		fs.reap(n) // what an operation uses now goes when that ends
	}
	fs.mu.Unlock()
	fs.rootMu.Lock()
	defer fs.rootMu.Unlock()
	if fs.root == nil {
		return unix.EBADF
	}
	err := fs.root.Close()
	fs.root = nil
	return errors.Join(fs.lost.take(), err)
}

// withRoot calls f with a descriptor of the root that can be used for more
// than looking up names.
func (fs *FS) withRoot(f func(fd int) error) error {
	fs.rootMu.RLock()
	defer fs.rootMu.RUnlock()
	if fs.root == nil {
		return unix.EBADF
	}
	return f(int(fs.root.Fd()))
}

// RaiseFileLimit raises the soft limit of open files to the hard one, and
// returns it. A binary that serves shares calls it first.
func RaiseFileLimit() (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if lim.Cur < lim.Max {
		lim.Cur = lim.Max
		// Through package syscall, so that child processes get the old limit back.
		if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			return 0, fmt.Errorf("raise the limit of open files to %d: %w", lim.Max, err)
		}
	}
	return lim.Cur, nil
}

func fileLimit() (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return min(lim.Cur, 1<<22), nil
}
