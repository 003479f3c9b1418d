package treefs

import (
	"errors"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// fetchSize is about how many bytes of a listing are asked of the Tree at once.
const fetchSize = 64 << 10

// A dir is an open directory. Its entries have numbers in the order the Tree tells
// them, from 0 on: the positions the kernel sees don't depend on the Tree's offsets.
// The Tree's own handle is opened when the first entry is wanted, for smbd opens
// many directories and lists few of them.
type dir struct {
	f      *FS
	nodeid uint64

	mu     sync.Mutex
	s      *session // nil before the first use
	id     fsrpc.HandleID
	pieces []piece // where each fetch began, in order
	// The last piece fetched: entry number first and those that follow. Entries
	// that hold a lookup reference have their Node set.
	first   uint64
	entries []fsrpc.DirEntry
	at      time.Time
	clock   uint64 // of FS.changes, when it was asked for
	end     bool
}

// A piece says at which of the Tree's offsets entry number first is found.
type piece struct{ first, off uint64 }

// OpenDir implements fuse.RawFileSystem.
func (f *FS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != fuse.FUSE_ROOT_ID {
		if _, _, st := f.at(cancel, in.NodeId); !st.Ok() {
			return st
		}
	}
	out.Fh = f.handles.add(&dir{f: f, nodeid: in.NodeId})
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (f *FS) ReleaseDir(in *fuse.ReleaseIn) {
	if h := f.handles.remove(in.Fh); h != nil {
		h.release(f)
	}
}

// FsyncDir implements fuse.RawFileSystem.
func (f *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	s, n, st := f.at(cancel, in.NodeId)
	if !st.Ok() {
		return st
	}
	h, err := s.tree.Open(s.ctx, n, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return s.status(err)
	}
	err = s.tree.Fsync(s.ctx, h, in.FsyncFlags&1 != 0)
	f.release(s, h)
	return s.status(err)
}

// ReadDir implements fuse.RawFileSystem.
func (f *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, out, false)
}

// ReadDirPlus implements fuse.RawFileSystem.
func (f *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, out, true)
}

func (f *FS) list(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	if !AddDots(in.Offset, out, plus) {
		return fuse.OK
	}
	return f.List(cancel, in.Fh, max(in.Offset, Dots)-Dots, Dots, out, plus, nil)
}

// List adds the entries of the open directory fh, from number first on, to out
// until it is full or there are no more. Entry i is followed by the position
// base+i+1. What skip reports true for is left out. With plus each comes with its
// attributes, and the kernel gets the lookup reference.
func (f *FS) List(cancel <-chan struct{}, fh, first, base uint64, out *fuse.DirEntryList, plus bool, skip func(string) bool) fuse.Status {
	d, ok := f.handles.get(fh).(*dir)
	if !ok {
		return fuse.EBADF
	}
	return d.list(cancel, first, base, out, plus, skip)
}

// Dots is how many positions "." and ".." take.
const Dots = 2

// AddDots adds "." and "..", of which the first off are told already, and reports
// whether they fitted.
func AddDots(off uint64, out *fuse.DirEntryList, plus bool) bool {
	for ; off < Dots; off++ {
		e := fuse.DirEntry{Name: ".."[:off+1], Mode: unix.S_IFDIR, Off: off + 1}
		if plus && out.AddDirLookupEntry(e) == nil || !plus && !out.AddDirEntry(e) {
			return false
		}
	}
	return true
}

func (d *dir) list(cancel <-chan struct{}, first, base uint64, out *fuse.DirEntryList, plus bool, skip func(string) bool) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if st := d.use(cancel, first); !st.Ok() {
		return st
	}
	if first == 0 {
		d.rewind(0, 0)
	}
	for i := first; ; i++ {
		e, st := d.entry(i, plus)
		if !st.Ok() || e == nil {
			if i > first {
				return fuse.OK // the error is told when nothing else is
			}
			return st
		}
		if skip != nil && skip(e.Name) {
			continue
		}
		if !d.add(e, base+i+1, out, plus) {
			return fuse.OK
		}
	}
}

// add puts one entry into out, and reports whether it fitted.
func (d *dir) add(e *fsrpc.DirEntry, next uint64, out *fuse.DirEntryList, plus bool) bool {
	f := d.f
	a := e.Attr
	de := fuse.DirEntry{Name: e.Name, Mode: a.Mode, Ino: f.ino(&a), Off: next}
	if !plus {
		return out.AddDirEntry(de)
	}
	eo := out.AddDirLookupEntry(de)
	if eo == nil {
		return false
	}
	// Without a node the kernel takes the name and nothing else.
	if a.Node > fsrpc.RootNode && a.Node <= maxNode && !f.behind.waits(d.s, a.Node) && !f.changes.since(d.clock, a.Node) && f.commit(d.s, d.nodeid, e.Name, a.Node) {
		f.fillEntry(d.s, &a, time.Since(d.at), eo)
		e.Attr.Node = 0 // the reference is the kernel's now
	}
	return true
}

