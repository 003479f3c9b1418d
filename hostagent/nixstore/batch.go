package nixstore

import (
	"context"

	"golang.org/x/sys/unix"

	"winvm/hostagent/manifest"
	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// ReadBatch implements fsrpc.Store. Files that follow each other in one directory,
// which is the rule, are opened from there; the cache of open files is left alone.
func (s *Store) ReadBatch(ctx context.Context, files []fsrpc.FileID, buf []byte) ([]fsrpc.BatchFile, error) {
	if len(files) > fsrpc.MaxBatch || len(buf) > fsrpc.MaxData {
		return nil, unix.EINVAL
	}
	s.life.RLock()
	defer s.life.RUnlock()
	b := batch{s: s, dir: -1}
	defer b.leave()
	s.stats.batches.Add(1)
	s.stats.files.Add(int64(len(files)))
	out := make([]fsrpc.BatchFile, len(files))
	for i, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out[i].N, out[i].Err = b.read(fileID{f.Section, f.Entry}, buf)
		buf = buf[out[i].N:]
	}
	return out, nil
}

// A batch holds the directory of the last file open.
type batch struct {
	s   *Store
	at  fileID // the directory
	dir int    // -1: none
}

func (b *batch) leave() {
	if b.dir >= 0 {
		_ = unix.Close(b.dir)
		b.dir = -1
	}
}

// read reads a whole file into the head of buf.
func (b *batch) read(id fileID, buf []byte) (int, error) {
	size, err := b.s.size(id)
	switch {
	case err != nil:
		return 0, err
	case size > uint64(len(buf)):
		return 0, unix.EFBIG
	}
	if err := b.fill(id, buf[:size]); err != nil {
		return 0, b.s.failed(id, err)
	}
	b.s.stats.bytes.Add(int64(size))
	return int(size), nil
}

func (b *batch) fill(id fileID, buf []byte) error {
	if b.s.dir < 0 {
		return errClosed
	}
	fd, err := b.open(id)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := preadFull(fd, buf, 0); err != nil {
		return err
	}
	return b.s.check(fd, id)
}

// open opens a file, if it is what the manifest says.
func (b *batch) open(id fileID) (int, error) {
	m := b.s.ms[id.section]
	if id.entry == 0 {
		return b.s.openFile(id)
	}
	parent := fileID{id.section, m.Section.Parent(id.entry)}
	if b.dir < 0 || b.at != parent {
		b.leave()
		dir, err := manifest.OpenBeneath(b.s.dir, m.Path(parent.entry), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return -1, err
		}
		b.at, b.dir = parent, dir
	}
	return b.s.openAt(b.dir, m.Section.Name(id.entry), id)
}

// size tells how many bytes a regular file of the store has.
func (s *Store) size(id fileID) (uint64, error) {
	if uint64(id.section) >= uint64(len(s.ms)) || id.entry >= s.ms[id.section].Section.Len() {
		return 0, unix.EINVAL
	}
	m := s.ms[id.section].Section
	switch m.Kind(id.entry) {
	case wire.KindFile:
		return m.Size(id.entry), nil
	case wire.KindDir:
		return 0, unix.EISDIR
	default:
		return 0, unix.EINVAL
	}
}
