package fsrpc

import (
	"context"
	"errors"
	"fmt"

	"winvm/transport/rpc"
	"winvm/transport/wire"
)

// A Field is a part of a request or response, for people. Value is a number, a string or
// a bool.
type Field struct {
	Name  string
	Value any
}

var opNames = [...]string{
	opAttach: "attach", opLookup: "lookup", opRealName: "realname", opForget: "forget",
	opGetattr: "getattr", opSetattr: "setattr", opReadlink: "readlink", opMkdir: "mkdir",
	opSymlink: "symlink", opLink: "link", opCreate: "create", opUnlink: "unlink",
	opRmdir: "rmdir", opRename: "rename", opOpen: "open", opRead: "read", opWrite: "write",
	opReaddir: "readdir", opFsync: "fsync", opFallocate: "fallocate", opLseek: "lseek",
	opRelease: "release", opStatfs: "statfs", opSync: "sync", opSections: "sections",
	opMetadata: "metadata", opStoreRead: "storeread", opStoreBatch: "storebatch",
}

// OpName is what an operation is called in docs/protocol.md; "" if there is none.
func OpName(op uint16) string {
	if int(op) >= len(opNames) {
		return ""
	}
	return opNames[op]
}

// MaxFrame is the most bytes that a request's or response's body has.
const MaxFrame = maxFrame

// Carry decodes one request that came some other way than over a stream, carries it out
// on t, and returns the response's body. tail is what of it came through shared memory.
// Bodies of reads are in room if they fit.
func Carry(ctx context.Context, t Tree, op uint16, body, tail, room []byte) ([]byte, error) {
	return carry(ctx, treeHandler{t}.handle, op, body, tail, room)
}

// CarryStore is [Carry] for a store.
func CarryStore(ctx context.Context, s Store, op uint16, body, tail, room []byte) ([]byte, error) {
	return carry(ctx, storeHandler{s}.handle, op, body, tail, room)
}

func carry(ctx context.Context, handle handler, op uint16, body, tail, room []byte) ([]byte, error) {
	d := wire.NewSplitDecoder(body, tail)
	resp := rpc.NewResponse(room)
	err := handle(ctx, op, d, resp)
	if d.Err() != nil {
		return nil, fmt.Errorf("%s: %w", OpName(op), d.Err())
	}
	return resp.Body(), err
}

// blank stands for contents that nobody looks at. It is never written to.
var blank [maxFrame]byte

// DescribeRequest takes a request apart. inSlot is how many bytes of it are in shared
// memory, where nobody can see them.
func DescribeRequest(op uint16, body []byte, inSlot int) ([]Field, error) {
	if op == opAttach {
		v, k, err := getAttach(wire.NewDecoder(body))
		return []Field{{"version", v}, {"kind", k.String()}}, err
	}
	if OpName(op) == "" {
		return nil, nil // a newer peer's: it is the other side that says so
	}
	if inSlot > MaxData {
		return nil, wire.Malformed("%d bytes in a slot", inSlot)
	}
	var r recorder
	var err error
	if op >= opSections {
		_, err = CarryStore(context.Background(), storeRecorder{&r}, op, body, blank[:inSlot], blank[:])
	} else {
		_, err = Carry(context.Background(), &r, op, body, blank[:inSlot], blank[:])
	}
	if errors.Is(err, errRecorded) {
		err = nil
	}
	return r.fields, err
}

// DescribeResponse takes apart the response without an errno to a request of which
// request is the body (nil: not known).
func DescribeResponse(op uint16, request, body []byte, inSlot int) ([]Field, error) {
	if inSlot > 0 {
		return []Field{{"bytes", inSlot}}, nil
	}
	d := wire.NewDecoder(body)
	var f []Field
	switch op {
	case opAttach:
		f = []Field{{"version", d.U16()}}
	case opLookup, opMkdir, opSymlink, opLink, opGetattr, opSetattr:
		f = attrFields(getAttr(d))
	case opCreate:
		f = attrFields(getAttr(d))
		f = append(f, Field{"handle", d.U64()})
	case opRealName:
		f = []Field{{"name", getName(d)}}
	case opReadlink:
		f = []Field{{"target", d.String(MaxTarget)}}
	case opOpen:
		f = []Field{{"handle", d.U64()}}
	case opLseek:
		f = []Field{{"off", d.U64()}}
	case opRead, opMetadata, opStoreRead:
		f = []Field{{"bytes", len(d.Rest())}}
	case opReaddir:
		n := 0
		for ; d.Len() > 0 && d.Err() == nil; n++ {
			getEntry(d)
		}
		f = []Field{{"entries", n}}
	case opSections:
		n := 0
		for ; d.Len() > 0 && d.Err() == nil; n++ {
			getSection(d)
		}
		f = []Field{{"sections", n}}
	case opStatfs:
		s := getStatfs(d)
		f = []Field{{"blocks", s.Blocks}, {"bavail", s.Bavail}, {"bsize", s.Bsize}}
	case opStoreBatch:
		return describeBatch(request, body)
	}
	return f, d.Close()
}

