package fsrpc_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"winvm/transport/fsrpc"
	"winvm/transport/rpc"
	"winvm/transport/wire"
)

// answers serves a share whose attach is right and whose other responses are
// always body.
func answers(t testing.TB, body []byte) net.Conn {
	t.Helper()
	cc, sc := socketpair(t)
	handle := func(_ context.Context, op uint16, _, _ []byte, resp *rpc.Response) error {
		if op == fsrpc.Ops["attach"] {
			resp.Append(fields(uint16(fsrpc.Version)))
		} else {
			resp.Append(body)
		}
		return nil
	}
	background(t, func(ctx context.Context) error {
		return rpc.Serve(ctx, sc, handle, fsrpc.ToErrno, rpc.Limits{MaxRequest: fsrpc.MaxFrame, InFlight: 2}, quietLog)
	})
	return cc
}

// attrBytes is a response of attributes.
func attrBytes() []byte {
	return fields(7, 8, uint32(0o100644), uint32(1), 0, 0, uint32(4096), uint32(0), 0, 0, 0, uint8(0))
}

func entryBytes(name string) []byte { return append(fields(name, 1), attrBytes()...) }

func sectionBytes(name string, size uint64) []byte {
	return fields(name, make([]byte, 32), size, uint32(1))
}

// Responses that no server of ours gives are errors, never values.
func TestHostileServer(t *testing.T) {
	ctx := t.Context()
	calls := map[string]func(c *fsrpc.TreeClient) error{
		"lookup":   func(c *fsrpc.TreeClient) error { _, err := c.Lookup(ctx, 1, "x"); return err },
		"realname": func(c *fsrpc.TreeClient) error { _, err := c.RealName(ctx, 1, "x"); return err },
		"forget":   func(c *fsrpc.TreeClient) error { return c.Forget(ctx, []fsrpc.Forget{{Node: 2, Count: 1}}) },
		"setattr":  func(c *fsrpc.TreeClient) error { _, err := c.Setattr(ctx, 1, 0, fsrpc.SetAttr{}); return err },
		"readlink": func(c *fsrpc.TreeClient) error { _, err := c.Readlink(ctx, 1); return err },
		"create":   func(c *fsrpc.TreeClient) error { _, _, err := c.Create(ctx, 1, "x", 0, 0); return err },
		"unlink":   func(c *fsrpc.TreeClient) error { return c.Unlink(ctx, 1, "x") },
		"open":     func(c *fsrpc.TreeClient) error { _, err := c.Open(ctx, 1, 0); return err },
		"write":    func(c *fsrpc.TreeClient) error { _, err := c.Write(ctx, 1, 0, []byte("x")); return err },
		"readdir":  func(c *fsrpc.TreeClient) error { _, err := c.Readdir(ctx, 1, 0, 500, true); return err },
		"lseek":    func(c *fsrpc.TreeClient) error { _, err := c.Lseek(ctx, 1, 0, 3); return err },
		"statfs":   func(c *fsrpc.TreeClient) error { _, err := c.Statfs(ctx); return err },
		"sync":     func(c *fsrpc.TreeClient) error { return c.Sync(ctx) },
		"read": func(c *fsrpc.TreeClient) error {
			buf := bytes.Repeat([]byte{7}, 100)
			n, err := c.Read(ctx, 1, 0, buf[:10])
			if n != 0 || !bytes.Equal(buf, bytes.Repeat([]byte{7}, 100)) {
				t.Errorf("read: %d, and the buffer has changed", n)
			}
			return err
		},
	}
	attr := attrBytes()
	bad := attrBytes()
	bad[len(bad)-1] = 2
	for _, tt := range []struct {
		op, what string
		body     []byte
	}{
		{"lookup", "nothing", nil},
		{"lookup", "cut off", attr[:len(attr)-1]},
		{"lookup", "too long", append(bytes.Clone(attr), 0)},
		{"lookup", "neither true nor false", bad},
		{"setattr", "cut off", attr[:20]},
		{"realname", "a path", fields("a/b")},
		{"realname", "nothing", fields("")},
		{"realname", "parent", fields("..")},
		{"realname", "too long", fields(strings.Repeat("x", 256))},
		{"readlink", "too long", fields(strings.Repeat("x", fsrpc.MaxTarget+1))},
		{"readlink", "cut off", []byte{200, 0, 'x'}},
		{"create", "no handle", attr},
		{"open", "cut off", make([]byte, 7)},
		{"open", "too long", make([]byte, 9)},
		{"lseek", "cut off", make([]byte, 7)},
		{"statfs", "cut off", make([]byte, 47)},
		{"readdir", "half an entry", entryBytes("x")[:50]},
		{"readdir", "an entry and a half", append(entryBytes("x"), entryBytes("y")[:50]...)},
		{"readdir", "a path", entryBytes("../x")},
		{"readdir", "dot", entryBytes(".")},
		{"readdir", "no name", entryBytes("")},
		{"readdir", "NUL", entryBytes("a\x00b")},
		{"readdir", "more than asked for", bytes.Repeat(entryBytes("x"), 10)},
		{"read", "more than asked for", make([]byte, 11)},
		{"read", "much more", make([]byte, 100_000)},
		{"unlink", "something", []byte{0}},
		{"forget", "something", []byte{0}},
		{"write", "something", []byte{0}},
		{"sync", "something", []byte{0}},
	} {
		t.Run(tt.op+" "+tt.what, func(t *testing.T) {
			c, err := fsrpc.AttachTree(ctx, answers(t, tt.body))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := calls[tt.op](c); !errors.Is(err, wire.ErrMalformed) || fsrpc.ToErrno(err) != syscall.EIO {
				t.Errorf("%v", err)
			}
		})
	}
}

