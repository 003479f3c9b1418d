package storefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
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
		h.open.forget(nodeid)
		h.out.Forget(nodeid, count)
	}
}

// SetAttr implements fuse.RawFileSystem.
func (h *handler) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !isOutput(in.NodeId) {
		return fuse.EROFS
	}
	if _, ok := in.GetFh(); ok { // by a descriptor, which may allow more than the mode does
		if f := h.open.have(in.NodeId, unix.O_WRONLY); f != nil {
			defer h.open.put(f)
			in.Fh = f.fh
		}
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
	st := h.out.Create(cancel, in, name, out)
	if st.Ok() {
		h.open.put(h.open.add(out.NodeId, out.Fh, in.Flags))
		out.Fh = 0
	}
	return st
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
	f, st := h.open.take(cancel, &in.InHeader, unix.O_WRONLY|in.Flags&writeFlags)
	if !st.Ok() {
		return 0, st
	}
	defer h.open.put(f)
	in.Fh = f.fh
	return h.out.Write(cancel, in, data)
}

// Fallocate implements fuse.RawFileSystem.
func (h *handler) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if !isOutput(in.NodeId) {
		return fuse.EROFS
	}
	f, st := h.open.take(cancel, &in.InHeader, unix.O_WRONLY)
	if !st.Ok() {
		return st
	}
	defer h.open.put(f)
	in.Fh = f.fh
	return h.out.Fallocate(cancel, in)
}

// Flush implements fuse.RawFileSystem: with ENOSYS the kernel itself writes what was
// changed through a mapping when a file is closed, and asks no more. Writes to outputs don't
// wait for it (treefs.Config.Through): without opens there is no descriptor to tell of an error.
func (h *handler) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync implements fuse.RawFileSystem.
func (h *handler) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if !isOutput(in.NodeId) {
		return fuse.OK
	}
	f, st := h.open.any(cancel, &in.InHeader)
	if !st.Ok() {
		return st
	}
	defer h.open.put(f)
	in.Fh = f.fh
	return h.out.Fsync(cancel, in)
}

// Release implements fuse.RawFileSystem. A file that was created before the kernel
// first tried to open one is released; what is open doesn't depend on it.
func (h *handler) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// SetXAttr implements fuse.RawFileSystem.
func (h *handler) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, _ string, _ []byte) fuse.Status {
	return xattrStatus(in.NodeId)
}

// RemoveXAttr implements fuse.RawFileSystem.
func (h *handler) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, _ string) fuse.Status {
	return xattrStatus(in.NodeId)
}

// xattrStatus: outputs have no extended attributes, and nothing else can be written.
func xattrStatus(nodeid uint64) fuse.Status {
	if isOutput(nodeid) {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	return fuse.EROFS
}
