package storefs

import (
	"context"
	"sort"
	"sync"

	"winvm/transport/fsrpc"
)

// A session is one Store's time. Once in place nothing in it changes, but for the
// index of names, which is made when first needed, and what is read ahead.
type session struct {
	seq      uint64
	store    fsrpc.Store
	outputs  bool              // there is a Tree for other names
	sections []*section        // by ordinal, which is by name
	ordinals map[uint64]uint32 // by base
	ahead    *ahead
	ctx      context.Context // of every request
	cancel   context.CancelFunc

	foldOnce sync.Once
	fold     *foldIndex
}

func newSession(fs *FS, seq uint64, store fsrpc.Store, outputs bool, sections []*section) *session {
	s := &session{seq: seq, store: store, outputs: outputs, sections: sections, ordinals: make(map[uint64]uint32, len(sections))}
	for i, sec := range sections {
		s.ordinals[sec.base] = uint32(i)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.ahead = newAhead(fs, s)
	return s
}

// over reports whether another session, or none, is in place.
func (s *session) over() bool { return s.ctx.Err() != nil }

// has reports whether a section is part of the session.
func (s *session) has(sec *section) bool {
	_, ok := s.ordinals[sec.base]
	return ok
}

// section finds one by name; nil for none.
func (s *session) section(name string) *section {
	i := sort.Search(len(s.sections), func(i int) bool { return s.sections[i].key.name >= name })
	if i < len(s.sections) && s.sections[i].key.name == name {
		return s.sections[i]
	}
	return nil
}

// hides reports whether a section takes a name that outputs may have too.
func (s *session) hides(name string) bool { return s.section(name) != nil }

// realName finds the section whose name is the given one but for case.
func (s *session) realName(name string) (string, bool) {
	if s.hides(name) {
		return name, true
	}
	at := func(i int) string { return s.sections[i].key.name }
	s.foldOnce.Do(func() { s.fold = newFoldIndex(len(s.sections), at) })
	if i, ok := s.fold.find(name, at); ok {
		return at(i), true
	}
	return "", false
}