// use makes sure that the directory is open in the current session.
func (d *dir) use(cancel <-chan struct{}, first uint64) fuse.Status {
	if d.s != nil && !d.s.over() {
		return fuse.OK
	}
	if d.s != nil && (d.nodeid != fuse.FUSE_ROOT_ID || first > 0) {
		return estale
	}
	s, n, st := d.f.at(cancel, d.nodeid)
	if !st.Ok() {
		return st
	}
	h, err := s.tree.Open(s.ctx, n, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return s.status(err)
	}
	d.s, d.id, d.entries = s, h, nil
	d.rewind(0, 0)
	return fuse.OK
}

// rewind makes the listing go on at an entry number, found at one of the Tree's offsets.
func (d *dir) rewind(first, off uint64) {
	d.giveBack()
	for len(d.pieces) > 0 && d.pieces[len(d.pieces)-1].first >= first {
		d.pieces = d.pieces[:len(d.pieces)-1]
	}
	d.pieces = append(d.pieces, piece{first, off})
	d.first, d.entries, d.end = first, nil, false
}

// entry returns entry number i, nil if there aren't as many.
func (d *dir) entry(i uint64, attrs bool) (*fsrpc.DirEntry, fuse.Status) {
	if i < d.first {
		p := len(d.pieces) - 1
		for d.pieces[p].first > i {
			p--
		}
		d.rewind(d.pieces[p].first, d.pieces[p].off)
	}
	for i >= d.first+uint64(len(d.entries)) {
		if d.end {
			return nil, fuse.OK
		}
		if st := d.fetch(attrs); !st.Ok() {
			return nil, st
		}
	}
	return &d.entries[i-d.first], fuse.OK
}

// fetch replaces the piece at hand by the next one.
func (d *dir) fetch(attrs bool) fuse.Status {
	last := &d.pieces[len(d.pieces)-1]
	if n := len(d.entries); n > 0 {
		next := piece{d.first + uint64(n), d.entries[n-1].Next}
		d.giveBack()
		d.first, d.entries = next.first, nil
		d.pieces = append(d.pieces, next)
		last = &d.pieces[len(d.pieces)-1]
	}
	clock := d.f.changes.clock()
	entries, err := d.s.tree.Readdir(d.s.ctx, d.id, last.off, fetchSize, attrs)
	if err != nil {
		return d.s.status(err)
	}
	d.at, d.clock, d.end = time.Now(), clock, len(entries) == 0
	if d.end {
		return fuse.OK
	}
	off := last.off
	last.off = entries[len(entries)-1].Next
	good := entries[:0]
	for _, e := range entries {
		if wire.ValidName(e.Name) {
			good = append(good, e)
			continue
		}
		d.f.cfg.Logger.Error("treefs: the host listed what isn't a file name", "name", e.Name)
		if e.Attr.Node != 0 {
			d.f.forgets.add(d.s, e.Attr.Node, 1)
		}
	}
	d.f.absent.listed(d.s, dirOf(d.nodeid), good)
	if d.entries = good; len(good) > 0 {
		last.off = off // this piece can be fetched again
	}
	return fuse.OK
}

// giveBack returns the lookup references that the kernel did not take.
func (d *dir) giveBack() {
	for i := range d.entries {
		if n := d.entries[i].Attr.Node; n != 0 {
			d.f.forgets.add(d.s, n, 1)
			d.entries[i].Attr.Node = 0
		}
	}
}

func (d *dir) release(f *FS) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.s == nil || d.s.over() {
		return
	}
	d.giveBack()
	f.release(d.s, d.id)
}

// RealName answers which name in a directory is the given one but for case.
func (f *FS) RealName(cancel <-chan struct{}, nodeid uint64, name string) (string, fuse.Status) {
	s, n, st := f.at(cancel, nodeid)
	if !st.Ok() {
		return "", st
	}
	if !wire.ValidName(name) {
		return "", fuse.ENOENT
	}
	if f.absent.lacks(s, n, name, true) {
		return "", fuse.ENOENT
	}
	real, err := s.tree.RealName(s.ctx, n, name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			f.absent.missed(s, n)
		}
		return "", s.status(err)
	}
	if !wire.ValidName(real) {
		return "", fuse.EIO
	}
	return real, fuse.OK
}
