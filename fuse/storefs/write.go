package storefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// mayChange tells whether names in a directory can change: OK in outputs, and in
// the root if there are outputs and no section has one of the names.
func (h *handler) mayChange(cancel <-chan struct{}, dir uint64, name string) fuse.Status {
	if isOutput(dir) {
		return fuse.OK
	}
	if !isRoot(dir) {
		return fuse.EROFS
	}
	s, st := h.session(cancel)
	if st.Ok() && (!s.outputs || s.hides(name)) {
		return fuse.EROFS
	}
	return st
}

// mayMake is mayChange for a new name.
func (h *handler) mayMake(cancel <-chan struct{}, dir uint64, name string) fuse.Status {
	if s := h.fs.cur.Now(); isRoot(dir) && s != nil && s.hides(name) {
		return fuse.Status(syscall.EEXIST)
	}
	return h.mayChange(cancel, dir, name)
}

// Forget implements fuse.RawFileSystem. Sections need no references.
func (h *handler) Forget(nodeid, count uint64) {
	if isOutput(nodeid) {
		h.out.Forget(nodeid, count)
	}
}

// SetAttr implements fuse.RawFileSystem.
func (h *handler) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !isOutput(in.NodeId) {
		return fuse.EROFS
	}
	return h.out.SetAttr(cancel, in, out)
}

// Mkdir implements fuse.RawFileSystem.
func (h *handler) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := h.mayMake(cancel, in.NodeId, name); !st.Ok() {
		return st
	}
	return h.out.Mkdir(cancel, in, name, out)
}

// Mknod implements fuse.RawFileSystem.
func (h *handler) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := h.mayMake(cancel, in.NodeId, name); !st.Ok() {
		return st
	}
	return h.out.Mknod(cancel, in, name, out)
}

// Symlink implements fuse.RawFileSystem.
func (h *handler) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if st := h.mayMake(cancel, in.NodeId, name); !st.Ok() {
		return st
	}
	return h.out.Symlink(cancel, in, target, name, out)
}

// Link implements fuse.RawFileSystem.
func (h *handler) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := h.mayMake(cancel, in.NodeId, name); !st.Ok() {
		return st
	}
	if !isOutput(in.Oldnodeid) {
		return fuse.EXDEV // programs copy then
	}
	return h.out.Link(cancel, in, name, out)
}

// Create implements fuse.RawFileSystem.
func (h *handler) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st := h.mayMake(cancel, in.NodeId, name); !st.Ok() {
		return st
	}
	return h.out.Create(cancel, in, name, out)
}

// Unlink implements fuse.RawFileSystem.
func (h *handler) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if st := h.mayChange(cancel, in.NodeId, name); !st.Ok() {
		return st
	}
	return h.out.Unlink(cancel, in, name)
}

// Rmdir implements fuse.RawFileSystem.
func (h *handler) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if st := h.mayChange(cancel, in.NodeId, name); !st.Ok() {
		return st
	}
	return h.out.Rmdir(cancel, in, name)
}

// Rename implements fuse.RawFileSystem.
func (h *handler) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if st := h.mayChange(cancel, in.NodeId, oldName); !st.Ok() {
		return st
	}
	if st := h.mayChange(cancel, in.Newdir, newName); !st.Ok() {
		return st
	}
	return h.out.Rename(cancel, in, oldName, newName)
}

// Write implements fuse.RawFileSystem.
func (h *handler) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if !isOutput(in.NodeId) {
		return 0, fuse.EROFS
	}
	return h.out.Write(cancel, in, data)
}

// Fallocate implements fuse.RawFileSystem.
func (h *handler) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if !isOutput(in.NodeId) {
		return fuse.EROFS
	}
	return h.out.Fallocate(cancel, in)
}

// Flush implements fuse.RawFileSystem: see treefs.
func (h *handler) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return h.out.Flush(cancel, in)
}

// Fsync implements fuse.RawFileSystem.
func (h *handler) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if !isOutput(in.NodeId) {
		return fuse.OK
	}
	return h.out.Fsync(cancel, in)
}

// Release implements fuse.RawFileSystem.
func (h *handler) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	if isOutput(in.NodeId) {
		h.out.Release(cancel, in)
	}
}

// SetXAttr implements fuse.RawFileSystem.
func (h *handler) SetXAttr(<-chan struct{}, *fuse.SetXAttrIn, string, []byte) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}

// RemoveXAttr implements fuse.RawFileSystem.
func (h *handler) RemoveXAttr(<-chan struct{}, *fuse.InHeader, string) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}
