package nixstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"winvm/hostagent/manifest"
	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// Limits of a Store.
const (
	// maxOpen is how many files are kept open between reads.
	maxOpen = 512
	// maxTold is how many changed files are logged by name.
	maxTold = 100
)

// A Store serves store paths. It implements fsrpc.Store.
type Store struct {
	path string
	log  *slog.Logger
	nix  bool // ctime and inode number don't count
	ms   []*manifest.Manifest
	sect []fsrpc.Section

	life  sync.RWMutex // held for reading by every Read
	dir   int          // O_PATH; -1 once closed
	files fileCache

	mu   sync.Mutex
	told map[fileID]bool // changed files that were logged
}

var _ fsrpc.Store = (*Store)(nil)

// New is Open without a context and a log.
func New(storeDir string, paths []string) (*Store, error) {
	return Open(context.Background(), storeDir, paths, nil)
}

// Open scans the store paths, base names in storeDir or absolute paths directly
// below it, and serves them. The caller ends with Close.
func Open(ctx context.Context, storeDir string, paths []string, log *slog.Logger) (*Store, error) {
	storeDir, err := filepath.Abs(storeDir)
	if err != nil {
		return nil, err
	}
	names, err := baseNames(storeDir, paths)
	if err != nil {
		return nil, err
	}
	dir, err := unix.Open(storeDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the store directory %s: %w", storeDir, err)
	}
	ms, err := manifest.ScanAll(ctx, storeDir, names)
	if err != nil {
		_ = unix.Close(dir)
		return nil, err
	}
	s := &Store{path: storeDir, log: log, nix: isNixStore(storeDir), dir: dir, ms: ms, told: map[fileID]bool{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, m := range ms {
		s.sect = append(s.sect, fsrpc.Section{Name: m.Name, Hash: m.Hash, Size: uint64(len(m.Encoded)), Entries: m.Section.Len()})
	}
	s.files.init(maxOpen, s.openFile)
	return s, nil
}

func baseNames(storeDir string, paths []string) ([]string, error) {
	names := make([]string, 0, len(paths))
	for _, p := range paths {
		if filepath.IsAbs(p) {
			if filepath.Dir(filepath.Clean(p)) != storeDir {
				return nil, fmt.Errorf("%s is not a store path: it %w %s", p, ErrOutsideStore, storeDir)
			}
			p = filepath.Base(p)
		}
		if !wire.ValidName(p) {
			return nil, fmt.Errorf("%q is not the name of a store path", p)
		}
		names = append(names, p)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > fsrpc.MaxSections {
		return nil, fmt.Errorf("%w: %d, at most %d are possible", ErrTooMany, len(names), fsrpc.MaxSections)
	}
	return names, nil
}

// Close closes what is open. Reads that are under way end first.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	s.files.close()
	dir := s.dir
	s.dir = -1
	return unix.Close(dir)
}

// Names lists the store paths' base names, sorted.
func (s *Store) Names() []string {
	names := make([]string, 0, len(s.ms))
	for _, m := range s.ms {
		names = append(names, m.Name)
	}
	return names
}

// Manifests returns the store paths' metadata, sorted by name.
func (s *Store) Manifests() []*manifest.Manifest { return slices.Clone(s.ms) }

// Sections implements fsrpc.Store.
func (s *Store) Sections(ctx context.Context, first uint32, limit int) ([]fsrpc.Section, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if limit < 0 {
		return nil, unix.EINVAL
	}
	from := min(uint64(first), uint64(len(s.sect)))
	rest := s.sect[from:]
	return slices.Clone(rest[:min(limit, len(rest))]), nil
}

// Metadata implements fsrpc.Store.
func (s *Store) Metadata(ctx context.Context, section uint32, off uint64, buf []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if uint64(section) >= uint64(len(s.ms)) {
		return 0, unix.EINVAL
	}
	enc := s.ms[section].Encoded
	return copy(buf, enc[min(off, uint64(len(enc))):]), nil
}

// Read implements fsrpc.Store.
func (s *Store) Read(ctx context.Context, section, entry uint32, off uint64, buf []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(buf) > fsrpc.MaxData || uint64(section) >= uint64(len(s.ms)) || entry >= s.ms[section].Section.Len() {
		return 0, unix.EINVAL
	}
	m := s.ms[section]
	switch m.Section.Kind(entry) {
	case wire.KindFile:
	case wire.KindDir:
		return 0, unix.EISDIR
	default:
		return 0, unix.EINVAL
	}
	want := uint64(m.Stamp(entry).Size)
	n := min(uint64(len(buf)), want-min(off, want))
	if n == 0 {
		return 0, nil
	}
	id := fileID{section, entry}
	if err := s.read(id, int64(off), buf[:n]); err != nil {
		return 0, s.failed(id, err)
	}
	return int(n), nil
}

// read fills buf from a file, or fails.
func (s *Store) read(id fileID, off int64, buf []byte) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.dir < 0 {
		return errClosed
	}
	f, err := s.files.get(id)
	if err != nil {
		return err
	}
	defer s.files.put(f)
	want := s.ms[id.section].Stamp(id.entry)
	if err := s.check(f.fd, want); err != nil {
		return err
	}
	if err := preadFull(f.fd, buf, off); err != nil {
		return err
	}
	return s.check(f.fd, want)
}

// errClosed: the store was closed.
var errClosed = errors.New("the store is closed")

// errChanged: a file isn't what the manifest says.
var errChanged = errors.New("it changed since the build began")

// check compares an open file with what the manifest remembers.
func (s *Store) check(fd int, want manifest.Stamp) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	got := manifest.StampOf(&st)
	if s.nix {
		got.Ctime, got.Ino = want.Ctime, want.Ino
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || got != want {
		return errChanged
	}
	return nil
}

// failed logs a file that can't be read, once, and makes the error EIO.
func (s *Store) failed(id fileID, err error) error {
	if errors.Is(err, unix.ENFILE) || errors.Is(err, unix.EMFILE) || errors.Is(err, errClosed) {
		return fmt.Errorf("%w (%w)", unix.EIO, err) // not the file's fault
	}
	s.mu.Lock()
	tell := !s.told[id] && len(s.told) < maxTold
	if tell {
		s.told[id] = true
	}
	s.mu.Unlock()
	path := s.ms[id.section].Path(id.entry)
	if tell {
		s.log.Error("a file of the store can't be given to the guest: reading it fails there; leave the store alone while a build runs",
			"file", filepath.Join(s.path, path), "err", err)
	}
	return fmt.Errorf("%s: %w (%w)", path, unix.EIO, err)
}

// openFile opens the file that a manifest's entry is. What isn't a regular file
// any more is not opened.
func (s *Store) openFile(id fileID) (int, error) {
	m := s.ms[id.section]
	path, err := manifest.OpenBeneath(s.dir, m.Path(id.entry), unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(path) }()
	if err := s.check(path, m.Stamp(id.entry)); err != nil {
		return -1, err
	}
	for {
		fd, err := unix.Open(procPath(path), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// preadFull fills buf; a file that ends early has changed.
func preadFull(fd int, buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := unix.Pread(fd, buf, off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errChanged
		default:
			buf, off = buf[n:], off+int64(n)
		}
	}
	return nil
}
