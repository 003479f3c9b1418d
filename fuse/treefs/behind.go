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
	files map[nodeOfSession]*pending // those of which something waits
	lost  error                      // the first error that perhaps no program knows
	work  sync.WaitGroup
}

// nodeOfSession is a file: a NodeID means something in its session only.
type nodeOfSession struct {
	s *session
	n fsrpc.NodeID
}

// pending is what waits of one file.
type pending struct {
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
	b.files = map[nodeOfSession]*pending{}
}

// add takes data, which the caller keeps, to be written to h's file.
func (b *behind) add(h *file, off uint64, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.bytes > 0 && b.bytes+len(data) > behindLimit {
		b.moved.Wait()
	}
	b.bytes += len(data)
	key := nodeOfSession{h.s, h.node}
	p := b.files[key]
	if p == nil {
		p = &pending{}
		b.files[key] = p
		b.work.Go(func() { b.send(key, p) })
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
func (b *behind) send(key nodeOfSession, p *pending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p.queue) > 0 {
		c := p.queue[0]
		p.queue = p.queue[1:]
		b.mu.Unlock()
		err := b.f.room(key.s, 0, "", func() error {
			_, err := key.s.tree.Write(key.s.ctx, c.h.id, c.off, c.data)
			return err
		})
		b.f.changes.mark(key.n)
		b.mu.Lock()
		if err != nil && c.h.failed == nil {
			c.h.failed = err
		}
		b.bytes -= len(c.data)
		p.ended++
		b.moved.Broadcast()
	}
	delete(b.files, key)
}

// drain waits until what was written to a file is with the host.
func (b *behind) drain(s *session, n fsrpc.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.files[nodeOfSession{s, n}]; p != nil {
		b.wait(p)
	}
}

// drainFile is drain for what was written through one descriptor.
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
func (b *behind) waits(s *session, n fsrpc.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.files[nodeOfSession{s, n}] != nil
}

// next tells the next write of the error that one before it had after it was answered.
// The kernel makes a short count of it if it has cut a write(2) in two and told one half
// already, so it is told again by what follows.
func (b *behind) next(h *file) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h.warned {
		return nil
	}
	h.warned = h.failed != nil
	return h.failed
}

// told takes the error, for a program that looks at it.
func (b *behind) told(h *file) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := h.failed
	h.failed, h.warned = nil, false
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
