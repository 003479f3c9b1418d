package fsrpc

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"

	"winvm/transport/rpc"
	"winvm/transport/shm"
	"winvm/transport/wire"
)

// inFlight bounds the requests of one share that are at work at once, and with
// that the memory a hostile peer can make the export side hold: about twice
// inFlight x MaxData for each share.
const inFlight = 32

// ServeTree answers a tree share's requests on conn until the peer hangs up
// (nil) or ctx ends.
func ServeTree(ctx context.Context, conn io.ReadWriteCloser, t Tree, log *slog.Logger) error {
	return serve(ctx, conn, KindTree, treeHandler{t}.handle, log)
}

// ServeStore answers a store share's requests on conn until the peer hangs up
// (nil) or ctx ends.
func ServeStore(ctx context.Context, conn io.ReadWriteCloser, s Store, log *slog.Logger) error {
	return serve(ctx, conn, KindStore, storeHandler{s}.handle, log)
}

func serve(ctx context.Context, conn io.ReadWriteCloser, kind ShareKind, handle handler, log *slog.Logger) error {
	var attached atomic.Bool
	h := func(ctx context.Context, op uint16, body, tail []byte, resp *rpc.Response) error {
		d := wire.NewSplitDecoder(body, tail) // so nothing but contents is taken from the lane
		if op == opAttach {
			if err := checkAttach(d, kind); err != nil {
				return err
			}
			attached.Store(true)
			var e wire.Encoder
			e.U16(Version)
			resp.Append(e.Bytes())
			return nil
		}
		if !attached.Load() {
			return fmt.Errorf("request before attach: %w", syscall.EPROTO)
		}
		err := handle(ctx, op, d, resp)
		if d.Err() != nil {
			return fmt.Errorf("op %d: %w: %w", op, d.Err(), syscall.EPROTO)
		}
		return err
	}
	return rpc.Serve(ctx, conn, h, ToErrno, rpc.Limits{MaxRequest: maxFrame, InFlight: inFlight, Lane: shm.Of(conn)}, log)
}

func getAttach(d *wire.Decoder) (version uint16, kind ShareKind, err error) {
	version, kind = d.U16(), ShareKind(d.U8())
	return version, kind, d.Close()
}

func checkAttach(d *wire.Decoder, kind ShareKind) error {
	v, k, err := getAttach(d)
	switch {
	case err != nil:
		return fmt.Errorf("attach: %w: %w", err, syscall.EPROTO)
	case v != Version:
		return fmt.Errorf("the controller speaks version %d of the share protocol, this host agent %d; `hostagent suspend` brings the image up to date: %w", v, Version, syscall.EPROTO)
	case k != kind:
		return fmt.Errorf("this is a share of kind %v, not %v: %w", kind, k, syscall.EPROTO)
	}
	return nil
}

// A handler decodes one request, carries it out and appends to the response. It
// must call d.Close before it acts.
type handler func(ctx context.Context, op uint16, d *wire.Decoder, resp *rpc.Response) error

type storeHandler struct{ s Store }

func (h storeHandler) handle(ctx context.Context, op uint16, d *wire.Decoder, resp *rpc.Response) error {
	switch op {
	case opSections:
		return h.sections(ctx, d, resp)
	case opMetadata:
		section := d.U32()
		return readInto(d, resp, func(off uint64, buf []byte) (int, error) {
			return h.s.Metadata(ctx, section, off, buf)
		})
	case opStoreRead:
		section, entry := d.U32(), d.U32()
		return readInto(d, resp, func(off uint64, buf []byte) (int, error) {
			return h.s.Read(ctx, section, entry, off, buf)
		})
	case opStoreBatch:
		return h.batch(ctx, d, resp)
	default:
		return syscall.EOPNOTSUPP
	}
}

func (h storeHandler) batch(ctx context.Context, d *wire.Decoder, resp *rpc.Response) error {
	room := d.U32()
	if room > MaxData {
		d.Fail("batch of %d bytes", room)
	}
	files := getFileIDs(d)
	if d.Close() != nil {
		return d.Err()
	}
	tail := BatchOverhead * len(files)
	buf := resp.Grow(int(room) + tail)
	list, err := h.s.ReadBatch(ctx, files, buf[:room:room])
	if err != nil {
		return err
	}
	used := 0
	for _, f := range list {
		used += f.N
	}
	if len(list) != len(files) || used > int(room) {
		return fmt.Errorf("%d results of %d files, %d bytes where there is room for %d: %w", len(list), len(files), used, room, syscall.EIO)
	}
	putBatch(wire.NewEncoder(buf[used:used]), list)
	resp.Shrink(int(room) - used)
	return nil
}

func (h storeHandler) sections(ctx context.Context, d *wire.Decoder, resp *rpc.Response) error {
	first, n := d.U32(), d.U32()
	if d.Close() != nil {
		return d.Err()
	}
	list, err := h.s.Sections(ctx, first, int(min(n, maxSectionsPerCall)))
	if err != nil {
		return err
	}
	var e wire.Encoder
	for i := range list {
		putSection(&e, &list[i])
	}
	resp.Append(e.Bytes())
	return nil
}

// maxOffset bounds the offsets in a tree's files: nothing that is added to one
// may overflow.
const maxOffset = 1<<63 - 1 - MaxData

// readInto takes offset and length off d and lets read fill the response.
func readInto(d *wire.Decoder, resp *rpc.Response, read func(off uint64, buf []byte) (int, error)) error {
	off, n := d.U64(), d.U32()
	if n > MaxData {
		d.Fail("read of %d bytes", n)
	}
	if d.Close() != nil {
		return d.Err()
	}
	buf := resp.Grow(int(n))
	got, err := read(off, buf)
	if err != nil {
		return err
	}
	resp.Shrink(len(buf) - got)
	return nil
}
