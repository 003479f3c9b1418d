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
	ms   []*manifest.Manifest
	sect []fsrpc.Section
	meta []uint64 // where each one's metadata ends, if it stands behind the others'

	stats counters

	life  sync.RWMutex // held for reading by every Read
	dir   int          // O_PATH; -1 once closed
	files fileCache

	mu   sync.Mutex
	told map[fileID]bool // changed files that were logged
}

var _ fsrpc.Store = (*Store)(nil)

// New is Open without a context, a cache and a log.
func New(storeDir string, paths []string) (*Store, error) {
	return Open(context.Background(), storeDir, paths, nil, nil)
}

// Open scans the store paths, base names in storeDir or absolute paths directly
// below it, and serves them. What Nix vouches for is taken from the cache, which may
// be nil. The caller ends with Close.
func Open(ctx context.Context, storeDir string, paths []string, cache *manifest.Cache, log *slog.Logger) (*Store, error) {
	storeDir, err := filepath.Abs(storeDir)
	if err != nil {
		return nil, err
	}
	names, err := baseNames(storeDir, paths)
	if err != nil {
		return nil, err
	}
	o := manifest.Options{Cache: cache}
	if isNixStore(storeDir) {
		if o.NAR, err = narHashes(ctx, storeDir, names); err != nil {
			return nil, err
		}
	}
	dir, err := unix.Open(storeDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the store directory %s: %w", storeDir, err)
	}
	ms, err := manifest.ScanAll(ctx, storeDir, names, o)
	if err != nil {
		_ = unix.Close(dir)
		return nil, err
	}
	s := &Store{path: storeDir, log: log, dir: dir, ms: ms, told: map[fileID]bool{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	end := uint64(0)
	for _, m := range ms {
		end += uint64(len(m.Encoded))
		s.meta = append(s.meta, end)
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
	at := s.meta[section] - uint64(len(s.ms[section].Encoded)) + min(off, s.meta[len(s.meta)-1])
	i, _ := slices.BinarySearch(s.meta, at+1)
	n := 0
	for ; i < len(s.ms) && n < len(buf); i++ {
		enc := s.ms[i].Encoded
		n += copy(buf[n:], enc[uint64(len(enc))-(s.meta[i]-at-uint64(n)):])
	}
	s.stats.metadata.Add(int64(n))
	return n, nil
}

// Read implements fsrpc.Store.
func (s *Store) Read(ctx context.Context, section, entry uint32, off uint64, buf []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(buf) > fsrpc.MaxData {
		return 0, unix.EINVAL
	}
	s.stats.reads.Add(1)
	id := fileID{section, entry}
	size, err := s.size(id)
	if err != nil {
		return 0, err
	}
	n := min(uint64(len(buf)), size-min(off, size))
	if n == 0 {
		return 0, nil
	}
	if err := s.read(id, int64(off), buf[:n]); err != nil {
		return 0, s.failed(id, err)
	}
	s.stats.bytes.Add(int64(n))
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
	if err := s.check(f.fd, id); err != nil {
		return err
	}
	if err := preadFull(f.fd, buf, off); err != nil {
		return err
	}
	return s.check(f.fd, id)
}

// errClosed: the store was closed.
var errClosed = errors.New("the store is closed")

// errChanged: a file isn't what the manifest says.
var errChanged = errors.New("it changed since the build began")

// check compares an open file with what the manifest says.
func (s *Store) check(fd int, id fileID) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !s.ms[id.section].Unchanged(id.entry, &st) {
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
	return s.openAt(s.dir, s.ms[id.section].Path(id.entry), id)
}

// openAt is openFile where the file is at rel below the directory dir.
func (s *Store) openAt(dir int, rel string, id fileID) (int, error) {
	path, err := manifest.OpenBeneath(dir, rel, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(path) }()
	if err := s.check(path, id); err != nil {
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
