package storefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"winvm/fuse/treefs"
	"winvm/transport/wire"
)

const (
	forever   = 365 * 24 * time.Hour // what is below the root never changes
	rootTime  = time.Second          // the root's attributes may, with the session
	blockSize = 4096
	dirSize   = 4096
)

// A handler answers the kernel's requests. Those about outputs it passes on.
type handler struct {
	fuse.RawFileSystem // ENOSYS for what isn't supported
	fs                 *FS
	out                *treefs.FS
	open               handles // files of outputs
}

var _ fuse.RawFileSystem = (*handler)(nil)

func newHandler(fs *FS) *handler {
	return &handler{RawFileSystem: fuse.NewDefaultRawFileSystem(), fs: fs, out: fs.outputs, open: handles{out: fs.outputs}}
}

// String implements fuse.RawFileSystem.
func (h *handler) String() string { return "winvm" }

// Init implements fuse.RawFileSystem.
func (h *handler) Init(server *fuse.Server) { h.out.Init(server) }

func isRoot(nodeid uint64) bool   { return nodeid == fuse.FUSE_ROOT_ID }
func isOutput(nodeid uint64) bool { return nodeid&outputTag != 0 }

// session returns the current session, or the next if it comes in time.
func (h *handler) session(cancel <-chan struct{}) (*session, fuse.Status) {
	return h.fs.cur.Wait(cancel, h.fs.cfg.Grace)
}

// A place is what a nodeid in a section means, in the current session.
type place struct {
	s   *session
	sec *section
	i   uint32
}

const estale = fuse.Status(syscall.ESTALE)

func (h *handler) at(cancel <-chan struct{}, nodeid uint64) (place, fuse.Status) {
	sec, i, ok := h.fs.sections.find(nodeid)
	if !ok {
		return place{}, estale
	}
	s, st := h.session(cancel)
	if !st.Ok() {
		return place{}, st
	}
	if !s.has(sec) {
		return place{}, estale
	}
	return place{s, sec, i}, fuse.OK
}

// Lookup implements fuse.RawFileSystem.
func (h *handler) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch {
	case isRoot(in.NodeId):
		return h.lookupRoot(cancel, in, name, out)
	case isOutput(in.NodeId):
		return h.out.Lookup(cancel, in, name, out)
	}
	p, st := h.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	child, ok := p.sec.meta.Lookup(p.i, name)
	if !ok {
		out.NodeId = 0 // no such name, and there never will be
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	fillEntry(p.sec, child, out)
	return fuse.OK
}

func (h *handler) lookupRoot(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s, st := h.session(cancel)
	if !st.Ok() {
		return st
	}
	if sec := s.section(name); sec != nil {
		return show(s, sec, out)
	}
	if s.outputs {
		return h.out.Lookup(cancel, in, name, out)
	}
	return fuse.ENOENT
}

// show tells the kernel of a section's name, unless the session has ended.
func show(s *session, sec *section, out *fuse.EntryOut) fuse.Status {
	sec.shown.Store(true)
	if s.over() {
		return estale
	}
	fillEntry(sec, 0, out)
	return fuse.OK
}

func fillEntry(sec *section, i uint32, out *fuse.EntryOut) {
	out.NodeId = sec.base + uint64(i)
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	fillAttr(sec, i, &out.Attr)
}

// fillAttr fills in attributes as Nix gives them to store paths.
func fillAttr(sec *section, i uint32, out *fuse.Attr) {
	kind, exec, size := sec.meta.Attr(i)
	if kind == wire.KindDir {
		size = dirSize
	}
	*out = fuse.Attr{Ino: sec.base + uint64(i), Nlink: 1, Mtime: 1, Atime: 1, Ctime: 1, Blksize: blockSize, Size: size}
	out.Mode = modeOf(kind, exec)
	out.Blocks = (out.Size + 511) / 512
}

func modeOf(kind wire.Kind, exec bool) uint32 {
	switch {
	case kind == wire.KindDir:
		return unix.S_IFDIR | 0o555
	case kind == wire.KindSymlink:
		return unix.S_IFLNK | 0o777
	case exec:
		return unix.S_IFREG | 0o555
	}
	return unix.S_IFREG | 0o444
}

// GetAttr implements fuse.RawFileSystem.
func (h *handler) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	switch {
	case isRoot(in.NodeId):
		h.rootAttr(&out.Attr)
		out.SetTimeout(rootTime)
		return fuse.OK
	case isOutput(in.NodeId):
		return h.out.GetAttr(cancel, in, out)
	}
	p, st := h.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	fillAttr(p.sec, p.i, &out.Attr)
	out.SetTimeout(forever)
	return fuse.OK
}

// rootAttr describes the root, which is writable while there are outputs.
func (h *handler) rootAttr(out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: fuse.FUSE_ROOT_ID, Mode: unix.S_IFDIR | 0o555, Nlink: 1, Size: dirSize, Blocks: dirSize / 512,
		Mtime: 1, Atime: 1, Ctime: 1, Blksize: blockSize,
	}
	if s := h.fs.cur.Now(); s != nil && s.outputs {
		out.Mode = unix.S_IFDIR | 0o755
		out.Owner = fuse.Owner{Uid: h.fs.cfg.UID, Gid: h.fs.cfg.GID}
	}
}

