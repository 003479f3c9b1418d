package nixstore

import (
	"container/list"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// fileID names a file of a store.
type fileID struct{ section, entry uint32 }

// An openFile is a file that is open for reading.
type openFile struct {
	id   fileID
	fd   int
	uses int           // guarded by fileCache.mu
	elem *list.Element // in fileCache.idle, if nobody uses it
}

// fileCache keeps files open between reads: those last used, at most limit, and
// beyond that only those in use.
type fileCache struct {
	open func(fileID) (int, error)

	mu    sync.Mutex
	limit int
	files map[fileID]*openFile
	idle  list.List // of *openFile, the one unused longest in front
}

func (c *fileCache) init(limit int, open func(fileID) (int, error)) {
	c.limit, c.open, c.files = limit, open, map[fileID]*openFile{}
	c.idle.Init()
}

// get opens a file or takes one that is open; put must follow.
func (c *fileCache) get(id fileID) (*openFile, error) {
	if f := c.have(id, -1); f != nil {
		return f, nil
	}
	// Not under the lock: an open can take long. Two can open the same file;
	// one of the descriptors goes.
	fd, err := c.open(id)
	if err != nil {
		return nil, err
	}
	return c.have(id, fd), nil
}

// have takes the file if it is open. fd, if not -1, is it, newly opened.
func (c *fileCache) have(id fileID, fd int) *openFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[id]
	if f != nil && fd >= 0 {
		_ = unix.Close(fd)
	}
	if f == nil && fd >= 0 {
		f = &openFile{id: id, fd: fd}
		c.files[id] = f
		c.shrink()
	}
	if f == nil {
		return nil
	}
	if f.elem != nil {
		c.idle.Remove(f.elem)
		f.elem = nil
	}
	f.uses++
	return f
}

// put ends the use of a file.
func (c *fileCache) put(f *openFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.uses--; f.uses > 0 {
		return
	}
	f.elem = c.idle.PushBack(f)
	c.shrink()
}

// shrink closes files nobody uses until there are no more than limit. mu is held.
func (c *fileCache) shrink() {
	for len(c.files) > c.limit && c.idle.Len() > 0 {
		f := c.idle.Remove(c.idle.Front()).(*openFile)
		delete(c.files, f.id)
		_ = unix.Close(f.fd)
	}
}

// close closes everything; nothing may be in use.
func (c *fileCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		_ = unix.Close(f.fd)
	}
	c.files = nil
	c.idle.Init()
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
