package treefs

import (
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// passFlags are the flags of open(2) that a Tree takes.
const passFlags = unix.O_ACCMODE | unix.O_APPEND | unix.O_TRUNC | unix.O_EXCL | unix.O_SYNC | unix.O_DSYNC | unix.O_DIRECTORY

func (f *FS) openFlags(flags uint32) uint32 {
	flags &= passFlags
	if f.cfg.Writeback {
		// The kernel reads pages before it changes part of them, and
		// knows itself where the end is.
		if flags&unix.O_ACCMODE == unix.O_WRONLY {
			flags = flags&^unix.O_ACCMODE | unix.O_RDWR
		}
		flags &^= unix.O_APPEND
	}
	return flags
}

// Create implements fuse.RawFileSystem.
func (f *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	defer f.absent.making(n, name)()
	before := f.asking()
	var a fsrpc.Attr
	var h fsrpc.HandleID
	err := f.room(s, in.NodeId, name, func() (err error) {
		a, h, err = s.tree.Create(s.ctx, n, name, f.openFlags(in.Flags), in.Mode&0o7777)
		return err
	})
	if err != nil {
		return s.status(err)
	}
	f.changes.mark(a.Node)
	if err := f.settled(s, before, &a); err != nil {
		f.forgets.add(s, a.Node, 1)
		f.release(s, h)
		return s.status(err)
	}
	if st := f.made(s, in.NodeId, name, &a, &out.EntryOut); !st.Ok() {
		f.release(s, h)
		return st
	}
	out.Fh, out.OpenFlags = f.opened(s, a.Node, h, in.Flags)
	return fuse.OK
}

// opened makes the fh of a file that was opened, and says how the kernel is to use it.
func (f *FS) opened(s *session, n fsrpc.NodeID, id fsrpc.HandleID, flags uint32) (fh uint64, openFlags uint32) {
	h := &file{
		s: s, id: id, node: n,
		writes:  flags&unix.O_ACCMODE != unix.O_RDONLY,
		appends: flags&unix.O_APPEND != 0 && !f.cfg.Writeback && !f.cfg.Through,
	}
	if !h.writes {
		openFlags |= fuse.FOPEN_NOFLUSH
	}
	if h.appends {
		// Through its page cache the kernel cuts a write(2) at page boundaries into
		// several requests, between which the host may append what others write.
		openFlags |= fuse.FOPEN_DIRECT_IO
	}
	return f.handles.add(h), openFlags
}

// Open implements fuse.RawFileSystem.
func (f *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	if in.Flags&unix.O_TRUNC != 0 {
		f.behind.drain(s, n)
	}
	h, err := s.tree.Open(s.ctx, n, f.openFlags(in.Flags)&^unix.O_EXCL)
	if in.Flags&unix.O_TRUNC != 0 {
		f.changes.mark(n)
	}
	if err != nil {
		return s.status(err)
	}
	out.Fh, out.OpenFlags = f.opened(s, n, h, in.Flags)
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, st := f.handles.file(in.Fh)
	if !st.Ok() {
		return nil, st
	}
	f.behind.drain(h.s, h.node)
	buf = buf[:min(len(buf), fsrpc.MaxData)]
	n, err := h.s.tree.Read(h.s.ctx, h.id, in.Offset, buf)
	if err != nil {
		return nil, h.s.status(err)
	}
	if n < 0 || n > len(buf) {
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write implements fuse.RawFileSystem. What may wait is sent when the answer is on its
// way already; what becomes of it the next write, Flush or Fsync tells.
func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, st := f.handles.file(in.Fh)
	if !st.Ok() {
		return 0, st
	}
	if !f.cfg.Through && mayWait(h, in) && len(data) > 0 {
		if err := f.behind.next(h); err != nil {
			return 0, h.s.status(err)
		}
		f.behind.add(h, in.Offset, data)
		return uint32(len(data)), fuse.OK
	}
	f.behind.drain(h.s, h.node)
	var n int
	id := h.id
	write := func() (err error) {
		n, err = h.s.tree.Write(h.s.ctx, id, in.Offset, data)
		return err
	}
	var err error
	if in.WriteFlags&fuse.WRITE_CACHE != 0 && h.appends {
		// The kernel writes mappings back through any descriptor, but what the host has
		// open for appending writes nowhere else.
		if id, err = h.s.tree.Open(h.s.ctx, h.node, unix.O_WRONLY); err != nil {
			return 0, h.s.status(err)
		}
		defer f.release(h.s, id)
		err = f.room(h.s, in.NodeId, "", write)
	} else if in.Flags&unix.O_APPEND != 0 {
		err = write() // what a failed append left there may be appended once only
	} else {
		err = f.room(h.s, in.NodeId, "", write)
	}
	f.changes.mark(nodeOf(in.NodeId))
	if err != nil {
		return 0, h.s.status(err)
	}
	if n < 0 || n > len(data) {
		return 0, fuse.EIO
	}
	if h.appends && in.WriteFlags&fuse.WRITE_CACHE == 0 { // a page that is written back waits for us
		f.uncache(in.NodeId, in.Offset)
	}
	return uint32(n), fuse.OK
}

// uncache makes the kernel forget a file's contents from off on: those that were written
// past its cache, which others that have the file open read through.
func (f *FS) uncache(nodeid, off uint64) {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	if server != nil {
		server.InodeNotify(nodeid, int64(off), 0) // ENOENT: it had nothing
	}
}

// Flush implements fuse.RawFileSystem: a file is being closed. The kernel asks for those
// that are open for writing.
func (f *FS) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h, ok := f.handles.get(in.Fh).(*file)
	if !ok || !h.writes {
		return fuse.OK
	}
	f.behind.drainFile(h)
	return h.s.status(f.behind.closed(h))
}

// Fsync implements fuse.RawFileSystem.
func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, st := f.handles.file(in.Fh)
	if !st.Ok() {
		return st
	}
	f.behind.drainFile(h)
	if err := f.behind.told(h); err != nil {
		return h.s.status(err)
	}
	const dataOnly = 1 // FUSE_FSYNC_FDATASYNC
	return h.s.status(h.s.tree.Fsync(h.s.ctx, h.id, in.FsyncFlags&dataOnly != 0))
}