// Readlink implements fuse.RawFileSystem.
func (h *handler) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	if isOutput(in.NodeId) {
		return h.out.Readlink(cancel, in)
	}
	p, st := h.at(cancel, in.NodeId)
	if !st.Ok() {
		return nil, st
	}
	e := p.sec.meta.Entry(p.i)
	if e.Kind != wire.KindSymlink {
		return nil, fuse.EINVAL
	}
	return []byte(e.Target), fuse.OK
}

// Open implements fuse.RawFileSystem: the kernel need not ask. An open and a release
// would cost as much as all else of reading a small file. The files of outputs, in the
// same mount, are opened when they are used.
func (h *handler) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Read implements fuse.RawFileSystem.
func (h *handler) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if isOutput(in.NodeId) {
		f, st := h.open.take(cancel, &in.InHeader, unix.O_RDONLY)
		if !st.Ok() {
			return nil, st
		}
		defer h.open.put(f)
		in.Fh = f.fh
		return h.out.Read(cancel, in, buf)
	}
	p, st := h.at(cancel, in.NodeId)
	if !st.Ok() {
		return nil, st
	}
	if p.sec.meta.Kind(p.i) != wire.KindFile {
		return nil, fuse.EINVAL
	}
	size := p.sec.meta.Size(p.i)
	if in.Offset >= size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(uint64(len(buf)), size-in.Offset)]
	if size > smallFile {
		return h.read(p, in.Offset, buf)
	}
	if data, ok, st := p.s.ahead.take(cancel, p, in.Offset, len(buf)); !st.Ok() {
		return nil, st
	} else if ok {
		return fuse.ReadResultData(data), fuse.OK
	}
	if in.Offset == 0 && p.sec.wasRead(p.i) {
		p.sec.noteDropped()
	}
	res, st := h.read(p, in.Offset, buf)
	if st.Ok() && in.Offset == 0 {
		p.sec.noteRead(p.i)
		p.s.ahead.missed(p)
	}
	return res, st
}

// read reads from a file of the store.
func (h *handler) read(p place, off uint64, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := p.s.store.Read(p.s.ctx, p.s.ordinals[p.sec.base], p.i, off, buf)
	switch {
	case p.s.over():
		return nil, fuse.EIO
	case err != nil:
		h.fs.cfg.Logger.Warn("storefs: read failed", "path", p.sec.path(p.i), "offset", off, "err", err)
		return nil, treefs.Status(err)
	case n != len(buf):
		h.fs.cfg.Logger.Error("storefs: file is shorter than announced", "path", p.sec.path(p.i), "offset", off+uint64(n))
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf), fuse.OK
}

// path tells an entry's path below the store directory, for messages.
func (s *section) path(i uint32) string {
	path := ""
	for i != 0 {
		e := s.meta.Entry(i)
		path = "/" + e.Name + path
		i = e.Parent
	}
	return s.key.name + path
}

// Lseek implements fuse.RawFileSystem: files of sections have no holes.
func (h *handler) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if isOutput(in.NodeId) {
		f, st := h.open.any(cancel, &in.InHeader)
		if !st.Ok() {
			return st
		}
		defer h.open.put(f)
		in.Fh = f.fh
		return h.out.Lseek(cancel, in, out)
	}
	p, st := h.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	size := p.sec.meta.Size(p.i)
	if in.Offset >= size {
		return fuse.Status(syscall.ENXIO)
	}
	out.Offset = in.Offset
	if in.Whence == unix.SEEK_HOLE {
		out.Offset = size
	}
	return fuse.OK
}

// GetXAttr implements fuse.RawFileSystem: the real name of a file, and nothing else.
func (h *handler) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	name, ok := treefs.RealNameQuery(attr)
	if !ok {
		return 0, fuse.ENODATA
	}
	real, st := h.realName(cancel, in.NodeId, name)
	if !st.Ok() {
		return 0, st
	}
	return treefs.RealNameReply(real, dest)
}

func (h *handler) realName(cancel <-chan struct{}, nodeid uint64, name string) (string, fuse.Status) {
	if isOutput(nodeid) {
		return h.out.RealName(cancel, nodeid, name)
	}
	if isRoot(nodeid) {
		s, st := h.session(cancel)
		if !st.Ok() {
			return "", st
		}
		if real, ok := s.realName(name); ok {
			return real, fuse.OK
		}
		if s.outputs {
			return h.out.RealName(cancel, nodeid, name)
		}
		return "", fuse.ENOENT
	}
	p, st := h.at(cancel, nodeid)
	if !st.Ok() {
		return "", st
	}
	if p.sec.meta.Kind(p.i) == wire.KindDir {
		if real, ok := p.sec.realName(p.i, name); ok {
			return real, fuse.OK
		}
	}
	return "", fuse.ENOENT
}

// ListXAttr implements fuse.RawFileSystem: there are none.
func (h *handler) ListXAttr(<-chan struct{}, *fuse.InHeader, []byte) (uint32, fuse.Status) {
	return 0, fuse.OK
}
