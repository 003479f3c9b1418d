//go:build vmsuite

package inside_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/fuse/xchgfs"
	"winvm/transport/fsrpc"
)

// lanes is what BenchmarkLane's orders say beside the number of bytes.
type lanes struct {
	What  string // read, write, fuse-read, fuse-write, fuse-sum
	Wire  bool   // over the channel alone
	Piece int    // bytes of a request
	Depth int    // requests at once
}

// A side is the shares with the lane, or without, in one session.
type side struct {
	store *fsrpc.StoreClient
	tree  *fsrpc.TreeClient
}

// storeDir and xchgDir are where the sides' mounts are.
func (l lanes) storeDir() string {
	return map[bool]string{false: store, true: "/tmp/wire-store"}[l.Wire]
}

func (l lanes) xchgDir() string { return map[bool]string{false: xchg, true: "/tmp/wire-xchg"}[l.Wire] }

// noLane is a connection whose lane can't be seen.
type noLane struct{ net.Conn }

func (b *bench) lane(ctx context.Context, o order, r *report) error {
	s := &b.sides[map[bool]int{false: 0, true: 1}[o.Wire]]
	if s.store == nil {
		if err := b.attach(ctx, o.lanes, s); err != nil {
			return err
		}
	}
	switch o.What {
	case "attach":
		return nil
	case "read":
		return o.each(ctx, o.Bytes, func(ctx context.Context, off uint64, buf []byte) error {
			n, err := s.store.Read(ctx, 0, 1, off, buf)
			if err == nil && n != len(buf) {
				err = io.ErrUnexpectedEOF
			}
			return err
		})
	case "write":
		_, h, err := s.tree.Create(ctx, fsrpc.RootNode, "rpc", unix.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		err = o.each(ctx, o.Bytes, func(ctx context.Context, off uint64, buf []byte) error {
			_, err := s.tree.Write(ctx, h, off, buf)
			return err
		})
		return errors.Join(err, s.tree.Release(ctx, h), s.tree.Unlink(ctx, fsrpc.RootNode, "rpc"))
	default:
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			return err
		}
		return b.files(ctx, o, r)
	}
}

// attach attaches and mounts the shares of one side.
func (b *bench) attach(ctx context.Context, l lanes, s *side) error {
	open := func(share string) (net.Conn, error) {
		conn, err := b.sess.OpenBulk(ctx, fsrpc.StreamName(share))
		if l.Wire && err == nil {
			conn = noLane{conn}
		}
		return conn, err
	}
	conn, err := open(fsrpc.ShareStore)
	if err != nil {
		return err
	}
	if s.store, err = fsrpc.AttachStore(ctx, conn); err != nil {
		return err
	}
	if conn, err = open(fsrpc.ShareXchg); err != nil {
		return err
	}
	if s.tree, err = fsrpc.AttachTree(ctx, conn); err != nil {
		return err
	}
	if !l.Wire { // the session's own mounts
		return nil
	}
	if err := errors.Join(os.MkdirAll(l.storeDir(), 0o755), os.MkdirAll(l.xchgDir(), 0o755)); err != nil {
		return err
	}
	m, err := storefs.Mount(l.storeDir(), storefs.Config{AllowOther: true})
	if err != nil {
		return err
	}
	x, err := xchgfs.Mount(l.xchgDir(), xchgfs.Config{AllowOther: true})
	if err != nil {
		return err
	}
	x.SetTree(s.tree)
	return m.SetSession(ctx, s.store, nil)
}

// each calls f for every piece, some at once, each with a buffer used again and again.
func (l lanes) each(ctx context.Context, n int, f func(ctx context.Context, off uint64, buf []byte) error) error {
	free := make(chan []byte, l.Depth)
	for range l.Depth {
		free <- make([]byte, l.Piece)
	}
	g, ctx := errgroup.WithContext(ctx)
	for off := 0; off < n; off += l.Piece {
		buf := <-free
		g.Go(func() error {
			defer func() { free <- buf }()
			return f(ctx, uint64(off), buf[:min(l.Piece, n-off)])
		})
	}
	return g.Wait()
}

// io reads or writes a file of one of the mounts, as another process.
func (l lanes) io(n int, buf []byte) (sum uint64, err error) {
	if l.What == "fuse-write" {
		fd, err := unix.Open(l.xchgDir()+"/file", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return 0, err
		}
		for done := 0; done < n && err == nil; {
			var k int
			k, err = unix.Write(fd, buf[:min(len(buf), n-done)])
			done += k
		}
		return 0, errors.Join(err, unix.Close(fd))
	}
	fd, err := unix.Open(l.storeDir()+"/bench-1/file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	for n > 0 {
		k, err := unix.Read(fd, buf)
		if err != nil || k == 0 {
			return 0, fmt.Errorf("%d bytes before the end: %w", n, err)
		}
		if l.What == "fuse-sum" {
			sum = addUp(sum, buf[:k])
		}
		n -= k
	}
	return sum, nil
}
