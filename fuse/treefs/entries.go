package treefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"winvm/transport/fsrpc"
)

// Lookup implements fuse.RawFileSystem.
func (f *FS) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	if f.cfg.NegativeTimeout <= 0 && f.absent.lacks(s, n, name, false) {
		return fuse.ENOENT
	}
	before := f.asking()
	var a fsrpc.Attr
	err := f.room(s, in.NodeId, name, func() (err error) {
		a, err = s.tree.Lookup(s.ctx, n, name)
		return err
	})
	if err == nil {
		if err := f.settled(s, before, &a); err != nil {
			f.forgets.add(s, a.Node, 1)
			return s.status(err)
		}
		return f.entry(s, in.NodeId, name, &a, out)
	}
	st = s.status(err)
	if st == fuse.ENOENT {
		f.absent.missed(s, n)
	}
	if st != fuse.ENOENT || f.cfg.NegativeTimeout <= 0 {
		return st
	}
	if !f.commit(s, in.NodeId, name, 0) {
		return estale
	}
	out.NodeId = 0
	out.SetEntryTimeout(f.cfg.NegativeTimeout)
	return fuse.OK
}

// Forget implements fuse.RawFileSystem.
func (f *FS) Forget(nodeid, count uint64) {
	s := f.cur.Now()
	if nodeid == fuse.FUSE_ROOT_ID || s == nil || s.epoch != f.epochOf(nodeid) {
		return
	}
	f.forgot(nodeOf(nodeid), count)
	f.forgets.add(s, nodeOf(nodeid), count)
}

// make answers a request that makes something called name.
func (f *FS) make(s *session, parent uint64, name string, out *fuse.EntryOut, op func() (fsrpc.Attr, error)) fuse.Status {
	defer f.absent.making(dirOf(parent), name)()
	var a fsrpc.Attr
	err := f.room(s, parent, name, func() (err error) {
		a, err = op()
		return err
	})
	if err != nil {
		return s.status(err)
	}
	return f.made(s, parent, name, &a, out)
}

// made tells the kernel of what was made. If the session ended meanwhile that is EIO: at
// ESTALE the kernel would try again, and find its own file in the way.
func (f *FS) made(s *session, parent uint64, name string, a *fsrpc.Attr, out *fuse.EntryOut) fuse.Status {
	st := f.entry(s, parent, name, a, out)
	if st == estale {
		return fuse.EIO
	}
	return st
}

// Mkdir implements fuse.RawFileSystem.
func (f *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	return f.make(s, in.NodeId, name, out, func() (fsrpc.Attr, error) {
		begun := time.Now()
		a, err := s.tree.Mkdir(s.ctx, n, name, in.Mode&0o7777)
		if err == nil {
			f.absent.empty(s, a.Node, begun)
		}
		return a, err
	})
}

// Mknod implements fuse.RawFileSystem, for regular files only.
func (f *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fuse.EPERM
	}
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	return f.make(s, in.NodeId, name, out, func() (fsrpc.Attr, error) {
		a, h, err := s.tree.Create(s.ctx, n, name, syscall.O_WRONLY|syscall.O_EXCL, in.Mode&0o7777)
		if err == nil {
			f.release(s, h)
		}
		return a, err
	})
}

// Symlink implements fuse.RawFileSystem.
func (f *FS) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if len(target) > fsrpc.MaxTarget {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	return f.make(s, in.NodeId, name, out, func() (fsrpc.Attr, error) {
		return s.tree.Symlink(s.ctx, n, name, target)
	})
}

// Readlink implements fuse.RawFileSystem.
func (f *FS) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return nil, st
	}
	target, err := s.tree.Readlink(s.ctx, n)
	if err == nil && (target == "" || len(target) > fsrpc.MaxTarget) {
		return nil, fuse.EIO
	}
	return []byte(target), s.status(err)
}

// both finds the session and the nodes of a request about two.
func (f *FS) both(cancel <-chan struct{}, a, b uint64) (s *session, na, nb fsrpc.NodeID, st fuse.Status) {
	s, na, st = f.at(cancel, a)
	if !st.Ok() {
		return nil, 0, 0, st
	}
	sb, nb, st := f.at(cancel, b)
	if !st.Ok() {
		return nil, 0, 0, st
	}
	if s != sb {
		return nil, 0, 0, estale
	}
	return s, na, nb, fuse.OK
}

// Link implements fuse.RawFileSystem.
func (f *FS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	s, dir, n, st := f.both(cancel, in.NodeId, in.Oldnodeid)
	if !st.Ok() {
		return st
	}
	f.behind.drain(s, n)
	defer f.changes.mark(n)
	return f.make(s, in.NodeId, name, out, func() (fsrpc.Attr, error) {
		return s.tree.Link(s.ctx, n, dir, name)
	})
}

// Unlink implements fuse.RawFileSystem.
func (f *FS) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	err := s.tree.Unlink(s.ctx, n, name)
	if err == nil {
		f.gone(in.NodeId, name)
	}
	return s.status(err)
}

// Rmdir implements fuse.RawFileSystem.
func (f *FS) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	err := s.tree.Rmdir(s.ctx, n, name)
	if err == nil {
		f.gone(in.NodeId, name)
	}
	return s.status(err)
}

// Flags of renameat2(2) that a Tree takes.
const renameFlags = 1 | 2 // RENAME_NOREPLACE, RENAME_EXCHANGE

// Rename implements fuse.RawFileSystem.
func (f *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags&^renameFlags != 0 {
		return fuse.EINVAL
	}
	s, from, to, st := f.both(cancel, in.NodeId, in.Newdir)
	if !st.Ok() {
		return st
	}
	// Who finds the new name on the host finds what was written.
	f.behind.drainAll()
	defer f.absent.making(to, newName)()
	// The kernel moves its dentry itself, so it knows the new name in the root.
	if !f.commit(s, in.Newdir, newName, 0) || !f.commit(s, in.NodeId, oldName, 0) {
		return estale
	}
	return s.status(s.tree.Rename(s.ctx, from, oldName, to, newName, in.Flags))
}

// StatFs implements fuse.RawFileSystem.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: blockSize, NameLen: fsrpc.MaxName}
	s := f.cur.Now()
	if s == nil {
		return fuse.OK
	}
	sf, err := s.tree.Statfs(s.ctx)
	if err != nil {
		return s.status(err)
	}
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = sf.Blocks, sf.Bfree, sf.Bavail, sf.Files, sf.Ffree
	if sf.Bsize > 0 {
		out.Bsize, out.Frsize = sf.Bsize, sf.Bsize
	}
	return fuse.OK
}