// A batch that is anything but its files' bytes is an error, and nothing is written
// behind the caller's buffer.
func TestHostileBatch(t *testing.T) {
	for what, body := range map[string][]byte{
		"nothing":               nil,
		"one file":              fields([]byte("content"), uint16(0), uint32(7)),
		"bytes of no file":      fields([]byte("contentx"), uint16(0), uint32(7), uint16(5), uint32(0)),
		"fewer bytes than told": fields([]byte("content"), uint16(0), uint32(7), uint16(0), uint32(1)),
		"an error with bytes":   fields([]byte("content"), uint16(5), uint32(7), uint16(5), uint32(0)),
		"2^32 bytes":            fields([]byte("content"), uint16(0), uint32(7), uint16(0), uint32(1<<32-1)),
		"more than fits":        fields(make([]byte, 40), uint16(0), uint32(20), uint16(0), uint32(20)),
	} {
		for _, room := range []int{0, 100} {
			c, err := fsrpc.AttachStore(t.Context(), answers(t, body))
			if err != nil {
				t.Fatal(err)
			}
			buf := bytes.Repeat([]byte{7}, 200)
			list, err := c.ReadBatch(t.Context(), []fsrpc.FileID{{}, {Entry: 1}}, buf[:30:30+room])
			if !errors.Is(err, wire.ErrMalformed) || list != nil {
				t.Errorf("%s: %v, %v", what, list, err)
			}
			if !bytes.Equal(buf[30+room:], bytes.Repeat([]byte{7}, 170-room)) {
				t.Errorf("%s: written behind the buffer", what)
			}
			_ = c.Close()
		}
	}
}

func TestHostileStoreServer(t *testing.T) {
	ctx := t.Context()
	for what, body := range map[string][]byte{
		"half":                append(sectionBytes("x", 1), 1, 2, 3),
		"a path":              sectionBytes("a/b", 1),
		"parent":              sectionBytes("..", 1),
		"too large":           sectionBytes("x", fsrpc.MaxSectionSize+1),
		"2^64":                sectionBytes("x", 1<<64-1),
		"more than asked for": bytes.Repeat(sectionBytes("x", 1), 11),
	} {
		c, err := fsrpc.AttachStore(ctx, answers(t, body))
		if err != nil {
			t.Fatal(err)
		}
		if list, err := c.Sections(ctx, 0, 10); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("sections, %s: %v, %v", what, list, err)
		}
		_ = c.Close()
	}
	c, err := fsrpc.AttachStore(ctx, answers(t, make([]byte, 11)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Metadata(ctx, 0, 0, make([]byte, 10)); n != 0 || !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("metadata: %d, %v", n, err)
	}
	if n, err := c.Read(ctx, 0, 0, 0, make([]byte, 10)); n != 0 || !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("read: %d, %v", n, err)
	}
}

