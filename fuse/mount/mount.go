package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// MaxRequest is the most bytes one read or write request carries.
const MaxRequest = 1 << 20

const (
	defaultReadAhead     = 1 << 20
	defaultMaxBackground = 64
	subtype              = "winvm" // mounts(5) shows fuse.winvm
)

// Options says how to mount.
type Options struct {
	// Source is what mounts(5) shows as the device.
	Source string
	// ReadOnly makes the kernel refuse every change with EROFS.
	ReadOnly bool
	// AllowOther lets users other than the mounting one in, root too. Without
	// root it needs user_allow_other in /etc/fuse.conf.
	AllowOther bool
	// CacheSymlinks lets the kernel keep link targets until they are invalidated.
	CacheSymlinks bool
	// Capabilities are FUSE capabilities (fuse.CAP_*) to ask for beyond go-fuse's.
	Capabilities uint64
	// ReadAhead is the kernel's readahead in bytes; 0 is 1 MiB.
	ReadAhead int
	// MaxBackground is how many asynchronous requests (readahead, release) the
	// kernel has in flight; 0 is 64.
	MaxBackground int
	// Cut is called by Close if requests in progress have to end at once. It may
	// be called more than once, and must not wait for them.
	Cut func()
	// Logger gets what go-fuse has to say; nil is nowhere.
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	if o.Source == "" {
		o.Source = subtype
	}
	if o.ReadAhead <= 0 {
		o.ReadAhead = defaultReadAhead
	}
	if o.MaxBackground <= 0 {
		o.MaxBackground = defaultMaxBackground
	}
	if o.Cut == nil {
		o.Cut = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// A Mount is a mounted file system.
type Mount struct {
	dir    string
	opts   Options
	server *fuse.Server
	direct bool
	dev    uint64
	done   chan struct{}
}

// New mounts fs on the directory dir and serves it until Close, or until
// somebody else unmounts it.
func New(dir string, fs fuse.RawFileSystem, opts Options) (*Mount, error) {
	opts.setDefaults()
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, err)
	}
	if st, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("mount point: %w", err)
	} else if !st.IsDir() {
		return nil, fmt.Errorf("mount point %s: %w", abs, unix.ENOTDIR)
	}
	m := &Mount{dir: abs, opts: opts, done: make(chan struct{})}
	if err := m.connect(fs); err != nil {
		return nil, fmt.Errorf("mount %s on %s: %w", opts.Source, abs, err)
	}
	go func() {
		defer close(m.done)
		m.server.Serve()
	}()
	m.settle()
	return m, nil
}

// connect makes the mount and shakes hands with the kernel.
func (m *Mount) connect(fs fuse.RawFileSystem) error {
	point := m.dir
	fd, err := mountDirect(m.dir, &m.opts)
	switch {
	case err == nil:
		point, m.direct = fmt.Sprintf("/dev/fd/%d", fd), true
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES):
		return err
	}
	// go-fuse owns fd from here on.
	m.server, err = fuse.NewServer(fs, point, m.fuseOptions())
	if err != nil && m.direct {
		return errors.Join(err, unix.Unmount(m.dir, unix.MNT_DETACH))
	}
	if err != nil {
		return fmt.Errorf("%w (not as root: is fusermount3 installed, setuid root, and /dev/fuse usable?)", err)
	}
	return nil
}

func (m *Mount) fuseOptions() *fuse.MountOptions {
	o := &fuse.MountOptions{
		Name:                 subtype,
		FsName:               m.opts.Source,
		AllowOther:           m.opts.AllowOther,
		Options:              []string{"default_permissions"},
		MaxBackground:        m.opts.MaxBackground,
		MaxWrite:             MaxRequest,
		MaxReadAhead:         MaxRequest,
		EnableSymlinkCaching: m.opts.CacheSymlinks,
		ExtraCapabilities:    m.opts.Capabilities,
		DisableSplice:        true, // contents come from memory, not from files
		Logger:               slog.NewLogLogger(m.opts.Logger.Handler(), slog.LevelWarn),
	}
	if m.opts.ReadOnly {
		o.Options = append(o.Options, "ro")
	}
	return o
}

// mountDirect opens /dev/fuse and mounts it on dir with mount(2).
func mountDirect(dir string, o *Options) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions,max_read=%d",
		fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), MaxRequest)
	if o.AllowOther {
		data += ",allow_other"
	}
	if err := unix.Mount(o.Source, dir, "fuse."+subtype, flags, data); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// settle does what can be done only on a mount that is served.
func (m *Mount) settle() {
	pollOnce(m.dir)
	var st unix.Stat_t
	if err := unix.Stat(m.dir, &st); err != nil {
		m.opts.Logger.Warn("mount: can't stat the new mount", "dir", m.dir, "err", err)
		return
	}
	m.dev = st.Dev
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(m.dev), unix.Minor(m.dev))
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d", m.opts.ReadAhead>>10), 0); err != nil {
		m.opts.Logger.Debug("mount: readahead stays at the kernel's default", "err", err)
	}
}

// pollOnce makes the kernel send one poll request for a name that go-fuse answers
// by itself, with ENOSYS, after which there are no others. Without it a Go program
// that opens files of its own mount can block in epoll_ctl with no thread left to
// answer (see go-fuse's poll.go, which does the same for mounts it made itself).
func pollOnce(dir string) {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	_ = unix.Close(fd)
}

// Dir tells where the mount is.
func (m *Mount) Dir() string { return m.dir }

// Server is what notifications to the kernel go through.
func (m *Mount) Server() *fuse.Server { return m.server }

// Done is closed when the file system is no longer served, whoever unmounted it.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Close unmounts and waits until nothing is served any more. A busy mount is
// aborted and detached. When ctx ends, so does every request in progress. An
// error means that the mount may still be there.
func (m *Mount) Close(ctx context.Context) error {
	select {
	case <-m.done:
		return nil
	default:
	}
	stop := context.AfterFunc(ctx, m.opts.Cut)
	defer stop()
	err := m.unmount()
	if err != nil {
		m.opts.Logger.Info("mount: busy, aborting", "dir", m.dir, "err", err)
		m.opts.Cut()
		err = m.abort()
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	return m.wait(ctx)
}
