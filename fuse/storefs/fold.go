package storefs

import (
	"hash/maphash"

	"winvm/transport/wire"
)

var foldSeed = maphash.MakeSeed()

// A foldIndex finds names without regard to case: a hash table with open
// addressing of entry numbers plus one, six bytes an entry. The names themselves stay
// where they are.
type foldIndex struct{ slots []uint32 }

// newFoldIndex indexes n names.
func newFoldIndex(n int, name func(int) string) *foldIndex {
	x := &foldIndex{make([]uint32, n+n/2+1)}
	for i := range n {
		at := x.start(wire.FoldName(name(i)))
		for x.slots[at] != 0 {
			at = x.next(at)
		}
		x.slots[at] = uint32(i) + 1
	}
	return x
}

func (x *foldIndex) start(folded string) int {
	return int(maphash.String(foldSeed, folded) % uint64(len(x.slots)))
}

func (x *foldIndex) next(at int) int { return (at + 1) % len(x.slots) }

// find returns the first entry whose name is the given one but for case.
func (x *foldIndex) find(name string, at func(int) string) (int, bool) {
	folded := wire.FoldName(name)
	for slot := x.start(folded); x.slots[slot] != 0; slot = x.next(slot) {
		if i := int(x.slots[slot] - 1); wire.FoldName(at(i)) == folded {
			return i, true
		}
	}
	return 0, false
}

// realName finds the child of directory dir whose name is the given one but for
// case.
func (s *section) realName(dir uint32, name string) (string, bool) {
	if _, ok := s.meta.Lookup(dir, name); ok {
		return name, true
	}
	d := s.meta.Entry(dir)
	at := func(i int) string { return s.meta.Name(d.First + uint32(i)) }
	if i, ok := s.index(dir, int(d.Count), at).find(name, at); ok {
		return at(i), true
	}
	return "", false
}

func (s *section) index(dir uint32, n int, at func(int) string) *foldIndex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folds == nil {
		s.folds = map[uint32]*foldIndex{}
	}
	x := s.folds[dir]
	if x == nil {
		x = newFoldIndex(n, at)
		s.folds[dir] = x
	}
	return x
}