func TestHostileAttach(t *testing.T) {
	for what, body := range map[string][]byte{
		"nothing": nil, "short": {1}, "another version": fields(uint16(fsrpc.Version + 1)), "long": append(fields(uint16(fsrpc.Version)), 0),
	} {
		cc, sc := socketpair(t)
		background(t, func(ctx context.Context) error {
			return rpc.Serve(ctx, sc, func(_ context.Context, _ uint16, _, _ []byte, resp *rpc.Response) error {
				resp.Append(body)
				return nil
			}, fsrpc.ToErrno, rpc.Limits{MaxRequest: 100, InFlight: 1}, quietLog)
		})
		if _, err := fsrpc.AttachTree(t.Context(), cc); !errors.Is(err, syscall.EPROTO) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Nobody answers: attach ends with its context and leaves nothing behind.
func TestAttachNobodyThere(t *testing.T) {
	cc, _ := socketpair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := fsrpc.AttachTree(ctx, cc); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// When the stream ends the calls fail, with EIO for a program.
func TestStreamEnds(t *testing.T) {
	for name, link := range links {
		t.Run(name, func(t *testing.T) {
			var server net.Conn
			c := treeOver(t, func(t testing.TB) (net.Conn, net.Conn) {
				cc, sc := link(t)
				server = sc
				return cc, sc
			}, &fake{})
			_ = server.Close()
			select {
			case <-c.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("Done isn't closed")
			}
			_, err := c.Lookup(t.Context(), 1, "x")
			if !errors.Is(err, rpc.ErrClosed) || fsrpc.ToErrno(err) != syscall.EIO || c.Err() == nil {
				t.Errorf("lookup: %v; Err: %v", err, c.Err())
			}
		})
	}
}

// What is too long for one call.
func TestClientSplits(t *testing.T) {
	tree := &fake{}
	c := treeOver(t, socketpair, tree)
	if err := c.Forget(t.Context(), make([]fsrpc.Forget, 2*fsrpc.MaxForgets+1)); err != nil {
		t.Error(err)
	}
	if n := strings.Count(tree.take(), "Forget"); n != 3 {
		t.Errorf("%d requests", n)
	}
	enc := bytes.Repeat([]byte("0123456789"), (2*fsrpc.MaxData+5)/10+1)
	s := storeOver(t, socketpair, &bigStore{metadata: enc, sections: 2*fsrpc.MaxSectionsPerCall + 3})
	got := make([]byte, len(enc)+100)
	if n, err := s.Metadata(t.Context(), 0, 3, got); err != nil || !bytes.Equal(got[:n], enc[3:]) {
		t.Errorf("%d bytes, %v", n, err)
	}
	list, err := s.Sections(t.Context(), 0, 1<<20)
	if err != nil || len(list) != 2*fsrpc.MaxSectionsPerCall+3 {
		t.Fatalf("%d sections, %v", len(list), err)
	}
	for i, sec := range list {
		if sec.Entries != uint32(i) {
			t.Fatalf("section %d: %+v", i, sec)
		}
	}
}

// A bigStore has metadata and sections of the longest names.
type bigStore struct {
	fakeStore
	metadata []byte
	sections int
}

func (s *bigStore) Metadata(_ context.Context, _ uint32, off uint64, buf []byte) (int, error) {
	return copy(buf, s.metadata[off:]), nil
}

func (s *bigStore) Sections(_ context.Context, first uint32, limit int) ([]fsrpc.Section, error) {
	var out []fsrpc.Section
	for i := int(first); i < s.sections && len(out) < limit; i++ {
		out = append(out, fsrpc.Section{Name: strings.Repeat("n", fsrpc.MaxName), Entries: uint32(i)})
	}
	return out, nil
}

func TestErrno(t *testing.T) {
	for err, want := range map[error]syscall.Errno{
		nil:                      0,
		syscall.ENOSPC:           syscall.ENOSPC,
		context.Canceled:         syscall.EINTR,
		context.DeadlineExceeded: syscall.ETIMEDOUT,
		wire.ErrMalformed:        syscall.EIO,
		rpc.ErrClosed:            syscall.EIO,
		errors.New("something"):  syscall.EIO,
		&net.OpError{Op: "read", Err: syscall.ECONNRESET}:  syscall.ECONNRESET,
		errors.Join(rpc.ErrClosed, syscall.EPIPE):          syscall.EIO,
		&rpc.Error{Errno: syscall.ENOTEMPTY, Text: "text"}: syscall.ENOTEMPTY,
	} {
		if got := fsrpc.ToErrno(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
