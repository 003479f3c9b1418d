package fsrpc_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"winvm/transport/fsrpc"
	"winvm/transport/rpc"
	"winvm/transport/wire"
)

// swap is a response that is changed from one round of a fuzz target to the next.
type swap struct{ body atomic.Pointer[[]byte] }

func (s *swap) serve(t testing.TB) net.Conn {
	cc, sc := socketpair(t)
	handle := func(_ context.Context, op uint16, _, _ []byte, resp *rpc.Response) error {
		if op == fsrpc.Ops["attach"] {
			resp.Append(fields(uint16(fsrpc.Version)))
		} else {
			resp.Append(*s.body.Load())
		}
		return nil
	}
	background(t, func(ctx context.Context) error {
		return rpc.Serve(ctx, sc, handle, fsrpc.ToErrno, rpc.Limits{MaxRequest: fsrpc.MaxFrame, InFlight: 2}, quietLog)
	})
	return cc
}

// goodName reports whether a file can be called that.
func goodName(s string) bool { return wire.ValidName(s) && len(s) <= fsrpc.MaxName }

// FuzzTreeResponse: whatever the export side answers, the mount side gets a value within
// its limits or ErrMalformed.
func FuzzTreeResponse(f *testing.F) {
	attr := attrBytes()
	f.Add(uint8(0), attr)
	f.Add(uint8(1), fields("real name"))
	f.Add(uint8(2), fields("target"))
	f.Add(uint8(3), append(bytes.Clone(attr), make([]byte, 8)...))
	f.Add(uint8(4), append(entryBytes("x"), entryBytes("..")...))
	f.Add(uint8(5), make([]byte, 48))
	f.Add(uint8(6), bytes.Repeat([]byte{1}, 101))
	f.Add(uint8(7), make([]byte, 8))
	var s swap
	c, err := fsrpc.AttachTree(f.Context(), s.serve(f))
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		if len(body) > fsrpc.MaxFrame {
			return
		}
		s.body.Store(&body)
		ctx := t.Context()
		var err error
		switch op % 8 {
		case 0:
			_, err = c.Lookup(ctx, 1, "x")
		case 1:
			var name string
			if name, err = c.RealName(ctx, 1, "x"); err == nil && !goodName(name) {
				t.Errorf("a file called %q", name)
			}
		case 2:
			var target string
			if target, err = c.Readlink(ctx, 1); len(target) > fsrpc.MaxTarget {
				t.Errorf("a target of %d bytes", len(target))
			}
		case 3:
			_, _, err = c.Create(ctx, 1, "x", 0, 0)
		case 4:
			var list []fsrpc.DirEntry
			list, err = c.Readdir(ctx, 1, 0, 1000, true)
			for _, e := range list {
				if err == nil && !goodName(e.Name) {
					t.Errorf("a file called %q", e.Name)
				}
			}
		case 5:
			_, err = c.Statfs(ctx)
		case 6:
			buf := make([]byte, 200)
			var n int
			if n, err = c.Read(ctx, 1, 0, buf[:100]); n > 100 || !bytes.Equal(buf[100:], make([]byte, 100)) {
				t.Errorf("read %d bytes where 100 were wanted", n)
			}
		case 7:
			_, err = c.Lseek(ctx, 1, 0, 3)
		}
		if err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%v", err)
		}
	})
}

// FuzzStoreResponse is that for the share nixstore.
func FuzzStoreResponse(f *testing.F) {
	f.Add(uint8(0), sectionBytes("a", 100))
	f.Add(uint8(0), append(sectionBytes("b", 1), sectionBytes("a/b", 1)...))
	f.Add(uint8(1), []byte("metadata"))
	f.Add(uint8(2), bytes.Repeat([]byte{1}, 101))
	var s swap
	c, err := fsrpc.AttachStore(f.Context(), s.serve(f))
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		if len(body) > fsrpc.MaxFrame {
			return
		}
		s.body.Store(&body)
		ctx := t.Context()
		var err error
		switch op % 3 {
		case 0:
			var list []fsrpc.Section
			list, err = c.Sections(ctx, 0, 5)
			if err == nil && len(list) > 5 {
				t.Errorf("%d sections where 5 were wanted", len(list))
			}
			for _, x := range list {
				if err == nil && (!goodName(x.Name) || x.Size > fsrpc.MaxSectionSize) {
					t.Errorf("section %q of %d bytes", x.Name, x.Size)
				}
			}
		case 1, 2:
			read := c.Metadata
			if op%3 == 2 {
				read = func(ctx context.Context, section uint32, off uint64, buf []byte) (int, error) {
					return c.Read(ctx, section, 1, off, buf)
				}
			}
			buf := make([]byte, 200)
			var n int
			if n, err = read(ctx, 0, 0, buf[:100]); n > 100 || !bytes.Equal(buf[100:], make([]byte, 100)) {
				t.Errorf("read %d bytes where 100 were wanted", n)
			}
		}
		if err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%v", err)
		}
	})
}
