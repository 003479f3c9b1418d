package storefs

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// firstBase is the first nodeid of the first section. Bit 62 and above are not
// reached: 2^30 sections of the greatest size would be needed.
const firstBase = 1 << 20

// A sectionKey tells sections apart.
type sectionKey struct {
	name string
	hash [32]byte
}

// A section is a store path and what is known of it. Its nodeids are base plus the
// entry's number.
type section struct {
	key  sectionKey
	base uint64
	size uint64
	meta *wire.Section

	shown   atomic.Bool // the kernel may have its name in the root
	lastUse uint64      // guarded by registry.mu: number of the last session that had it

	mu    sync.Mutex
	folds map[uint32]*foldIndex // of directories that were asked for a real name
	read  []uint64              // bit i: the kernel was given the contents of entry i
}

// noteRead notes that the kernel has the contents of entry i.
func (s *section) noteRead(i uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil {
		s.read = make([]uint64, s.meta.Len()/64+1)
	}
	s.read[i/64] |= 1 << (i % 64)
}

// wasRead tells whether the kernel was given the contents of entry i. It may have
// dropped them.
func (s *section) wasRead(i uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read != nil && s.read[i/64]>>(i%64)&1 != 0
}

// noteDropped notes that the kernel asks for contents that it was given: as it needs
// memory, others are as likely to be gone.
func (s *section) noteDropped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = nil
}

// A registry holds the sections of this session and former ones.
type registry struct {
	mu     sync.RWMutex
	next   uint64 // the next section's base
	byKey  map[sectionKey]*section
	byBase []*section // in order
	bytes  uint64
}

// find returns the section and entry that a nodeid means.
func (r *registry) find(nodeid uint64) (*section, uint32, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i := sort.Search(len(r.byBase), func(i int) bool { return r.byBase[i].base > nodeid }) - 1
	if i < 0 {
		return nil, 0, false
	}
	s := r.byBase[i]
	if n := nodeid - s.base; n < uint64(s.meta.Len()) {
		return s, uint32(n), true
	}
	return nil, 0, false
}

// held returns the section if it is held.
func (r *registry) held(want *fsrpc.Section) *section {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byKey[sectionKey{want.Name, want.Hash}]
}

// add gives a section that isn't held yet its nodeids.
func (r *registry) add(sec *fsrpc.Section, meta *wire.Section) *section {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byKey == nil {
		r.byKey, r.next = map[sectionKey]*section{}, firstBase
	}
	s := &section{key: sectionKey{sec.Name, sec.Hash}, base: r.next, size: sec.Size, meta: meta}
	r.next += uint64(meta.Len())
	r.byKey[s.key] = s
	r.byBase = append(r.byBase, s)
	r.bytes += s.size
	return s
}

// all returns the sections held.
func (r *registry) all() []*section {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.byBase)
}

// used notes that the sections are those of session number seq, and drops the
// longest unused others until all take at most limit bytes.
func (r *registry) used(sections []*section, seq, limit uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range sections {
		s.lastUse = seq
	}
	if r.bytes <= limit {
		return
	}
	var old []*section
	for _, s := range r.byBase {
		if s.lastUse != seq {
			old = append(old, s)
		}
	}
	slices.SortStableFunc(old, func(a, b *section) int { return int(a.lastUse) - int(b.lastUse) })
	for _, s := range old {
		if r.bytes <= limit {
			break
		}
		r.bytes -= s.size
		delete(r.byKey, s.key)
	}
	r.byBase = slices.DeleteFunc(r.byBase, func(s *section) bool { return r.byKey[s.key] != s })
}
