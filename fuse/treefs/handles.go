package treefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"winvm/transport/fsrpc"
)

// A file is an open regular file of one session.
type file struct {
	s       *session
	id      fsrpc.HandleID
	node    fsrpc.NodeID
	writes  bool // open for writing
	appends bool // opened with O_APPEND: the kernel doesn't cache what is written

	// Guarded by behind.mu.
	last   *pending // where its last write went
	failed error    // of a write that was answered before
	warned bool     // a later write was told of it
}

// release closes what was open. Nobody waits for it.
func (h *file) release(f *FS) {
	if h.writes {
		f.behind.drainFile(h)
		if err := f.behind.closed(h); err != nil {
			f.cfg.Logger.Warn("treefs: a write failed and the file was closed without asking", "err", err)
		}
	}
	f.release(h.s, h.id)
}

// A handle is what an fh number stands for: a *file or a *dir.
type handle interface{ release(*FS) }

// A handleTable gives open files and directories their fh numbers, none of which
// is ever used again.
type handleTable struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]handle
}

func (t *handleTable) add(h handle) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[uint64]handle{}
	}
	t.last++
	t.open[t.last] = h
	return t.last
}

func (t *handleTable) get(fh uint64) handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[fh]
}

func (t *handleTable) remove(fh uint64) handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.open[fh]
	delete(t.open, fh)
	return h
}

// drop empties the table.
func (t *handleTable) drop() []handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []handle
	for _, h := range t.open {
		all = append(all, h)
	}
	t.open = nil
	return all
}

// file finds an open file; EIO if its session is over.
func (t *handleTable) file(fh uint64) (*file, fuse.Status) {
	h, ok := t.get(fh).(*file)
	if !ok {
		return nil, fuse.EBADF
	}
	if h.s.over() {
		return nil, fuse.EIO
	}
	return h, fuse.OK
}

// of returns the Tree's handle behind fh if it is of that session.
func (t *handleTable) of(s *session, fh uint64) fsrpc.HandleID {
	if h, ok := t.get(fh).(*file); ok && h.s == s {
		return h.id
	}
	return fsrpc.NoHandle
}
