package storefs

import (
	"container/list"
	"context"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"winvm/transport/fsrpc"
)

// Small files are read ahead of need: see the package documentation.
const (
	smallFile   = 64 << 10 // what is longer the kernel reads ahead itself
	firstWindow = 8        // files
	lastWindow  = fsrpc.MaxBatch / 2
	maxStreams  = 16
	maxAhead    = 32 << 20 // bytes that were fetched and not asked for yet
	maxUnknown  = 4        // files in a row that the kernel doesn't know, before it is asked about no more
)

// ahead holds what one session has fetched ahead of need, and decides what that is.
type ahead struct {
	fs *FS
	s  *session

	mu      sync.Mutex
	files   map[uint64]*aheadFile // by nodeid
	batches list.List             // of *batch that have come, the oldest first
	bytes   int                   // of all batches, also of those on their way
	streams [maxStreams]stream
	clock   uint64
}

// An aheadFile is a file of a batch. Its fields but wanted don't change once the
// batch has come.
type aheadFile struct {
	batch  *batch
	sec    *section
	i      uint32
	data   []byte
	failed bool // it has to be read by itself
	wanted bool // a request waits for it; guarded by ahead.mu
}

// A batch is one request for many files.
type batch struct {
	come   chan struct{} // closed when it has, or when there is none to come
	files  []*aheadFile
	marker uint64 // nodeid of the file at which the next batch is fetched
	size   int
	left   int           // files that nobody has asked for; guarded by ahead.mu
	elem   *list.Element // in ahead.batches
}

func newAhead(fs *FS, s *session) *ahead {
	return &ahead{fs: fs, s: s, files: map[uint64]*aheadFile{}}
}

// take returns a file's bytes if they have been fetched, or are on their way.
func (a *ahead) take(cancel <-chan struct{}, p place, off uint64, length int) ([]byte, bool, fuse.Status) {
	a.mu.Lock()
	nodeid := p.sec.base + uint64(p.i)
	f := a.files[nodeid]
	if f != nil {
		f.wanted = true
	}
	a.mu.Unlock()
	if f == nil {
		return nil, false, fuse.OK
	}
	select {
	case <-f.batch.come:
	case <-a.s.ctx.Done():
		return nil, false, fuse.EIO
	case <-cancel:
		return nil, false, fuse.EINTR
	}
	if f.failed {
		return nil, false, fuse.OK
	}
	data := f.data[min(off, uint64(len(f.data))):]
	if len(data) <= length { // the last of it
		p.sec.noteRead(p.i)
		a.mu.Lock()
		a.drop(f)
		a.mu.Unlock()
	}
	a.used(p)
	return data[:min(len(data), length)], true, fuse.OK
}

// drop forgets a file. mu is held.
func (a *ahead) drop(f *aheadFile) {
	nodeid := f.sec.base + uint64(f.i)
	if a.files[nodeid] != f {
		return
	}
	delete(a.files, nodeid)
	if f.batch.left--; f.batch.left == 0 {
		a.bytes -= f.batch.size
		if f.batch.elem != nil {
			a.batches.Remove(f.batch.elem)
		}
	}
}

// room drops the oldest batches until n bytes more may be fetched. mu is held.
func (a *ahead) room(n int) bool {
	for a.bytes+n > maxAhead && a.batches.Len() > 0 {
		for _, f := range a.batches.Front().Value.(*batch).files {
			a.drop(f)
		}
	}
	return a.bytes+n <= maxAhead
}

// used notes that a program has come to a file that was fetched ahead: at the marked
// one it is time for more.
func (a *ahead) used(p place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	nodeid := p.sec.base + uint64(p.i)
	for i := range a.streams {
		if st := &a.streams[i]; st.marker == nodeid && st.sec == p.sec {
			st.marker, st.last = 0, p.i
			a.grow(st)
			a.launch(st)
			return
		}
	}
}

