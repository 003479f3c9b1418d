package treefs

import (
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"winvm/transport/fsrpc"
)

const (
	nodeBits  = 40
	maxNode   = 1<<nodeBits - 1
	epochMask = 1<<(62-nodeBits) - 1

	foreignID = 65534 // nobody, nogroup
	blockSize = 4096  // what st_blksize says: more than a page misleads the kernel
	// RootIno is the root's inode number, in every session.
	rootIno = 1
)

// Nodeid is the nodeid of a Tree's node in a session's epoch.
func (f *FS) nodeid(s *session, n fsrpc.NodeID) uint64 {
	if n == fsrpc.RootNode {
		return fuse.FUSE_ROOT_ID
	}
	return f.cfg.Tag | (s.epoch&epochMask)<<nodeBits | uint64(n)
}

// dirOf is the Tree's node of a directory, the root being one.
func dirOf(nodeid uint64) fsrpc.NodeID {
	if nodeid == fuse.FUSE_ROOT_ID {
		return fsrpc.RootNode
	}
	return nodeOf(nodeid)
}

func (f *FS) epochOf(nodeid uint64) uint64 { return nodeid >> nodeBits & epochMask }
func nodeOf(nodeid uint64) fsrpc.NodeID    { return fsrpc.NodeID(nodeid & maxNode) }

// ino is the inode number to show.
func (f *FS) ino(a *fsrpc.Attr) uint64 {
	if a.Node == fsrpc.RootNode {
		return rootIno
	}
	if f.cfg.Tag != 0 {
		return f.cfg.Tag | a.Ino&(1<<62-1)
	}
	return a.Ino
}

func (f *FS) attr(a *fsrpc.Attr, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: f.ino(a), Size: a.Size, Blocks: a.Blocks, Mode: a.Mode, Nlink: a.Nlink,
		Owner: fuse.Owner{Uid: f.cfg.UID, Gid: f.cfg.GID}, Blksize: blockSize,
	}
	if a.Foreign {
		out.Owner = fuse.Owner{Uid: foreignID, Gid: foreignID}
	}
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
}

// rootAttr is what the root looks like while no Tree says it.
func (f *FS) rootAttr(out *fuse.Attr) {
	f.attr(&fsrpc.Attr{Node: fsrpc.RootNode, Mode: syscall.S_IFDIR | 0o755, Nlink: 2}, out)
}

// split and join translate between nanoseconds since 1970 and FUSE's seconds and
// nanoseconds. Times that don't fit (before 1678, after 2261) become the nearest.
func split(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

func join(sec uint64, nsec uint32) int64 {
	s := int64(sec)
	switch {
	case s >= math.MaxInt64/int64(1e9):
		return math.MaxInt64
	case s <= math.MinInt64/int64(1e9):
		return math.MinInt64
	}
	return s*1e9 + int64(min(nsec, 999_999_999))
}

// entry fills in the answer to a request that took a lookup reference on a.Node.
func (f *FS) entry(s *session, parent uint64, name string, a *fsrpc.Attr, out *fuse.EntryOut) fuse.Status {
	if a.Node <= fsrpc.RootNode || a.Node > maxNode {
		f.cfg.Logger.Error("treefs: the host gave a node number out of range", "node", a.Node)
		return fuse.EIO
	}
	if !f.commit(s, parent, name, a.Node) {
		return estale
	}
	f.fillEntry(s, a, 0, out)
	return fuse.OK
}

// fillEntry fills in a name's answer from attributes that are age old.
func (f *FS) fillEntry(s *session, a *fsrpc.Attr, age time.Duration, out *fuse.EntryOut) {
	out.NodeId = f.nodeid(s, a.Node)
	out.SetEntryTimeout(max(0, f.cfg.EntryTimeout-age))
	out.SetAttrTimeout(max(0, f.cfg.AttrTimeout-age))
	f.attr(a, &out.Attr)
}

// asked is the moment at which attributes were asked for by name.
type asked struct {
	clock   uint64
	writing bool
}

// asking notes the moment.
func (f *FS) asking() asked { return asked{f.changes.clock(), f.behind.any()} }

// settled makes attributes that were asked for at that moment hold all that was
// written before it. Of writes since then the kernel knows better itself.
func (f *FS) settled(s *session, then asked, a *fsrpc.Attr) error {
	n := a.Node
	if !then.writing || !f.behind.waits(s, n) && !f.changes.since(then.clock, n) {
		return nil
	}
	f.behind.drain(s, n)
	now, err := s.tree.Getattr(s.ctx, n, fsrpc.NoHandle)
	if err == nil {
		*a = now
		a.Node = n
	}
	return err
}

// GetAttr implements fuse.RawFileSystem.
func (f *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == fuse.FUSE_ROOT_ID && f.cur.Now() == nil {
		f.rootAttr(&out.Attr)
		out.SetTimeout(0)
		return fuse.OK
	}
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	f.behind.drain(s, n)
	h := fsrpc.NoHandle
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		h = f.handles.of(s, in.Fh())
	}
	a, err := s.tree.Getattr(s.ctx, n, h)
	return f.attrOut(s, n, &a, err, out)
}

func (f *FS) attrOut(s *session, n fsrpc.NodeID, a *fsrpc.Attr, err error, out *fuse.AttrOut) fuse.Status {
	if err != nil {
		return s.status(err)
	}
	a.Node = n
	f.attr(a, &out.Attr)
	out.SetTimeout(f.cfg.AttrTimeout)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem. Files can't be given to another owner.
func (f *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	if uid, ok := in.GetUID(); ok && uid != f.cfg.UID {
		return fuse.EPERM
	}
	if gid, ok := in.GetGID(); ok && gid != f.cfg.GID {
		return fuse.EPERM
	}
	f.behind.drain(s, n)
	h := fsrpc.NoHandle
	if fh, ok := in.GetFh(); ok {
		h = f.handles.of(s, fh)
	}
	set := setAttr(&in.SetAttrInCommon)
	var a fsrpc.Attr
	var err error
	if set.Valid == 0 {
		a, err = s.tree.Getattr(s.ctx, n, h)
	} else {
		a, err = s.tree.Setattr(s.ctx, n, h, set)
		f.changes.mark(n)
	}
	return f.attrOut(s, n, &a, err, out)
}

func setAttr(in *fuse.SetAttrInCommon) fsrpc.SetAttr {
	var set fsrpc.SetAttr
	bit := func(valid uint32, m fsrpc.SetMask) {
		if in.Valid&valid != 0 {
			set.Valid |= m
		}
	}
	bit(fuse.FATTR_MODE, fsrpc.SetMode)
	bit(fuse.FATTR_SIZE, fsrpc.SetSize)
	bit(fuse.FATTR_ATIME, fsrpc.SetAtime)
	bit(fuse.FATTR_MTIME, fsrpc.SetMtime)
	if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
		set.Valid = set.Valid&^fsrpc.SetAtime | fsrpc.SetAtimeNow
	}
	if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
		set.Valid = set.Valid&^fsrpc.SetMtime | fsrpc.SetMtimeNow
	}
	set.Mode, set.Size = in.Mode&0o7777, in.Size
	set.Atime, set.Mtime = join(in.Atime, in.Atimensec), join(in.Mtime, in.Mtimensec)
	return set
}
