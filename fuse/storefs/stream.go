package storefs

import "winvm/transport/wire"

// maxSteps is how many files are passed over at most in search of a window's.
const maxSteps = 4096

// A stream is a program's way through a section, as far as it can be seen: files that
// lie near each other are read one after the other.
type stream struct {
	sec    *section
	last   uint32 // the file that was seen last
	cur    cursor // how far has been fetched
	next   uint32 // the file with which what was not fetched begins; 0: none
	window int    // files to fetch at once
	marker uint64 // nodeid at which the next window is fetched; 0: none
	walks  bool   // it has gone from one directory to another
	busy   bool   // a batch is on its way
	seen   uint64 // ahead.clock
}

// stream returns the stream that a file belongs to; if there is none it begins one in
// the place of the longest unused. mu is held.
func (a *ahead) stream(p place) (st *stream, known bool) {
	a.clock++
	oldest := &a.streams[0]
	for i := range a.streams {
		st := &a.streams[i]
		if st.sec == p.sec && near(p.sec.meta, st.last, p.i) {
			st.seen = a.clock
			return st, true
		}
		if st.seen < oldest.seen && !st.busy || oldest.busy {
			oldest = st
		}
	}
	if !oldest.busy {
		*oldest = stream{sec: p.sec, last: p.i, window: firstWindow, seen: a.clock}
	}
	return oldest, false
}

// near: in the same directory, or in one beside, above or below it.
func near(m *wire.Section, a, b uint32) bool {
	if a == 0 || b == 0 {
		return false
	}
	a, b = m.Parent(a), m.Parent(b)
	return a == b || a != 0 && m.Parent(a) == b || b != 0 && m.Parent(b) == a ||
		a != 0 && b != 0 && m.Parent(a) == m.Parent(b)
}

// A cursor goes through a section's files from some place on: the rest of the
// directory's files, then its directories, and so on up.
//
// Programs differ in whether they read a directory's files before its directories or
// as they are listed. In this order either finds before it, mostly, what it is about to
// read.
type cursor struct {
	i    uint32 // the entry passed last
	stop uint32 // one behind the last of the directory's entries
	dirs bool   // it is the turn of directories
	from uint32 // where they begin
}

// cursorAt stands behind a file.
func cursorAt(m *wire.Section, i uint32) cursor {
	if i == 0 {
		return cursor{}
	}
	first, count := m.Children(m.Parent(i))
	return cursor{i: i, stop: first + count, from: first}
}

// advance goes to the next file, in this directory alone unless walk is set.
func (c *cursor) advance(m *wire.Section, walk bool) (uint32, bool) {
	for c.stop > 0 {
		for c.i+1 < c.stop {
			c.i++
			switch kind := m.Kind(c.i); {
			case kind == wire.KindFile && !c.dirs:
				return c.i, true
			case kind == wire.KindDir && c.dirs:
				if first, count := m.Children(c.i); count > 0 {
					*c = cursor{i: first - 1, stop: first + count, from: first}
				}
			}
		}
		switch {
		case !walk:
			return 0, false
		case !c.dirs:
			c.dirs, c.i = true, c.from-1
		default:
			c.up(m)
		}
	}
	return 0, false
}

// up goes on behind the directory in the one above: with the files there, then with
// the directories behind this one.
func (c *cursor) up(m *wire.Section) {
	dir := m.Parent(c.i)
	if dir == 0 {
		*c = cursor{}
		return
	}
	first, count := m.Children(m.Parent(dir))
	*c = cursor{i: dir, stop: first + count, from: dir + 1}
}

// peek returns the file that advance would come to; 0 if there is none.
func (c cursor) peek(m *wire.Section, walk bool) uint32 {
	i, _ := c.advance(m, walk)
	return i
}
