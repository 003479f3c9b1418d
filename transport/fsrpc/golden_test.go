package fsrpc_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

var update = flag.Bool("update", false, "write testdata/frames.golden anew (the protocol's Version has to change with it)")

// A tap notes what passes.
type tap struct {
	net.Conn
	mu       sync.Mutex
	sent     bytes.Buffer
	received bytes.Buffer
}

func (c *tap) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sent.Write(p)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.received.Write(p[:n])
	c.mu.Unlock()
	return n, err
}

// take returns the frames that passed since the last time.
func (c *tap) take() (sent, received []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, received = bytes.Clone(c.sent.Bytes()), bytes.Clone(c.received.Bytes())
	c.sent.Reset()
	c.received.Reset()
	return sent, received
}

// A step makes one request; its result and what the other side was asked must
// be want.
type step struct {
	op   string
	call func() (any, error)
	asks string
	want any
}

func treeSteps(t *testing.T, c *fsrpc.TreeClient) []step {
	ctx, attr := t.Context(), fakeAttr
	none := func(err error) (any, error) { return nil, err }
	type created struct {
		Attr   fsrpc.Attr
		Handle fsrpc.HandleID
	}
	buf := make([]byte, 100)
	set := fsrpc.SetAttr{Valid: fsrpc.SetMode | fsrpc.SetMtimeNow, Mode: 0o755, Size: 1 << 40, Atime: -1, Mtime: 2}
	return []step{
		{"lookup", func() (any, error) { return c.Lookup(ctx, 2, "name") }, "Lookup 2 name", attr(7)},
		{"realname", func() (any, error) { return c.RealName(ctx, 2, "name.exe") }, "RealName 2 name.exe", "Name.EXE"},
		{"forget", func() (any, error) {
			return none(c.Forget(ctx, []fsrpc.Forget{{Node: 2, Count: 3}, {Node: 4, Count: 1<<64 - 1}}))
		}, "Forget [{2 3} {4 18446744073709551615}]", nil},
		{"getattr", func() (any, error) { return c.Getattr(ctx, 2, 3) }, "Getattr 2 3", attr(2)},
		{"setattr", func() (any, error) { return c.Setattr(ctx, 2, 3, set) }, fmt.Sprintf("Setattr 2 3 %+v", set), attr(2)},
		{"readlink", func() (any, error) { return c.Readlink(ctx, 2) }, "Readlink 2", "../target"},
		{"mkdir", func() (any, error) { return c.Mkdir(ctx, 2, "dir", 0o755) }, "Mkdir 2 dir 755", attr(8)},
		{"symlink", func() (any, error) { return c.Symlink(ctx, 2, "link", "to") }, "Symlink 2 link to", attr(9)},
		{"link", func() (any, error) { return c.Link(ctx, 3, 2, "hard") }, "Link 3 2 hard", attr(3)},
		{"create", func() (any, error) {
			a, h, err := c.Create(ctx, 2, "new", unix.O_RDWR, 0o600)
			return created{a, h}, err
		}, "Create 2 new 0x2 600", created{attr(10), 0x8182838485868788}},
		{"unlink", func() (any, error) { return none(c.Unlink(ctx, 2, "file")) }, "Unlink 2 file", nil},
		{"rmdir", func() (any, error) { return none(c.Rmdir(ctx, 2, "dir")) }, "Rmdir 2 dir", nil},
		{"rename", func() (any, error) { return none(c.Rename(ctx, 2, "from", 3, "to", unix.RENAME_NOREPLACE)) }, "Rename 2 from 3 to 1", nil},
		{"open", func() (any, error) { return c.Open(ctx, 2, unix.O_RDWR|unix.O_APPEND) }, "Open 2 0x402", fsrpc.HandleID(0x9192939495969798)},
		{"read", func() (any, error) {
			n, err := c.Read(ctx, 2, 1<<40, buf)
			return string(buf[:n]), err
		}, "Read 2 1099511627776 100", "content"},
		{"write", func() (any, error) { return c.Write(ctx, 2, 1<<40, []byte("data")) }, "Write 2 1099511627776 data", 4},
		{"readdir", func() (any, error) { return c.Readdir(ctx, 2, 3, 4096, true) }, "Readdir 2 3 4096 true", []fsrpc.DirEntry{
			{Name: "a", Next: 3, Attr: attr(11)},
			{Name: "Grüße", Next: 0xa1a2a3a4a5a6a7a8, Attr: fsrpc.Attr{Ino: 5, Mode: 0o40000}},
		}},
		{"fsync", func() (any, error) { return none(c.Fsync(ctx, 2, true)) }, "Fsync 2 true", nil},
		{"fallocate", func() (any, error) { return none(c.Fallocate(ctx, 2, 1, 3, 4)) }, "Fallocate 2 1 3 4", nil},
		{"lseek", func() (any, error) { return c.Lseek(ctx, 2, 5, unix.SEEK_HOLE) }, "Lseek 2 5 4", uint64(0xb1b2b3b4b5b6b7b8)},
		{"release", func() (any, error) { return none(c.Release(ctx, 2)) }, "Release 2", nil},
		{"statfs", func() (any, error) { return c.Statfs(ctx) }, "Statfs", fsrpc.Statfs{Blocks: 1, Bfree: 2, Bavail: 3, Files: 4, Ffree: 5, Bsize: 4096, NameLen: 255}},
		{"sync", func() (any, error) { return none(c.Sync(ctx)) }, "Sync", nil},
	}
}

