package treefs

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

const (
	// absentDirs is how many directories' names are known at a time.
	absentDirs = 64
	// absentMisses is how many names must be asked for in vain, within the
	// time that names are believed, until a directory's names are fetched.
	absentMisses = 4
	// absentPieces is how many listings that may take; a larger directory is asked.
	absentPieces = 2
)

// absent knows which names are not in directories where programs look in vain: before a
// file is made, along a search path, and under Windows in several spellings. It fetches the
// names of such a directory once in Config.EntryTimeout and adds those that are made through
// the mount. A name that isn't among them isn't asked for; one that is always is.
type absent struct {
	f *FS

	mu   sync.Mutex
	s    *session
	dirs map[fsrpc.NodeID]*names
	work sync.WaitGroup
}

// names are those of a directory.
type names struct {
	begun    time.Time // the fetch, or the counting of misses
	misses   int
	fetching bool
	known    bool // names and folded are all there were at begun, and more
	names    map[string]bool
	folded   map[string]bool
}

func (n *names) add(name string) {
	n.names[name] = true
	n.folded[wire.FoldName(name)] = true
}

// lacks reports whether a directory is known not to have a name; with fold, in no case.
func (a *absent) lacks(s *session, dir fsrpc.NodeID, name string, fold bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.dirs[dir]
	if n == nil || a.s != s || !n.known || time.Since(n.begun) >= a.f.cfg.EntryTimeout {
		return false
	}
	if fold {
		return !n.folded[wire.FoldName(name)]
	}
	return !n.names[name]
}

// making notes that a name is about to be made, and the function it returns that it
// was: a listing that was fetched in between may lack it.
func (a *absent) making(dir fsrpc.NodeID, name string) (made func()) {
	a.add(dir, name)
	return func() { a.add(dir, name) }
}

func (a *absent) add(dir fsrpc.NodeID, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.dirs[dir]; n != nil && n.names != nil {
		n.add(name)
	}
}

// listed notes names that a listing has shown: a program that asks for one of them next must
// not be told that it isn't there, though it was made on the host since the names were fetched.
func (a *absent) listed(s *session, dir fsrpc.NodeID, entries []fsrpc.DirEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.dirs[dir]
	if n == nil || n.names == nil || a.s != s {
		return
	}
	for i := range entries {
		n.add(entries[i].Name)
	}
}

// empty notes that a directory was made through the mount at that time.
func (a *absent) empty(s *session, dir fsrpc.NodeID, begun time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.room(s)
	a.dirs[dir] = &names{
		begun: begun, misses: absentMisses, known: true,
		names: map[string]bool{}, folded: map[string]bool{},
	}
}

// missed notes that the host didn't have a name, and has the names fetched if that
// happens often.
func (a *absent) missed(s *session, dir fsrpc.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	n := a.room(s).dirs[dir]
	if n == nil {
		n = &names{begun: now}
		a.dirs[dir] = n
	}
	if n.fetching {
		return
	}
	if now.Sub(n.begun) >= a.f.cfg.EntryTimeout && !n.known {
		n.begun, n.misses = now, 0
	}
	if n.misses++; n.misses < absentMisses {
		return
	}
	n.begun, n.fetching, n.known = now, true, false
	n.names, n.folded = map[string]bool{}, map[string]bool{}
	a.work.Go(func() { a.fetch(s, dir, n) })
}

// room makes room for a directory of a session; a.mu is held.
func (a *absent) room(s *session) *absent {
	if a.s != s {
		a.s, a.dirs = s, map[fsrpc.NodeID]*names{}
	}
	for dir, n := range a.dirs {
		if len(a.dirs) < absentDirs {
			break
		}
		if !n.fetching {
			delete(a.dirs, dir)
		}
	}
	return a
}

// fetch lists a directory into n.
func (a *absent) fetch(s *session, dir fsrpc.NodeID, n *names) {
	list, ok := listNames(s, dir)
	a.mu.Lock()
	defer a.mu.Unlock()
	n.fetching, n.known = false, ok
	// As long as it goes on every miss after the time is up fetches again, but
	// what is too large is left alone for a while.
	n.misses = absentMisses
	if !ok {
		n.misses = -1 << 12
		n.names, n.folded = nil, nil
	}
	for _, name := range list {
		if ok {
			n.add(name)
		}
	}
}

// listNames lists a directory that isn't large.
func listNames(s *session, dir fsrpc.NodeID) (list []string, ok bool) {
	h, err := s.tree.Open(s.ctx, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, false
	}
	defer func() { _ = s.tree.Release(s.ctx, h) }()
	off := uint64(0)
	for range absentPieces + 1 {
		entries, err := s.tree.Readdir(s.ctx, h, off, fsrpc.MaxListing, false)
		if err != nil {
			return nil, false
		}
		if len(entries) == 0 {
			return list, true
		}
		for _, e := range entries {
			list = append(list, e.Name)
			off = e.Next
		}
	}
	return nil, false
}
