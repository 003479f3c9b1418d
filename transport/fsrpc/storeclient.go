package fsrpc

import (
	"context"
	"io"
	"syscall"

	"winvm/transport/wire"
)

var _ Store = (*StoreClient)(nil)

// A StoreClient is the mount side of a share of KindStore.
type StoreClient struct{ client }

// AttachStore starts a client on a store share's stream, which it owns from now
// on, also if it fails.
func AttachStore(ctx context.Context, conn io.ReadWriteCloser) (*StoreClient, error) {
	c, err := attach(ctx, conn, KindStore)
	if err != nil {
		return nil, err
	}
	return &StoreClient{c}, nil
}

// maxSectionsPerCall keeps a response of the longest names within a frame.
const maxSectionsPerCall = 2048

// Sections implements Store.
func (c *StoreClient) Sections(ctx context.Context, first uint32, max int) ([]Section, error) {
	var out []Section
	for len(out) < max {
		n := min(max-len(out), maxSectionsPerCall)
		part, err := c.sections(ctx, first+uint32(len(out)), n)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
		if len(part) < n {
			break
		}
	}
	return out, nil
}

func (c *StoreClient) sections(ctx context.Context, first uint32, n int) ([]Section, error) {
	var e request
	e.U32(first)
	e.U32(uint32(n))
	into := lists.Get().(*[MaxListing]byte)
	defer lists.Put(into) // sections hold copies
	d, err := c.callInto(ctx, opSections, &e, into[:])
	if err != nil {
		return nil, err
	}
	out := make([]Section, 0, min(n, d.Len()/sectionSize))
	for d.Len() > 0 && d.Err() == nil {
		out = append(out, getSection(d))
	}
	if len(out) > n {
		return nil, wire.Malformed("%d sections where %d were wanted", len(out), n)
	}
	return out, d.Close()
}

// Metadata implements Store.
func (c *StoreClient) Metadata(ctx context.Context, section uint32, off uint64, buf []byte) (int, error) {
	done := 0
	for {
		part := buf[done:min(len(buf), done+MaxData)]
		e := sized(16)
		e.U32(section)
		n, err := c.read(ctx, opMetadata, e, off+uint64(done), part)
		if done += n; err != nil || n < len(part) || done == len(buf) {
			return done, err
		}
	}
}

// Read implements Store.
func (c *StoreClient) Read(ctx context.Context, section, entry uint32, off uint64, buf []byte) (int, error) {
	e := sized(24)
	e.U32(section)
	e.U32(entry)
	return c.read(ctx, opStoreRead, e, off, buf)
}

// ReadBatch implements Store.
func (c *StoreClient) ReadBatch(ctx context.Context, files []FileID, buf []byte) ([]BatchFile, error) {
	if len(buf) > MaxData || len(files) > MaxBatch {
		return nil, syscall.EINVAL
	}
	e := sized(4 + 8*len(files))
	e.U32(uint32(len(buf)))
	putFileIDs(&e.Encoder, files)
	into := buf[:min(cap(buf), len(buf)+BatchOverhead*len(files))]
	body, err := c.rpc.Call(ctx, opStoreBatch, e.Bytes(), nil, into)
	if err != nil {
		return nil, err
	}
	list, data, err := getBatch(body, len(files))
	if err != nil {
		return nil, err
	}
	if data > len(buf) {
		return nil, wire.Malformed("batch of %d bytes where there was room for %d", data, len(buf))
	}
	if data > 0 && &body[0] != &buf[0] { // buf had no room for what follows the bytes
		copy(buf, body[:data])
	}
	return list, nil
}
