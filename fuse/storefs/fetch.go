package storefs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

const (
	listPiece = 4096          // sections asked for at once
	metaPiece = fsrpc.MaxData // bytes of metadata asked for at once
	inFlight  = 8             // requests for metadata at the same time
	perEntry  = 32            // bytes of metadata at least, see package wire
	header    = len("WVSECT2\n") + 8
)

// ErrBadSection is what SetSession's error wraps if the host's list or metadata
// can't be right.
var ErrBadSection = errors.New("the host sent store metadata that can't be right")

func badSection(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrBadSection, name, fmt.Sprintf(format, args...))
}

// list asks for the session's sections and checks that they can be.
func (fs *FS) list(ctx context.Context, store fsrpc.Store) ([]fsrpc.Section, error) {
	var all []fsrpc.Section
	var total uint64
	for {
		part, err := store.Sections(ctx, uint32(len(all)), listPiece)
		if err != nil {
			return nil, fmt.Errorf("list the store paths from number %d on: %w", len(all), err)
		}
		for i := range part {
			s := &part[i]
			if len(all) == fsrpc.MaxSections {
				return nil, badSection(s.Name, "more than %d store paths", fsrpc.MaxSections)
			}
			if err := checkSection(s); err != nil {
				return nil, err
			}
			if n := len(all); n > 0 && all[n-1].Name >= s.Name {
				return nil, badSection(s.Name, "listed behind %s", all[n-1].Name)
			}
			if total += s.Size; total > fs.cfg.MaxSessionBytes {
				return nil, fmt.Errorf("the closure's metadata has more than %d bytes (storefs.Config.MaxSessionBytes): fewer inputs, or a controller VM with more memory and a greater limit", fs.cfg.MaxSessionBytes)
			}
			all = append(all, *s)
		}
		if len(part) < listPiece {
			return all, nil
		}
	}
}

func checkSection(s *fsrpc.Section) error {
	switch {
	case !wire.ValidName(s.Name):
		return badSection(fmt.Sprintf("%q", s.Name), "not a file name")
	case s.Size > fsrpc.MaxSectionSize:
		return badSection(s.Name, "%d bytes of metadata", s.Size)
	case s.Entries == 0 || s.Size < uint64(header)+uint64(s.Entries)*perEntry:
		return badSection(s.Name, "%d entries in %d bytes", s.Entries, s.Size)
	}
	return nil
}

// obtain returns the session's sections, fetching what isn't held.
func (fs *FS) obtain(ctx context.Context, store fsrpc.Store, list []fsrpc.Section) ([]*section, error) {
	metas, err := fs.metadata(ctx, store, list)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if n := metas[list[i].Hash].Len(); n != list[i].Entries {
			return nil, badSection(list[i].Name, "%d entries, %d announced", n, list[i].Entries)
		}
	}
	out := make([]*section, len(list))
	for i := range list {
		if out[i] = fs.sections.held(&list[i]); out[i] == nil {
			out[i] = fs.sections.add(&list[i], metas[list[i].Hash])
		}
	}
	return out, nil
}

// metadata returns the metadata of all sections by hash. What several share, also
// with one that is held already, is fetched and kept once.
func (fs *FS) metadata(ctx context.Context, store fsrpc.Store, list []fsrpc.Section) (map[[32]byte]*wire.Section, error) {
	metas := map[[32]byte]*wire.Section{}
	for _, sec := range fs.sections.all() {
		metas[sec.key.hash] = sec.meta
	}
	f := &fetcher{store: store, slots: make(chan struct{}, inFlight)}
	fetched := make([]*wire.Section, len(list))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, r := range missing(list, metas) {
		g.Go(func() error { return f.run(gctx, list, r, fetched) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, meta := range fetched {
		if meta != nil {
			metas[list[i].Hash] = meta
		}
	}
	return metas, nil
}

// A run is sections that follow each other and are fetched together.
type run struct {
	first, n int
	size     uint64
}

// missing returns what isn't held: small sections that follow each other as one run,
// as long as that is one request, large ones each by itself.
func missing(list []fsrpc.Section, held map[[32]byte]*wire.Section) (runs []run) {
	seen := map[[32]byte]bool{}
	for i := range list {
		s := &list[i]
		if held[s.Hash] != nil || seen[s.Hash] {
			continue
		}
		seen[s.Hash] = true
		if k := len(runs) - 1; k >= 0 && runs[k].first+runs[k].n == i && runs[k].size+s.Size <= metaPiece {
			runs[k].n++
			runs[k].size += s.Size
			continue
		}
		runs = append(runs, run{i, 1, s.Size})
	}
	return runs
}

// A fetcher fetches sections side by side, with a bounded number of requests.
type fetcher struct {
	store fsrpc.Store
	slots chan struct{}
}

// run fetches a run of sections into their places.
func (f *fetcher) run(ctx context.Context, list []fsrpc.Section, r run, into []*wire.Section) error {
	buf := make([]byte, r.size)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for off := 0; off < len(buf); off += metaPiece {
		g.Go(func() error {
			return f.piece(gctx, uint32(r.first), uint64(off), buf[off:min(len(buf), off+metaPiece)])
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("fetch the metadata of %s: %w", list[r.first].Name, err)
	}
	for i := r.first; i < r.first+r.n; i++ {
		enc := buf[:list[i].Size]
		buf = buf[list[i].Size:]
		if r.n > 1 { // each is held as long as it is used, and no longer
			enc = bytes.Clone(enc)
		}
		var err error
		if into[i], err = decode(&list[i], enc); err != nil {
			return err
		}
	}
	return nil
}

func decode(s *fsrpc.Section, enc []byte) (*wire.Section, error) {
	if sum := sha256.Sum256(enc); sum != s.Hash {
		return nil, badSection(s.Name, "SHA-256 is %x, %x announced", sum, s.Hash)
	}
	meta, err := wire.DecodeSection(enc)
	if err != nil {
		return nil, badSection(s.Name, "%v", err)
	}
	return meta, nil
}

func (f *fetcher) piece(ctx context.Context, ordinal uint32, off uint64, buf []byte) error {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	n, err := f.store.Metadata(ctx, ordinal, off, buf)
	if err == nil && n != len(buf) {
		err = fmt.Errorf("at offset %d %d bytes, %d wanted: %w", off, n, len(buf), io.ErrUnexpectedEOF)
	}
	return err
}
