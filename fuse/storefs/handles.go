package storefs

import (
	"container/list"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"winvm/fuse/treefs"
)

// maxHandles is how many of the outputs' files are kept open on the host beyond those
// at work.
const maxHandles = 128

// writeFlags are the open flags that make a write another one.
const writeFlags = unix.O_APPEND | unix.O_SYNC | unix.O_DSYNC

// handles are the outputs' files that are open on the host. The kernel doesn't say when
// it opens and closes files of this mount (see handler.Open), so they are opened when
// they are first read or written, and closed when the kernel forgets them, when there are
// too many, and by close.
type handles struct {
	out *treefs.FS

	mu    sync.Mutex
	files map[uint64][]*handle // by nodeid
	idle  list.List            // of *handle, the one unused longest in front
}

// A handle is a file that is open on the host.
type handle struct {
	nodeid uint64
	fh     uint64 // treefs's
	flags  uint32 // O_ACCMODE and writeFlags
	uses   int
	elem   *list.Element // in handles.idle
	gone   bool          // to be closed after its last use
}

func (h *handle) reads() bool  { return h.flags&unix.O_ACCMODE != unix.O_WRONLY }
func (h *handle) writes() bool { return h.flags&unix.O_ACCMODE != unix.O_RDONLY }

// take returns an open file that fits, opening one if need be; put must follow.
func (t *handles) take(cancel <-chan struct{}, in *fuse.InHeader, flags uint32) (*handle, fuse.Status) {
	if h := t.have(in.NodeId, flags); h != nil {
		return h, fuse.OK
	}
	open := fuse.OpenIn{InHeader: *in, Flags: flags}
	var out fuse.OpenOut
	st := t.out.Open(cancel, &open, &out)
	if st == fuse.Status(unix.ENFILE) || st == fuse.Status(unix.EMFILE) {
		t.shrink(0)
		st = t.out.Open(cancel, &open, &out)
	}
	if !st.Ok() {
		return nil, st
	}
	return t.add(in.NodeId, out.Fh, flags), fuse.OK
}

// any is take for what needs no access of a kind.
func (t *handles) any(cancel <-chan struct{}, in *fuse.InHeader) (*handle, fuse.Status) {
	t.mu.Lock()
	for _, h := range t.files[in.NodeId] {
		t.use(h)
		t.mu.Unlock()
		return h, fuse.OK
	}
	t.mu.Unlock()
	return t.take(cancel, in, unix.O_RDONLY)
}

// have returns an open file that fits, if there is one.
func (t *handles) have(nodeid uint64, flags uint32) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.files[nodeid] {
		if flags&unix.O_ACCMODE == unix.O_RDONLY && h.reads() ||
			flags&unix.O_ACCMODE != unix.O_RDONLY && h.writes() && h.flags&writeFlags == flags&writeFlags {
			t.use(h)
			return h
		}
	}
	return nil
}

// use is called with mu held.
func (t *handles) use(h *handle) {
	h.uses++
	if h.elem != nil {
		t.idle.Remove(h.elem)
		h.elem = nil
	}
}

// add adds a file that was opened, in use.
func (t *handles) add(nodeid, fh uint64, flags uint32) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := &handle{nodeid: nodeid, fh: fh, flags: flags & (unix.O_ACCMODE | writeFlags), uses: 1}
	if t.files == nil {
		t.files = map[uint64][]*handle{}
	}
	t.files[nodeid] = append(t.files[nodeid], h)
	return h
}

// put ends the use of a file.
func (t *handles) put(h *handle) {
	t.mu.Lock()
	h.uses--
	closing := h.uses == 0 && h.gone
	if h.uses == 0 && !h.gone {
		h.elem = t.idle.PushBack(h)
	}
	t.mu.Unlock()
	if closing {
		t.release(h)
		return
	}
	t.shrink(maxHandles)
}

// shrink closes files that are not in use until there are no more than n of those.
func (t *handles) shrink(n int) {
	var old []*handle
	t.mu.Lock()
	for t.idle.Len() > n {
		old = append(old, t.idle.Front().Value.(*handle))
		t.remove(old[len(old)-1])
	}
	t.mu.Unlock()
	for _, h := range old {
		t.release(h)
	}
}

// remove takes a file out of the table. mu is held.
func (t *handles) remove(h *handle) {
	if h.elem != nil {
		t.idle.Remove(h.elem)
		h.elem = nil
	}
	h.gone = true
	rest := t.files[h.nodeid]
	for i := range rest {
		if rest[i] == h {
			rest = append(rest[:i:i], rest[i+1:]...)
			break
		}
	}
	if t.files[h.nodeid] = rest; len(rest) == 0 {
		delete(t.files, h.nodeid)
	}
}

// forget closes the files of a node.
func (t *handles) forget(nodeid uint64) {
	t.mu.Lock()
	list := append([]*handle(nil), t.files[nodeid]...)
	t.mu.Unlock()
	t.drop(list)
}

// close closes everything; what is at work, after it.
func (t *handles) close() {
	var all []*handle
	t.mu.Lock()
	for _, list := range t.files {
		all = append(all, list...)
	}
	t.mu.Unlock()
	t.drop(all)
}

func (t *handles) drop(list []*handle) {
	for _, h := range list {
		t.mu.Lock()
		now := !h.gone && h.uses == 0
		if !h.gone {
			t.remove(h)
		}
		t.mu.Unlock()
		if now {
			t.release(h)
		}
	}
}

func (t *handles) release(h *handle) {
	in := fuse.ReleaseIn{Fh: h.fh, Flags: h.flags}
	in.NodeId = h.nodeid
	t.out.Release(nil, &in)
}
