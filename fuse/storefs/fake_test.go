package storefs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// A dirStore is a Store of the entries of a directory. It counts what it is asked.
type dirStore struct {
	sections []fsrpc.Section
	metas    [][]byte
	paths    [][]string // by section and entry

	lists, fetches, reads atomic.Int64
	batches, batched      atomic.Int64 // requests, and files in them
	fetched               atomic.Int64 // bytes of metadata
	hang, hangBatches     atomic.Bool  // reads end with their context only
}

var _ fsrpc.Store = (*dirStore)(nil)

// settle waits until nothing has been asked for a while: what was read ahead can still
// be on its way when all has been read.
func (s *dirStore) settle() {
	for last := int64(-1); ; time.Sleep(200 * time.Millisecond) {
		now := s.reads.Load() + s.batches.Load()
		if now == last {
			return
		}
		last = now
	}
}

func newStore(t testing.TB, dir string, names ...string) *dirStore {
	t.Helper()
	s := &dirStore{}
	slices.Sort(names)
	for _, name := range names {
		s.add(t, name, filepath.Join(dir, name))
	}
	return s
}

// add makes a section of the tree at path.
func (s *dirStore) add(t testing.TB, name, path string) {
	t.Helper()
	var b wire.SectionBuilder
	paths := []string{path}
	if _, err := b.Add(entryOf(t, "", path, 0)); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(paths); i++ {
		if st, err := os.Lstat(paths[i]); err != nil || !st.IsDir() {
			continue
		}
		names, err := os.ReadDir(paths[i])
		if err != nil {
			t.Fatal(err)
		}
		first := len(paths)
		for _, n := range names {
			p := filepath.Join(paths[i], n.Name())
			if _, err := b.Add(entryOf(t, n.Name(), p, uint32(i))); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, p)
		}
		b.SetChildren(uint32(i), uint32(first), uint32(len(names)))
	}
	meta := b.Encode()
	s.sections = append(s.sections, fsrpc.Section{Name: name, Hash: sha256.Sum256(meta), Size: uint64(len(meta)), Entries: b.Len()})
	s.metas = append(s.metas, meta)
	s.paths = append(s.paths, paths)
}

// contentOf is a digest of a file's bytes, if it is one.
func contentOf(t testing.TB, path string, st os.FileInfo) uint64 {
	t.Helper()
	if !st.Mode().IsRegular() {
		return 0
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

func entryOf(t testing.TB, name, path string, parent uint32) wire.Entry {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	e := wire.Entry{
		Name: name, Parent: parent, Kind: wire.KindFile, Size: uint64(st.Size()), Exec: st.Mode()&0o100 != 0,
		Content: contentOf(t, path, st),
	}
	switch {
	case st.IsDir():
		e = wire.Entry{Name: name, Parent: parent, Kind: wire.KindDir}
	case st.Mode()&os.ModeSymlink != 0:
		e = wire.Entry{Name: name, Parent: parent, Kind: wire.KindSymlink}
		if e.Target, err = os.Readlink(path); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func (s *dirStore) Sections(_ context.Context, first uint32, limit int) ([]fsrpc.Section, error) {
	s.lists.Add(1)
	rest := s.sections[min(int(first), len(s.sections)):]
	return slices.Clone(rest[:min(limit, len(rest))]), nil
}

func (s *dirStore) Metadata(_ context.Context, section uint32, off uint64, buf []byte) (int, error) {
	s.fetches.Add(1)
	n, err := bytes.NewReader(bytes.Join(s.metas[section:], nil)).ReadAt(buf, int64(off))
	s.fetched.Add(int64(n))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (s *dirStore) Read(ctx context.Context, section, entry uint32, off uint64, buf []byte) (int, error) {
	s.reads.Add(1)
	if s.hang.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	f, err := os.Open(s.paths[section][entry])
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(buf, int64(off))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if st, err := f.Stat(); err != nil || st.Size() < int64(off)+int64(n) || n < len(buf) {
		return 0, syscall.EIO
	}
	return n, nil
}

func (s *dirStore) ReadBatch(ctx context.Context, files []fsrpc.FileID, buf []byte) ([]fsrpc.BatchFile, error) {
	s.batches.Add(1)
	s.batched.Add(int64(len(files)))
	if s.hang.Load() || s.hangBatches.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	out := make([]fsrpc.BatchFile, len(files))
	for i, f := range files {
		b, err := os.ReadFile(s.paths[f.Section][f.Entry])
		switch meta, _ := wire.DecodeSection(s.metas[f.Section]); {
		case err != nil || uint64(len(b)) != meta.Size(f.Entry):
			out[i].Err = syscall.EIO
		case len(b) > len(buf):
			out[i].Err = syscall.EFBIG
		default:
			out[i].N = copy(buf, b)
			buf = buf[len(b):]
		}
	}
	return out, nil
}