// Fallocate implements fuse.RawFileSystem.
func (f *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, st := f.handles.file(in.Fh)
	if !st.Ok() {
		return st
	}
	f.behind.drain(h.s, h.node)
	err := f.room(h.s, in.NodeId, "", func() error {
		return h.s.tree.Fallocate(h.s.ctx, h.id, in.Mode, in.Offset, in.Length)
	})
	f.changes.mark(nodeOf(in.NodeId))
	return h.s.status(err)
}

// Lseek implements fuse.RawFileSystem, for SEEK_DATA and SEEK_HOLE.
func (f *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, st := f.handles.file(in.Fh)
	if !st.Ok() {
		return st
	}
	f.behind.drain(h.s, h.node)
	off, err := h.s.tree.Lseek(h.s.ctx, h.id, in.Offset, in.Whence)
	if err != nil {
		return h.s.status(err)
	}
	if off > math.MaxInt64 {
		return fuse.EIO
	}
	out.Offset = off
	return fuse.OK
}

// Release implements fuse.RawFileSystem. Nobody waits for it.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h := f.handles.remove(in.Fh); h != nil {
		h.release(f)
	}
}

// release closes a handle; the host's Sync tells what went wrong to those who ask.
func (f *FS) release(s *session, h fsrpc.HandleID) {
	if s.over() {
		return
	}
	if err := s.tree.Release(s.ctx, h); err != nil && !s.over() {
		f.cfg.Logger.Warn("treefs: close on the host failed", "err", err)
	}
}

// Samba's VFS module glusterfs_fuse asks by this attribute which name differs from
// the one given only in case. It keeps the value in a buffer it has not cleared, so
// the NUL at the end is part of it. Longer names than XATTR_NAME_MAX leaves room for
// (227 bytes) the kernel refuses with ERANGE.
const realNameAttr = "glusterfs.get_real_filename:"

// RealNameQuery reports which name an extended attribute's name asks for.
func RealNameQuery(attr string) (name string, ok bool) {
	if len(attr) <= len(realNameAttr) || attr[:len(realNameAttr)] != realNameAttr {
		return "", false
	}
	return attr[len(realNameAttr):], true
}

// RealNameReply puts the answer to a RealNameQuery into an attribute's buffer.
func RealNameReply(name string, dest []byte) (uint32, fuse.Status) {
	n := len(name) + 1
	if len(dest) < n {
		return uint32(n), fuse.ERANGE
	}
	copy(dest, name)
	dest[n-1] = 0
	return uint32(n), fuse.OK
}

// GetXAttr implements fuse.RawFileSystem: the real name of a file, and
// nothing else.
func (f *FS) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	name, ok := RealNameQuery(attr)
	if !ok {
		return 0, fuse.ENODATA
	}
	real, st := f.RealName(cancel, in.NodeId, name)
	if !st.Ok() {
		return 0, st
	}
	return RealNameReply(real, dest)
}

// ListXAttr implements fuse.RawFileSystem: there are none.
func (f *FS) ListXAttr(<-chan struct{}, *fuse.InHeader, []byte) (uint32, fuse.Status) {
	return 0, fuse.OK
}

// SetXAttr implements fuse.RawFileSystem.
func (f *FS) SetXAttr(<-chan struct{}, *fuse.SetXAttrIn, string, []byte) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}

// RemoveXAttr implements fuse.RawFileSystem.
func (f *FS) RemoveXAttr(<-chan struct{}, *fuse.InHeader, string) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}
