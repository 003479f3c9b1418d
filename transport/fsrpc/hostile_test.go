package fsrpc_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/hostagent/hostfs"
	"winvm/transport/fsrpc"
	"winvm/transport/fsrpc/fsrpctest"
	"winvm/transport/rpc"
	"winvm/transport/wire"
)

// fields encodes a message: numbers by their type, strings with their length,
// []byte as it is.
func fields(values ...any) []byte {
	var e wire.Encoder
	for _, v := range values {
		switch v := v.(type) {
		case uint8:
			e.U8(v)
		case uint16:
			e.U16(v)
		case uint32:
			e.U32(v)
		case int: // most fields have eight bytes
			e.U64(uint64(v))
		case uint64:
			e.U64(v)
		case string:
			e.String(v)
		case []byte:
			e.Raw(v)
		default:
			panic("field of another type")
		}
	}
	return e.Bytes()
}

var hello = fields(uint16(fsrpc.Version), uint8(fsrpc.KindTree))

// rawOver serves tree and returns a client that sends what it likes.
func rawOver(t testing.TB, tree fsrpc.Tree) *rpc.Client {
	t.Helper()
	cc, sc := socketpair(t)
	background(t, func(ctx context.Context) error { return fsrpc.ServeTree(ctx, sc, tree, quietLog) })
	c := rpc.NewClient(cc, fsrpc.MaxFrame)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func wantErrno(t *testing.T, what string, err error, wants ...syscall.Errno) {
	t.Helper()
	for _, w := range wants {
		if errors.Is(err, w) {
			return
		}
	}
	t.Errorf("%s: %v, want %v", what, err, wants)
}

func TestAttachRefused(t *testing.T) {
	c := rawOver(t, &fake{})
	call := func(op string, body []byte) error {
		_, err := c.Call(t.Context(), fsrpc.Ops[op], body, nil, nil)
		return err
	}
	for op := range fsrpc.Ops {
		if op != "attach" {
			err := call(op, nil)
			wantErrno(t, op+" before attach", err, syscall.EPROTO)
			if err == nil || !strings.Contains(err.Error(), "before attach") {
				t.Errorf("%s: %v", op, err)
			}
		}
	}
	for what, body := range map[string][]byte{
		"nothing": nil,
		"short":   {1},
		"long":    append(bytes.Clone(hello), 0),
		"version": fields(uint16(fsrpc.Version+1), uint8(fsrpc.KindTree)),
		"kind":    fields(uint16(fsrpc.Version), uint8(fsrpc.KindStore)),
		"no kind": fields(uint16(fsrpc.Version), uint8(77)),
	} {
		wantErrno(t, what, call("attach", body), syscall.EPROTO)
		wantErrno(t, "after a refused attach", call("statfs", nil), syscall.EPROTO)
	}
	if err := call("attach", fields(uint16(fsrpc.Version+1), uint8(fsrpc.KindTree))); err == nil || !strings.Contains(err.Error(), "hostagent suspend") {
		t.Errorf("another version: %v", err)
	}
	if err := call("attach", hello); err != nil {
		t.Error(err)
	}
	if err := call("statfs", nil); err != nil {
		t.Error(err)
	}
}

func TestAttachKinds(t *testing.T) {
	for _, kind := range []fsrpc.ShareKind{fsrpc.KindTree, fsrpc.KindStore} {
		cc, sc := socketpair(t)
		var err error
		if kind == fsrpc.KindTree {
			background(t, func(ctx context.Context) error { return fsrpc.ServeStore(ctx, sc, &fakeStore{}, quietLog) })
			_, err = fsrpc.AttachTree(t.Context(), cc)
		} else {
			background(t, func(ctx context.Context) error { return fsrpc.ServeTree(ctx, sc, &fake{}, quietLog) })
			_, err = fsrpc.AttachStore(t.Context(), cc)
		}
		wantErrno(t, "attach as "+kind.String(), err, syscall.EPROTO)
		if _, err := cc.Write([]byte("x")); err == nil {
			t.Error("the connection is open after a failed attach")
		}
	}
}

// hostileRequests are requests that no client of ours makes, with the errnos
// that they may get. Node 1 is the root, handle 1 a directory, handle 2 a file.
func hostileRequests() []struct {
	what  string
	op    string
	body  []byte
	wants []syscall.Errno
} {
	type request = struct {
		what  string
		op    string
		body  []byte
		wants []syscall.Errno
	}
	is := func(e ...syscall.Errno) []syscall.Errno { return e }
	proto, inval := is(syscall.EPROTO), is(syscall.EINVAL)
	u32 := func(n uint32) uint32 { return n }
	far := is(syscall.EINVAL, syscall.EFBIG, syscall.ENXIO)
	rs := []request{
		{"read of too much", "read", fields(2, 0, u32(fsrpc.MaxData+1)), proto},
		{"read of 4 GiB", "read", fields(2, 0, u32(1<<32-1)), proto},
		{"write of too much", "write", append(fields(2, 0), make([]byte, fsrpc.MaxData+1)...), proto},
		{"write without an offset", "write", fields(2), proto},
		{"half a write", "write", fields(2, uint32(0)), proto},
		{"listing of too much", "readdir", fields(1, 0, u32(fsrpc.MaxListing+1), uint8(1)), proto},
		{"neither true nor false", "readdir", fields(1, 0, u32(100), uint8(2)), proto},
		{"neither true nor false", "fsync", fields(2, uint8(255)), proto},
		{"too many forgets", "forget", append(fields(u32(fsrpc.MaxForgets+1)), make([]byte, 16*(fsrpc.MaxForgets+1))...), proto},
		{"2^32 forgets", "forget", fields(u32(1<<32 - 1)), proto},
		{"fewer forgets than told", "forget", fields(u32(2), 5, 1), proto},
		{"more forgets than told", "forget", fields(u32(1), 5, 1, 6, 1), proto},
		{"a long target", "symlink", fields(1, "l", strings.Repeat("x", fsrpc.MaxTarget+1)), proto},
		{"a target that is cut off", "symlink", fields(1, "l", uint16(500), []byte("short")), proto},
		{"an empty target", "symlink", fields(1, "l", ""), is(syscall.EINVAL, syscall.ENOENT)},
		{"a name that is cut off", "lookup", fields(1, uint16(65535), []byte("x")), proto},
		{"allocation beyond all", "fallocate", fields(2, u32(0), uint64(1<<63-10), 100), far},
		{"allocation of everything", "fallocate", fields(2, u32(0), 0, uint64(1<<64-1)), far},
		{"unknown allocation", "fallocate", fields(2, u32(1<<31), 0, 10), is(syscall.EOPNOTSUPP, syscall.EINVAL)},
		{"seek to nowhere", "lseek", fields(2, uint64(1<<64-1), u32(unix.SEEK_DATA)), far},
		{"unknown seek", "lseek", fields(2, 0, u32(99)), inval},
		{"listing from nowhere", "readdir", fields(1, uint64(1<<64-1), u32(100), uint8(0)), inval},
		{"rename with unknown flags", "rename", fields(1, "f", 1, "g", u32(1<<31)), inval},
		{"open with unknown flags", "open", fields(1, u32(1<<31)), inval},
		{"create with unknown flags", "create", fields(1, "new", u32(unix.O_TMPFILE), u32(0o600)), inval},
		{"size below zero", "setattr", append(fields(0, 2, u32(uint32(fsrpc.SetSize)), u32(0), uint64(1<<63)), make([]byte, 16)...), append(far, syscall.ENOENT, syscall.ESTALE, syscall.EBADF)},
		{"a mount side's store operation", "storeread", fields(u32(0), u32(0), 0, u32(1)), is(syscall.EOPNOTSUPP)},
	}
	for _, off := range []uint64{1<<63 - fsrpc.MaxData, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		rs = append(rs,
			request{"read at the end of all", "read", fields(2, off, u32(100)), inval},
			request{"write at the end of all", "write", append(fields(2, off), "data"...), far})
	}
	for _, name := range []string{"", ".", "..", "/", "../f", "a/b", "/etc/passwd", "a\x00", strings.Repeat("n", 256)} {
		for _, op := range []string{"lookup", "realname", "unlink", "rmdir"} {
			rs = append(rs, request{"name " + name, op, fields(1, name), proto})
		}
		rs = append(rs,
			request{"name " + name, "mkdir", fields(1, name, u32(0o755)), proto},
			request{"name " + name, "symlink", fields(1, name, "x"), proto},
			request{"name " + name, "link", fields(1, name, 5), proto},
			request{"name " + name, "create", fields(1, name, u32(unix.O_RDWR), u32(0o644)), proto},
			request{"name " + name, "rename", fields(1, name, 1, "g", u32(0)), proto},
			request{"name " + name, "rename", fields(1, "f", 1, name, u32(0)), proto})
	}
	for op, body := range map[string][]byte{
		"lookup": fields(1, "f"), "realname": fields(1, "f"), "forget": fields(u32(0)), "getattr": fields(1, 0),
		"setattr": append(fields(1, 0, u32(0), u32(0)), make([]byte, 24)...), "readlink": fields(1),
		"mkdir": fields(1, "f", u32(0)), "symlink": fields(1, "f", "x"), "link": fields(1, "f", 1),
		"create": fields(1, "f", u32(0), u32(0)), "unlink": fields(1, "f"), "rmdir": fields(1, "f"),
		"rename": fields(1, "f", 1, "f", u32(0)), "open": fields(1, u32(0)), "read": fields(2, 0, u32(0)),
		"readdir": fields(1, 0, u32(0), uint8(0)), "fsync": fields(2, uint8(0)), "fallocate": fields(2, u32(0), 0, 0),
		"lseek": fields(2, 0, u32(0)), "release": fields(99), "statfs": nil, "sync": nil,
	} {
		rs = append(rs, request{"a byte too many", op, append(body, 0), proto})
		for _, n := range []int{0, 1, len(body) / 2, len(body) - 1} {
			if n >= 0 && n < len(body) {
				rs = append(rs, request{"cut off", op, body[:n], proto})
			}
		}
	}
	stale := is(syscall.ESTALE, syscall.ENOENT, syscall.EBADF)
	for _, id := range []uint64{0, 99, 1 << 63, 1<<64 - 1} {
		for op, rest := range map[string][]byte{
			"getattr": fields(0), "readlink": nil, "open": fields(u32(0)), "lookup": fields("f"), "mkdir": fields("d", u32(0)),
		} {
			rs = append(rs, request{"a node nobody gave out", op, append(fields(id), rest...), stale})
		}
		for op, rest := range map[string][]byte{
			"read": fields(0, u32(10)), "write": fields(0), "readdir": fields(0, u32(10), uint8(1)), "fsync": {0},
			"release": nil, "lseek": fields(0, u32(unix.SEEK_DATA)), "fallocate": fields(u32(0), 0, 10),
		} {
			rs = append(rs, request{"a handle nobody gave out", op, append(fields(id), rest...), stale})
		}
	}
	return rs
}

func TestHostileClient(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{filepath.Join(dir, "f"): "content", filepath.Join(outside, "secret"): "secret"} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := fsrpctest.OpenFiles(t)
	fs, err := hostfs.New(hostfs.Config{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	c := rawOver(t, fs)
	call := func(op string, body []byte) ([]byte, error) {
		return c.Call(t.Context(), fsrpc.Ops[op], body, nil, nil)
	}
	must := func(op string, body []byte) *wire.Decoder {
		t.Helper()
		out, err := call(op, body)
		if err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		return wire.NewDecoder(out)
	}
	must("attach", hello)
	if h := must("open", fields(1, uint32(unix.O_DIRECTORY))).U64(); h != 1 {
		t.Fatalf("handle %d", h)
	}
	node := must("lookup", fields(1, "f")).U64()
	if h := must("open", fields(node, uint32(unix.O_RDWR))).U64(); h != 2 {
		t.Fatalf("handle %d", h)
	}
	for _, r := range hostileRequests() {
		_, err := call(r.op, r.body)
		wantErrno(t, r.op+", "+r.what, err, r.wants...)
		if err != nil && strings.Contains(err.Error(), "internal error") {
			t.Errorf("%s, %s: the handler panicked", r.op, r.what)
		}
	}
	for _, op := range []uint16{0, 29, 999, 1<<16 - 1} {
		_, err := c.Call(t.Context(), op, nil, nil, nil)
		wantErrno(t, "unknown operation", err, syscall.EOPNOTSUPP)
	}
	// More references given back than were taken, and some that never were.
	for _, f := range [][]byte{fields(node, uint64(1<<64-1)), fields(1, uint64(1<<64-1)), fields(uint64(1<<64-1), 5), fields(node, 7)} {
		_, _ = call("forget", append(fields(uint32(1)), f...))
	}
	must("getattr", fields(1, 0))
	must("lookup", fields(1, "f"))
	must("statfs", nil)
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != "content" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("the directory holds %v, %v", names, err)
	}
	_ = c.Close()
	if err := fs.Close(); err != nil {
		t.Error(err)
	}
	if after := fsrpctest.OpenFiles(t); after > before+2 { // the socketpair
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// Random requests, many at once, on a real directory: nothing panics, nothing
// outside of it changes, and the export goes on.
func TestRandomRequests(t *testing.T) {
	dir := t.TempDir()
	share := filepath.Join(dir, "share")
	if err := os.MkdirAll(filepath.Join(share, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	fs, err := hostfs.New(hostfs.Config{Root: share, MaxNodes: 200, MaxHandles: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	c := rawOver(t, fs)
	if _, err := c.Call(t.Context(), fsrpc.Ops["attach"], hello, nil, nil); err != nil {
		t.Fatal(err)
	}
	ops := make([]uint16, 0, len(fsrpc.Ops))
	for op := range fsrpc.Ops {
		if op != "sync" && op != "fsync" && op != "fallocate" { // slow, or fills the disk
			ops = append(ops, fsrpc.Ops[op])
		}
	}
	slices.Sort(ops)
	done := make(chan bool)
	for w := range 4 {
		go func() {
			defer func() { done <- true }()
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for range 2000 {
				_, err := c.Call(t.Context(), ops[r.IntN(len(ops))], randomBody(r), nil, nil)
				if err != nil && strings.Contains(err.Error(), "internal error") {
					t.Error(err)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
	if _, err := c.Call(t.Context(), fsrpc.Ops["statfs"], nil, nil, nil); err != nil {
		t.Error(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("beside the share there is %v, %v", names, err)
	}
}

// randomBody puts together fields as requests have them.
func randomBody(r *rand.Rand) []byte {
	var e wire.Encoder
	for range 1 + r.IntN(5) {
		switch r.IntN(6) {
		case 0, 1:
			e.U64(uint64(r.IntN(20)))
		case 2:
			e.U64(r.Uint64())
		case 3:
			e.U32(uint32(r.IntN(4)))
		case 4:
			e.String([]string{"a", "d", "b", "..", "A", "../x", "c/d", ""}[r.IntN(8)])
		default:
			e.U8(uint8(r.IntN(2)))
		}
	}
	return e.Bytes()
}

// Requests to a store that no client of ours makes.
func TestHostileStoreClient(t *testing.T) {
	store := &fakeStore{}
	c := rawStoreOver(t, store)
	ids := func(n int) []byte { return bytes.Repeat(fields(uint32(1), uint32(2)), n) }
	for what, body := range map[string][]byte{
		"nothing":         nil,
		"too much room":   append(fields(uint32(fsrpc.MaxData+1)), ids(1)...),
		"half a file":     append(fields(uint32(10)), ids(1)[:7]...),
		"a byte too many": append(fields(uint32(10)), append(ids(1), 0)...),
		"too many files":  append(fields(uint32(10)), ids(fsrpc.MaxBatch+1)...),
	} {
		_, err := c.Call(t.Context(), fsrpc.Ops["storebatch"], body, nil, nil)
		wantErrno(t, what, err, syscall.EPROTO)
	}
	if asked := store.take(); asked != "" || len(store.bad) > 0 {
		t.Errorf("let through: %s, %q", asked, store.bad)
	}
	body, err := c.Call(t.Context(), fsrpc.Ops["storebatch"], append(fields(uint32(fsrpc.MaxData)), ids(fsrpc.MaxBatch)...), nil, nil)
	if want := (fsrpc.MaxBatch-1)*7 + fsrpc.MaxBatch*fsrpc.BatchOverhead; err != nil || len(body) != want {
		t.Errorf("the largest batch: %d bytes, %v; want %d", len(body), err, want)
	}
}

// rawStoreOver serves store and returns a client that sends what it likes.
func rawStoreOver(t testing.TB, store fsrpc.Store) *rpc.Client {
	t.Helper()
	cc, sc := socketpair(t)
	background(t, func(ctx context.Context) error { return fsrpc.ServeStore(ctx, sc, store, quietLog) })
	c := rpc.NewClient(cc, fsrpc.MaxFrame)
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Call(t.Context(), fsrpc.Ops["attach"], fields(uint16(fsrpc.Version), uint8(fsrpc.KindStore)), nil, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// FuzzStoreRequest: what gets through to the Store is within the limits.
func FuzzStoreRequest(f *testing.F) {
	u := func(n uint32) uint32 { return n }
	f.Add(fsrpc.Ops["sections"], fields(u(1), u(1<<32-1)))
	f.Add(fsrpc.Ops["metadata"], fields(u(0), uint64(1<<63), u(100)))
	f.Add(fsrpc.Ops["storeread"], fields(u(1), u(2), 3, u(fsrpc.MaxData)))
	f.Add(fsrpc.Ops["storebatch"], fields(u(20), u(1), u(2), u(1<<32-1), u(1<<32-1)))
	f.Add(fsrpc.Ops["storebatch"], fields(u(fsrpc.MaxData+1), u(1)))
	store := &fakeStore{}
	c := rawStoreOver(f, store)
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		if len(body) > fsrpc.MaxFrame {
			return
		}
		_, err := c.Call(t.Context(), op, body, nil, nil)
		asked := store.take()
		if err != nil && (strings.Contains(err.Error(), "internal error") || errors.Is(err, rpc.ErrClosed)) {
			t.Error(err)
		}
		if errors.Is(err, syscall.EPROTO) && asked != "" {
			t.Errorf("a request that was refused was carried out: %s", asked)
		}
		if len(store.bad) > 0 {
			t.Errorf("let through: %q", store.bad)
		}
	})
}

// FuzzBatchResponse: what is taken for a batch has its files' bytes one behind the
// other, and nothing else.
func FuzzBatchResponse(f *testing.F) {
	one := fields([]byte("content"), uint16(0), uint32(7))
	f.Add(one, 1)
	f.Add(fields([]byte("contentx"), uint16(0), uint32(7), uint16(27), uint32(0), uint16(0), uint32(1)), 3)
	f.Add(one[1:], 1)
	f.Add(append([]byte("more"), one...), 1)
	f.Add(fields(uint16(5), uint32(1)), 1)
	f.Add(fields([]byte("x"), uint16(5), uint32(1)), 1)
	f.Add(fields(uint16(1<<16-1), uint32(0)), 1)
	f.Add([]byte(nil), fsrpc.MaxBatch)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		if n < 0 || n > fsrpc.MaxBatch {
			return
		}
		list, data, err := fsrpc.GetBatch(body, n)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		sum := 0
		for i, b := range list {
			if b.N < 0 || b.Err != nil && b.N != 0 {
				t.Fatalf("file %d: %+v", i, b)
			}
			sum += b.N
		}
		if len(list) != n || sum != data || data+n*fsrpc.BatchOverhead != len(body) {
			t.Fatalf("%d files of %d bytes, %d in front, of %d", len(list), sum, data, len(body))
		}
	})
}

// FuzzTreeRequest: what gets through to the Tree is within the limits.
func FuzzTreeRequest(f *testing.F) {
	f.Add(fsrpc.Ops["lookup"], fields(1, "name"))
	f.Add(fsrpc.Ops["read"], fields(2, uint64(1<<63), uint32(1<<20)))
	f.Add(fsrpc.Ops["write"], fields(2, uint64(1<<62)))
	f.Add(fsrpc.Ops["readdir"], fields(2, 3, uint32(fsrpc.MaxListing), uint8(1)))
	f.Add(fsrpc.Ops["forget"], fields(uint32(2), 1, 2, 3, uint64(1<<64-1)))
	f.Add(fsrpc.Ops["rename"], fields(1, "a", 2, "..", uint32(1)))
	f.Add(fsrpc.Ops["symlink"], fields(1, "a", "target"))
	f.Add(fsrpc.Ops["fallocate"], fields(1, uint32(0), uint64(1<<63-1), 1))
	f.Add(fsrpc.Ops["setattr"], make([]byte, 48))
	tree := &fake{}
	c := rawOver(f, tree)
	if _, err := c.Call(f.Context(), fsrpc.Ops["attach"], hello, nil, nil); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		if len(body) > fsrpc.MaxFrame {
			return
		}
		_, err := c.Call(t.Context(), op, body, nil, nil)
		asked := tree.take()
		if err != nil && (strings.Contains(err.Error(), "internal error") || errors.Is(err, rpc.ErrClosed)) {
			t.Error(err)
		}
		if errors.Is(err, syscall.EPROTO) && asked != "" {
			t.Errorf("a request that was refused was carried out: %s", asked)
		}
		if len(tree.bad) > 0 {
			t.Errorf("let through: %q", tree.bad)
		}
	})
}