func describeBatch(request, body []byte) ([]Field, error) {
	if len(request) < 4 {
		return []Field{{"bytes", len(body)}}, nil
	}
	list, data, err := getBatch(body, (len(request)-4)/8)
	if err != nil {
		return nil, err
	}
	bad := 0
	for _, f := range list {
		if f.Err != nil {
			bad++
		}
	}
	return []Field{{"files", len(list)}, {"bytes", data}, {"failed", bad}}, nil
}

func attrFields(a Attr) []Field {
	return []Field{{"node", uint64(a.Node)}, {"mode", fmt.Sprintf("%#o", a.Mode)}, {"size", a.Size}}
}

// Given returns the node and handle that a response gives out, for who makes the same
// requests again; 0 where there is none.
func Given(op uint16, body []byte) (n NodeID, h HandleID, err error) {
	d := wire.NewDecoder(body)
	switch op {
	case opLookup, opMkdir, opSymlink, opLink:
		n = getAttr(d).Node
	case opCreate:
		n, h = getAttr(d).Node, HandleID(d.U64())
	case opOpen:
		h = HandleID(d.U64())
	default:
		return 0, 0, nil
	}
	return n, h, d.Close()
}

// GivenEntries is [Given] for the response to a listing with attributes.
func GivenEntries(op uint16, body []byte) ([]DirEntry, error) {
	if op != opReaddir {
		return nil, nil
	}
	d := wire.NewDecoder(body)
	var list []DirEntry
	for d.Len() > 0 && d.Err() == nil {
		list = append(list, getEntry(d))
	}
	return list, d.Close()
}

var errRecorded = errors.New("recorded")

// A recorder notes what it is asked, and does nothing. Through it requests are
// described by the code that serves them.
type recorder struct{ fields []Field }

type storeRecorder struct{ *recorder }

var (
	_ Tree  = (*recorder)(nil)
	_ Store = storeRecorder{}
)

func (r *recorder) note(f ...Field) error {
	r.fields = f
	return errRecorded
}

func (r *recorder) Lookup(_ context.Context, parent NodeID, name string) (Attr, error) {
	return Attr{}, r.note(Field{"parent", uint64(parent)}, Field{"name", name})
}

func (r *recorder) RealName(_ context.Context, parent NodeID, name string) (string, error) {
	return "", r.note(Field{"parent", uint64(parent)}, Field{"name", name})
}

func (r *recorder) Forget(_ context.Context, f []Forget) error {
	if len(f) == 1 {
		return r.note(Field{"node", uint64(f[0].Node)}, Field{"count", f[0].Count})
	}
	return r.note(Field{"nodes", len(f)})
}

func (r *recorder) Getattr(_ context.Context, n NodeID, h HandleID) (Attr, error) {
	return Attr{}, r.note(Field{"node", uint64(n)}, Field{"handle", uint64(h)})
}

func (r *recorder) Setattr(_ context.Context, n NodeID, h HandleID, s SetAttr) (Attr, error) {
	f := []Field{{"node", uint64(n)}, {"handle", uint64(h)}}
	if s.Valid&SetMode != 0 {
		f = append(f, Field{"mode", fmt.Sprintf("%#o", s.Mode)})
	}
	if s.Valid&SetSize != 0 {
		f = append(f, Field{"size", s.Size})
	}
	if s.Valid&(SetAtime|SetAtimeNow) != 0 {
		f = append(f, Field{"atime", s.Atime})
	}
	if s.Valid&(SetMtime|SetMtimeNow) != 0 {
		f = append(f, Field{"mtime", s.Mtime})
	}
	return Attr{}, r.note(f...)
}

func (r *recorder) Readlink(_ context.Context, n NodeID) (string, error) {
	return "", r.note(Field{"node", uint64(n)})
}

func (r *recorder) Mkdir(_ context.Context, parent NodeID, name string, mode uint32) (Attr, error) {
	return Attr{}, r.note(Field{"parent", uint64(parent)}, Field{"name", name}, Field{"mode", fmt.Sprintf("%#o", mode)})
}