func storeSteps(t *testing.T, c *fsrpc.StoreClient) []step {
	ctx, buf := t.Context(), make([]byte, 100)
	return []step{
		{"sections", func() (any, error) { return c.Sections(ctx, 3, 2) }, "Sections 3 2", []fsrpc.Section{
			{Name: "abc-hello", Hash: [32]byte{1, 2, 31: 32}, Size: 0x12345678 >> 1, Entries: 0xc1c2c3c4},
			{Name: "def-x", Size: fsrpc.MaxSectionSize, Entries: 1},
		}},
		{"metadata", func() (any, error) {
			n, err := c.Metadata(ctx, 2, 1<<33, buf)
			return string(buf[:n]), err
		}, "Metadata 2 8589934592 100", "metadata"},
		{"storeread", func() (any, error) {
			n, err := c.Read(ctx, 2, 3, 1<<40, buf)
			return string(buf[:n]), err
		}, "Read 2 3 1099511627776 100", "content"},
		{"storebatch", func() (any, error) {
			files := []fsrpc.FileID{{Section: 2, Entry: 3}, {Section: 2, Entry: 4}, {Section: 0x01020304, Entry: 0x05060708}}
			list, err := c.ReadBatch(ctx, files, buf[:20])
			return batch{string(buf[:14]), list}, err
		}, "ReadBatch [{2 3} {2 4} {16909060 84281096}] 20", batch{"contentcontent", []fsrpc.BatchFile{{N: 7}, {Err: syscall.EFBIG}, {N: 7}}}},
	}
}

type batch struct {
	data string
	list []fsrpc.BatchFile
}

// Every operation's request and response, byte by byte: images that exist speak
// this. A difference means that Version has to change.
func TestGolden(t *testing.T) {
	var out bytes.Buffer
	seen := map[string]bool{}
	note := func(op string, link *tap) {
		sent, received := link.take()
		for _, f := range []struct {
			what string
			b    []byte
		}{{"request", sent}, {"response", received}} {
			fmt.Fprintf(&out, "%s %s\n%s\n", op, f.what, hex.Dump(f.b))
			if got := binary.LittleEndian.Uint16(f.b[8:]); got != fsrpc.Ops[op] || len(f.b) != 12+int(binary.LittleEndian.Uint32(f.b)) {
				t.Errorf("%s %s: not one frame of it: % x", op, f.what, f.b)
			}
		}
		if _, err := fsrpc.DescribeRequest(fsrpc.Ops[op], sent[12:], 0); err != nil {
			t.Errorf("%s: the request can't be described: %v", op, err)
		}
		if _, err := fsrpc.DescribeResponse(fsrpc.Ops[op], sent[12:], received[12:], 0); err != nil {
			t.Errorf("%s: the response can't be described: %v", op, err)
		}
		if fsrpc.OpName(fsrpc.Ops[op]) != op {
			t.Errorf("%s is called %q", op, fsrpc.OpName(fsrpc.Ops[op]))
		}
		seen[op] = true
	}
	run := func(f *fake, link *tap, steps []step) {
		for _, s := range steps {
			got, err := s.call()
			if asked := f.take(); err != nil || asked != s.asks || !reflect.DeepEqual(got, s.want) {
				t.Errorf("%s: asked %q, got %+v, %v; want %q, %+v", s.op, asked, got, err, s.asks, s.want)
			}
			note(s.op, link)
		}
	}
	var link *tap
	tapped := func(t testing.TB) (net.Conn, net.Conn) {
		cc, sc := socketpair(t)
		link = &tap{Conn: cc}
		return link, sc
	}
	tree := &fake{}
	tc := treeOver(t, tapped, tree)
	note("attach", link)
	run(tree, link, treeSteps(t, tc))
	store := &fakeStore{}
	sc := storeOver(t, tapped, store)
	link.take() // attach again
	run(&store.fake, link, storeSteps(t, sc))

	if want := slices.Sorted(maps.Keys(fsrpc.Ops)); !slices.Equal(slices.Sorted(maps.Keys(seen)), want) {
		t.Errorf("operations %q, want all of %q", slices.Sorted(maps.Keys(seen)), want)
	}
	golden(t, "frames.golden", out.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is different now; if that is meant, change Version and run the test with -update. Got:\n%s", path, got)
	}
}
