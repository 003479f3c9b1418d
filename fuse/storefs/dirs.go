package storefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"winvm/fuse/treefs"
	"winvm/transport/wire"
)

// Positions in a listing of the root: "." and "..", then the sections, then the
// outputs. A position among the sections carries the session's number, for it means
// another entry in the next.
const (
	seqShift   = 32
	seqMask    = 1<<24 - 1
	outputBase = 1 << 60
)

// OpenDir implements fuse.RawFileSystem. Directories of sections have no handle,
// and the kernel keeps their listings.
func (h *handler) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	switch {
	case isOutput(in.NodeId):
		return h.out.OpenDir(cancel, in, out)
	case h.fs.cfg.ReadOnly:
		return fuse.ENOSYS
	case isRoot(in.NodeId):
		return h.out.OpenDir(cancel, in, out)
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (h *handler) ReleaseDir(in *fuse.ReleaseIn) {
	if isRoot(in.NodeId) || isOutput(in.NodeId) {
		h.out.ReleaseDir(in)
	}
}

// FsyncDir implements fuse.RawFileSystem.
func (h *handler) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if isOutput(in.NodeId) || isRoot(in.NodeId) && h.writable() {
		return h.out.FsyncDir(cancel, in)
	}
	return fuse.OK
}

// ReadDir implements fuse.RawFileSystem.
func (h *handler) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return h.list(cancel, in, out, false)
}

// ReadDirPlus implements fuse.RawFileSystem.
func (h *handler) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return h.list(cancel, in, out, true)
}

func (h *handler) list(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	if isOutput(in.NodeId) {
		if plus {
			return h.out.ReadDirPlus(cancel, in, out)
		}
		return h.out.ReadDir(cancel, in, out)
	}
	if isRoot(in.NodeId) {
		return h.listRoot(cancel, in, out, plus)
	}
	p, st := h.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	if p.sec.meta.Kind(p.i) != wire.KindDir {
		return fuse.ENOTDIR
	}
	first, count := p.sec.meta.Children(p.i)
	if !treefs.AddDots(in.Offset, out, plus) {
		return fuse.OK
	}
	for i := max(in.Offset, treefs.Dots) - treefs.Dots; i < uint64(count); i++ {
		child := first + uint32(i)
		if eo, ok := add(p.sec, child, p.sec.meta.Name(child), i+treefs.Dots+1, out, plus); !ok {
			break
		} else if eo != nil {
			fillEntry(p.sec, child, eo)
		}
	}
	return fuse.OK
}

// add puts one entry into out; with plus its attributes are to be filled in.
func add(sec *section, i uint32, name string, next uint64, out *fuse.DirEntryList, plus bool) (*fuse.EntryOut, bool) {
	kind, exec, _ := sec.meta.Attr(i)
	de := fuse.DirEntry{Name: name, Mode: modeOf(kind, exec), Ino: sec.base + uint64(i), Off: next}
	if !plus {
		return nil, out.AddDirEntry(de)
	}
	eo := out.AddDirLookupEntry(de)
	return eo, eo != nil
}

func (h *handler) listRoot(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	s, st := h.session(cancel)
	if !st.Ok() {
		return st
	}
	if !treefs.AddDots(in.Offset, out, plus) {
		return fuse.OK
	}
	tag := (s.seq & seqMask) << seqShift
	if in.Offset < outputBase {
		first := uint64(0)
		if in.Offset > treefs.Dots {
			if in.Offset&^(1<<seqShift-1) != tag {
				return estale
			}
			first = in.Offset&(1<<seqShift-1) - treefs.Dots
		}
		for i := first; i < uint64(len(s.sections)); i++ {
			sec := s.sections[i]
			eo, ok := add(sec, 0, sec.key.name, tag|(i+treefs.Dots+1), out, plus)
			if !ok {
				return fuse.OK
			}
			if eo != nil && !show(s, sec, eo).Ok() {
				*eo = fuse.EntryOut{} // the name alone: its node isn't there any more
			}
		}
	}
	if !s.outputs {
		return fuse.OK
	}
	// What the outputs can't say is not told if there is something else to tell.
	st = h.out.List(cancel, in.Fh, max(in.Offset, outputBase)-outputBase, outputBase, out, plus, s.hides)
	if !st.Ok() && len(out.Bytes()) > 0 {
		return fuse.OK
	}
	return st
}

// StatFs implements fuse.RawFileSystem.
func (h *handler) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if h.writable() {
		return h.out.StatFs(cancel, in, out)
	}
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: blockSize, NameLen: unix.NAME_MAX}
	if s := h.fs.cur.Now(); s != nil {
		out.Files = uint64(len(s.sections))
	}
	return fuse.OK
}

// writable reports whether the current session has outputs.
func (h *handler) writable() bool {
	s := h.fs.cur.Now()
	return s != nil && s.outputs
}