func (r *recorder) Symlink(_ context.Context, parent NodeID, name, target string) (Attr, error) {
	return Attr{}, r.note(Field{"parent", uint64(parent)}, Field{"name", name}, Field{"target", target})
}

func (r *recorder) Link(_ context.Context, n, parent NodeID, name string) (Attr, error) {
	return Attr{}, r.note(Field{"parent", uint64(parent)}, Field{"name", name}, Field{"node", uint64(n)})
}

func (r *recorder) Create(_ context.Context, parent NodeID, name string, flags, mode uint32) (Attr, HandleID, error) {
	return Attr{}, 0, r.note(Field{"parent", uint64(parent)}, Field{"name", name}, Field{"flags", flags}, Field{"mode", fmt.Sprintf("%#o", mode)})
}

func (r *recorder) Unlink(_ context.Context, parent NodeID, name string) error {
	return r.note(Field{"parent", uint64(parent)}, Field{"name", name})
}

func (r *recorder) Rmdir(_ context.Context, parent NodeID, name string) error {
	return r.note(Field{"parent", uint64(parent)}, Field{"name", name})
}

func (r *recorder) Rename(_ context.Context, parent NodeID, name string, to NodeID, toName string, flags uint32) error {
	return r.note(Field{"parent", uint64(parent)}, Field{"name", name}, Field{"to", uint64(to)}, Field{"to_name", toName}, Field{"flags", flags})
}

func (r *recorder) Open(_ context.Context, n NodeID, flags uint32) (HandleID, error) {
	return 0, r.note(Field{"node", uint64(n)}, Field{"flags", flags})
}

func (r *recorder) Read(_ context.Context, h HandleID, off uint64, buf []byte) (int, error) {
	return 0, r.note(Field{"handle", uint64(h)}, Field{"off", off}, Field{"length", len(buf)})
}

func (r *recorder) Write(_ context.Context, h HandleID, off uint64, data []byte) (int, error) {
	return 0, r.note(Field{"handle", uint64(h)}, Field{"off", off}, Field{"length", len(data)})
}

func (r *recorder) Readdir(_ context.Context, h HandleID, off uint64, room int, attrs bool) ([]DirEntry, error) {
	return nil, r.note(Field{"handle", uint64(h)}, Field{"off", off}, Field{"room", room}, Field{"attrs", attrs})
}

func (r *recorder) Fsync(_ context.Context, h HandleID, dataOnly bool) error {
	return r.note(Field{"handle", uint64(h)}, Field{"data_only", dataOnly})
}

func (r *recorder) Fallocate(_ context.Context, h HandleID, mode uint32, off, length uint64) error {
	return r.note(Field{"handle", uint64(h)}, Field{"mode", mode}, Field{"off", off}, Field{"length", length})
}

func (r *recorder) Lseek(_ context.Context, h HandleID, off uint64, whence uint32) (uint64, error) {
	return 0, r.note(Field{"handle", uint64(h)}, Field{"off", off}, Field{"whence", whence})
}

func (r *recorder) Release(_ context.Context, h HandleID) error {
	return r.note(Field{"handle", uint64(h)})
}

func (r *recorder) Statfs(context.Context) (Statfs, error) { return Statfs{}, r.note() }

func (r *recorder) Sync(context.Context) error { return r.note() }

func (r storeRecorder) Sections(_ context.Context, first uint32, n int) ([]Section, error) {
	return nil, r.note(Field{"first", first}, Field{"n", n})
}

func (r storeRecorder) Metadata(_ context.Context, section uint32, off uint64, buf []byte) (int, error) {
	return 0, r.note(Field{"section", section}, Field{"off", off}, Field{"length", len(buf)})
}

func (r storeRecorder) Read(_ context.Context, section, entry uint32, off uint64, buf []byte) (int, error) {
	return 0, r.note(Field{"section", section}, Field{"entry", entry}, Field{"off", off}, Field{"length", len(buf)})
}

func (r storeRecorder) ReadBatch(_ context.Context, files []FileID, buf []byte) ([]BatchFile, error) {
	return nil, r.note(Field{"files", len(files)}, Field{"room", len(buf)})
}

// FilesOf returns the files of a store that a request wants to read.
func FilesOf(op uint16, body []byte) []FileID {
	d := wire.NewDecoder(body)
	var list []FileID
	switch op {
	case opStoreRead:
		list = []FileID{{d.U32(), d.U32()}}
	case opStoreBatch:
		d.U32()
		list = getFileIDs(d)
	}
	if d.Err() != nil {
		return nil
	}
	return list
}