// missed notes that a small file had to be read by itself.
func (a *ahead) missed(p place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st, known := a.stream(p)
	if !known {
		return // a first one: nothing says that there will be others
	}
	if p.sec.meta.Parent(st.last) != p.sec.meta.Parent(p.i) {
		st.walks = true
	}
	if st.next == p.i {
		a.grow(st) // all that was fetched has been used
	}
	st.last = p.i
	if !st.busy {
		st.cur = cursorAt(p.sec.meta, p.i)
		a.launch(st)
	}
}

func (a *ahead) grow(st *stream) { st.window = min(2*st.window, lastWindow) }

// launch fetches a stream's next window. mu is held.
func (a *ahead) launch(st *stream) {
	if st.busy || a.s.over() {
		return
	}
	b := &batch{come: make(chan struct{})}
	var ids []fsrpc.FileID
	ordinal := a.s.ordinals[st.sec.base]
	meta := st.sec.meta
	for steps := maxSteps; len(ids) < st.window && steps > 0; steps-- {
		next := st.cur
		i, ok := next.advance(meta, st.walks)
		if !ok {
			st.next = 0
			break
		}
		size := meta.Size(i)
		_, have := a.files[st.sec.base+uint64(i)]
		if have || size == 0 || size > smallFile || st.sec.wasRead(i) {
			st.cur = next
			continue
		}
		if st.next = i; b.size+int(size)+fsrpc.BatchOverhead*(len(ids)+1) > fsrpc.MaxData || !a.room(b.size+int(size)) {
			break
		}
		st.cur, st.next = next, 0
		b.files = append(b.files, &aheadFile{batch: b, sec: st.sec, i: i})
		b.size += int(size)
		ids = append(ids, fsrpc.FileID{Section: ordinal, Entry: i})
	}
	if len(ids) == 0 {
		return
	}
	if st.next == 0 {
		st.next = st.cur.peek(meta, st.walks)
	}
	for _, f := range b.files {
		a.files[st.sec.base+uint64(f.i)] = f
	}
	b.left = len(b.files)
	a.bytes += b.size
	b.marker = st.sec.base + uint64(ids[len(ids)/2].Entry)
	st.busy, st.marker = true, b.marker
	a.fs.work.Go(func() {
		a.fetch(a.s.ctx, b, ids)
		a.mu.Lock()
		st.busy = false
		a.mu.Unlock()
		a.store(b)
	})
}

// fetch asks for a batch and takes it apart.
func (a *ahead) fetch(ctx context.Context, b *batch, ids []fsrpc.FileID) {
	buf := make([]byte, b.size, b.size+fsrpc.BatchOverhead*len(ids))
	got, err := a.s.store.ReadBatch(ctx, ids, buf)
	if err != nil && ctx.Err() == nil {
		a.fs.cfg.Logger.Warn("storefs: reading ahead failed; files are read one by one", "files", len(ids), "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, f := range b.files {
		if err != nil || got[i].Err != nil || uint64(got[i].N) != f.sec.meta.Size(f.i) {
			f.failed = true
			a.drop(f)
			if err == nil {
				buf = buf[got[i].N:]
			}
			continue
		}
		f.data, buf = buf[:got[i].N:got[i].N], buf[got[i].N:]
	}
	if b.left > 0 {
		b.elem = a.batches.PushBack(b)
	}
	close(b.come)
}

// store puts a batch's files into the kernel's cache, those that it knows and nobody
// waits for, so that it need not ask. For the marked one it has to, which tells how far
// its reader is.
func (a *ahead) store(b *batch) {
	server := a.fs.mount.Server()
	unknown := 0
	for _, f := range b.files {
		a.mu.Lock()
		nodeid := f.sec.base + uint64(f.i)
		skip := f.failed || f.wanted || a.files[nodeid] != f || nodeid == b.marker
		a.mu.Unlock()
		if skip {
			continue
		}
		if !server.InodeNotifyStoreCache(nodeid, 0, f.data).Ok() {
			if unknown++; unknown == maxUnknown {
				return
			}
			continue
		}
		unknown = 0
		f.sec.noteRead(f.i)
		a.mu.Lock()
		if !f.wanted {
			a.drop(f)
		}
		a.mu.Unlock()
	}
}
