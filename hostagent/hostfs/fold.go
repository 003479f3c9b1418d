package hostfs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// Bounds of the indexes of folded names.
const (
	maxFoldDirs  = 256
	maxFoldNames = 1 << 20
	// foldAge is how long an index may live on nothing but our own changes.
	foldAge = time.Second
)

// stamp is what changes when a directory does.
type stamp struct{ mtime, ctime int64 }

// A foldIndex knows the names of one directory without their case. It may also
// know names that are gone: who uses an answer looks whether the file is there.
type foldIndex struct {
	dir   fsrpc.NodeID
	names map[string][]string // by folded name; nil: too many to keep
	count int
	stamp stamp
	built time.Time
	used  time.Time
	own   bool // we changed the directory since built
}

func (x *foldIndex) add(name string) {
	if x.names == nil {
		return
	}
	folded := wire.FoldName(name)
	same := x.names[folded]
	if slices.Contains(same, name) {
		return
	}
	if x.count++; x.count > maxFoldNames {
		x.names = nil
		return
	}
	x.names[folded] = append(same, name)
}

// foldCache holds the indexes that were asked for last. The zero value is ready.
type foldCache struct {
	mu    sync.Mutex
	dirs  map[fsrpc.NodeID]*foldIndex
	count int // names in all of them
	// building are the indexes of directories that are being listed, with the
	// names we made in them meanwhile, which the listing may lack.
	building map[*foldIndex][]string
}

// drop forgets a directory.
func (c *foldCache) drop(id fsrpc.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(id)
}

func (c *foldCache) dropLocked(id fsrpc.NodeID) {
	if x := c.dirs[id]; x != nil {
		c.count -= x.count
		delete(c.dirs, id)
	}
}

// changed notes that we changed a directory, and the name we made, if any.
func (c *foldCache) changed(id fsrpc.NodeID, made string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x, names := range c.building {
		if x.dir == id && made != "" {
			c.building[x] = append(names, made)
		}
	}
	x := c.dirs[id]
	if x == nil {
		return
	}
	x.own = true
	if made != "" {
		before := x.count
		x.add(made)
		c.count += x.count - before
	}
	if x.names == nil {
		c.dropLocked(id)
	}
}

// get answers from the index of a directory, if there is one that holds at now.
func (c *foldCache) get(id fsrpc.NodeID, folded string, now stamp) ([]string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.dirs[id]
	if x == nil {
		return nil, false
	}
	t := time.Now()
	young := t.Sub(x.built) < foldAge
	if x.stamp != now {
		if !x.own || !young {
			return nil, false
		}
		x.stamp = now
	}
	// A directory changed about when it was listed could have changed again
	// within the same tick of the file system's clock.
	settled := x.built.UnixNano()-max(x.stamp.mtime, x.stamp.ctime) > int64(foldAge)
	if !young && !settled {
		return nil, false
	}
	x.used = t
	return slices.Clone(x.names[folded]), true
}

// begin makes an index that is to be filled; end must follow.
func (c *foldCache) begin(id fsrpc.NodeID, now stamp) *foldIndex {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := &foldIndex{dir: id, names: map[string][]string{}, stamp: now, built: time.Now()}
	x.used = x.built
	if c.building == nil {
		c.building = map[*foldIndex][]string{}
	}
	c.building[x] = nil
	return x
}

// end takes an index in, if the listing was complete, and answers from it.
func (c *foldCache) end(x *foldIndex, complete bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := c.building[x]
	delete(c.building, x)
	for _, name := range late {
		x.own = true
		x.add(name)
	}
	c.dropLocked(x.dir)
	if !complete || x.names == nil {
		return
	}
	for len(c.dirs) >= maxFoldDirs || len(c.dirs) > 0 && c.count+x.count > maxFoldNames {
		var oldest *foldIndex
		for _, y := range c.dirs {
			if oldest == nil || y.used.Before(oldest.used) {
				oldest = y
			}
		}
		c.dropLocked(oldest.dir)
	}
	if c.dirs == nil {
		c.dirs = map[fsrpc.NodeID]*foldIndex{}
	}
	c.dirs[x.dir] = x
	c.count += x.count
}

// RealName implements fsrpc.Tree. Of several names the one that is equal wins,
// then the first in byte order.
func (fs *FS) RealName(ctx context.Context, parent fsrpc.NodeID, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	p, err := fs.dir(parent, name, false)
	if errors.Is(err, unix.ENOENT) { // a name that isn't allowed may be so in another case
		p, err = fs.pin(parent)
	}
	if err != nil {
		return "", err
	}
	defer fs.unpin(p)
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && fs.allowed(p, name) {
		return name, nil
	}
	found, err := fs.folded(p, wire.FoldName(name))
	if err != nil {
		return "", err
	}
	slices.Sort(found)
	for _, real := range found {
		if fs.allowed(p, real) && unix.Fstatat(p.fd, real, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return real, nil
		}
	}
	return "", unix.ENOENT
}

// folded lists the names in p that fold to folded, as far as the index knows.
func (fs *FS) folded(p *node, folded string) ([]string, error) {
	now, err := stampOf(p.fd)
	if err != nil {
		return nil, err
	}
	if found, ok := fs.fold.get(p.id, folded, now); ok {
		return found, nil
	}
	x := fs.fold.begin(p.id, now)
	var found []string
	err = fs.allNames(p, func(name string) {
		if wire.FoldName(name) == folded {
			found = append(found, name)
		}
		x.add(name)
	})
	fs.fold.end(x, err == nil)
	return found, err
}

func stampOf(fd int) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return stamp{}, err
	}
	return stamp{st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// allNames calls f with every name in a directory.
func (fs *FS) allNames(p *node, f func(string)) error {
	fd, err := fs.reopen(p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, listBuf)
	for {
		got, err := getdents(fd, buf)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil || len(got) == 0 {
			return err
		}
		for len(got) > 0 {
			var d dirent
			if d, got = parseDirent(got); d.name != "." && d.name != ".." {
				f(d.name)
			}
		}
	}
}
