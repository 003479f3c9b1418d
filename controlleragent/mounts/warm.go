package mounts

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Limits of Warm: how many files are read at once, and how much of one.
const (
	warmReaders = 4
	warmPiece   = 1 << 20
)

// Warm reads everything that the store share has, so that the kernel's caches hold its
// names, attributes and contents.
func (m *Mounts) Warm(ctx context.Context) (files int, bytes int64, err error) {
	var count, sum atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(warmReaders)
	err = filepath.WalkDir(m.cfg.StoreDir, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, gctx.Err()); err != nil || d.IsDir() {
			return err
		}
		if _, err := d.Info(); err != nil { // its attributes
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			_, err := os.Readlink(path)
			return err
		}
		g.Go(func() error {
			n, err := readThrough(path)
			count.Add(1)
			sum.Add(n)
			return err
		})
		return nil
	})
	// The readers' error is what made the walk end, if one did.
	if werr := g.Wait(); werr != nil {
		err = werr
	}
	debug.FreeOSMemory() // what was read ahead goes into no snapshot
	return int(count.Load()), sum.Load(), err
}

func readThrough(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, warmPiece)
	var sum int64
	for {
		n, err := f.Read(buf)
		sum += int64(n)
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}
