package treefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// behindLimit is how many bytes may wait to be written to the host; writers wait then.
const behindLimit = 8 << 20

// behind holds what was written and isn't with the host yet. For each file one request
// is on its way at a time, in the order of the writes; what comes meanwhile and follows
// on it goes with the next. So nothing waits longer than for the requests before it.
type behind struct {
	f *FS

	mu    sync.Mutex
	moved sync.Cond // a chunk is done
	bytes int
	files map[fsrpc.NodeID]*pending // those of which something waits
	lost  error                     // the first error that perhaps no program knows
	work  sync.WaitGroup
}

// pending is what waits of one file.
type pending struct {
	s            *session
	queue        []*chunk
	added, ended uint64 // chunks, in all
}

// A chunk is written with one request.
type chunk struct {
	h    *file
	off  uint64
	data []byte
}

func (b *behind) init(f *FS) {
	b.f = f
	b.moved.L = &b.mu
	b.files = map[fsrpc.NodeID]*pending{}
}

// add takes data, which the caller keeps, to be written to h's file.
func (b *behind) add(h *file, off uint64, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.bytes > 0 && b.bytes+len(data) > behindLimit {
		b.moved.Wait()
	}
	b.bytes += len(data)
	p := b.files[h.node]
	if p == nil || p.s != h.s {
		p = &pending{s: h.s}
		b.files[h.node] = p
		b.work.Go(func() { b.send(h.node, p) })
	}
	h.last = p
	if n := len(p.queue); n > 0 {
		last := p.queue[n-1]
		if last.h == h && last.off+uint64(len(last.data)) == off && len(last.data)+len(data) <= fsrpc.MaxData {
			last.data = append(last.data, data...)
			return
		}
	}
	p.queue = append(p.queue, &chunk{h, off, append([]byte(nil), data...)})
	p.added++
}

// send writes what waits of a file, until nothing does.
func (b *behind) send(n fsrpc.NodeID, p *pending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p.queue) > 0 {
		c := p.queue[0]
		p.queue = p.queue[1:]
		b.mu.Unlock()
		err := b.f.room(p.s, 0, func() error {
			_, err := p.s.tree.Write(p.s.ctx, c.h.id, c.off, c.data)
			return err
		})
		b.f.changes.mark(n)
		b.mu.Lock()
		if err != nil && c.h.failed == nil {
			c.h.failed = err
		}
		b.bytes -= len(c.data)
		p.ended++
		b.moved.Broadcast()
	}
	if b.files[n] == p {
		delete(b.files, n)
	}
}

// drain waits until what was written to a file is with the host.
func (b *behind) drain(n fsrpc.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.files[n]; p != nil {
		b.wait(p)
	}
}

// drainFile is drain for one that is open, whatever session it is of.
func (b *behind) drainFile(h *file) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h.last != nil {
		b.wait(h.last)
	}
}

// drainAll is drain for every file.
func (b *behind) drainAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*pending, 0, len(b.files))
	for _, p := range b.files {
		all = append(all, p)
	}
	for _, p := range all {
		b.wait(p)
	}
}

// wait waits for what p has now; b.mu is held.
func (b *behind) wait(p *pending) {
	for until := p.added; p.ended < until; {
		b.moved.Wait()
	}
}

// any reports whether anything waits.
func (b *behind) any() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.files) > 0
}

// waits reports whether something of a file does.
func (b *behind) waits(n fsrpc.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.files[n] != nil
}

// told takes the error that a write to h had after it was answered, for a program that
// looks at it.
func (b *behind) told(h *file) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := h.failed
	h.failed = nil
	return err
}

// closed takes it for a close, whose error few programs look at and one that ends can't:
// so it is also kept for Sync.
func (b *behind) closed(h *file) error {
	err := b.told(h)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost == nil {
		b.lost = err
	}
	return err
}

// takeLost returns the first error that perhaps no program knows, once.
func (b *behind) takeLost() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.lost
	b.lost = nil
	return err
}

// mayWait reports whether a write may be answered before the host has it. Not what
// the kernel writes back from mappings, since it takes the answer for the end of it, nor what
// was asked to be synchronous. Appends are where the host says.
func mayWait(h *file, in *fuse.WriteIn) bool {
	const sync = unix.O_SYNC | unix.O_DSYNC | unix.O_DIRECT
	return !h.appends && in.WriteFlags&fuse.WRITE_CACHE == 0 && in.Flags&(sync|unix.O_APPEND) == 0
}
