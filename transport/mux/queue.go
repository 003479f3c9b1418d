package mux

import "sync"

// A chunk holds bytes of a stream that nobody has read yet.
type chunk struct {
	buf    []byte // its capacity is the chunk's
	read   int    // how many of them have been
	pooled bool
}

const (
	minChunk  = 4 << 10
	fullChunk = maxRecord
)

// chunks are those of fullChunk bytes that are not in use.
var chunks = sync.Pool{New: func() any { return new([fullChunk]byte) }}

// newChunk returns one with room for n bytes, n <= fullChunk, and at most twice that
// if n is more than minChunk.
func newChunk(n int) *chunk {
	switch {
	case n > fullChunk/2:
		return &chunk{buf: chunks.Get().(*[fullChunk]byte)[:0], pooled: true}
	default:
		return &chunk{buf: make([]byte, 0, max(n, minChunk))}
	}
}

// free gives a chunk's memory back.
func (c *chunk) free() {
	if c.pooled {
		poison(c.buf[:fullChunk])
		chunks.Put((*[fullChunk]byte)(c.buf[:fullChunk]))
	}
	c.buf = nil
}

// A queue is what a stream has received and nobody has read yet. It takes at most
// some twice the memory of what is in it and minChunk.
type queue struct {
	list []*chunk
	len  int
}

// put adds a chunk. What fits into the one before is copied there, so that many
// small ones don't take the memory of many large ones.
func (q *queue) put(c *chunk) {
	q.len += len(c.buf)
	if n := len(q.list); n > 0 {
		last := q.list[n-1]
		if len(c.buf) <= min(minChunk, cap(last.buf)-len(last.buf)) {
			last.buf = append(last.buf, c.buf...)
			c.free()
			return
		}
	}
	q.list = append(q.list, c)
}

// take moves what fits into p.
func (q *queue) take(p []byte) int {
	done := 0
	for done < len(p) && len(q.list) > 0 {
		c := q.list[0]
		n := copy(p[done:], c.buf[c.read:])
		done += n
		if c.read += n; c.read == len(c.buf) {
			c.free()
			q.list[0] = nil
			if q.list = q.list[1:]; len(q.list) == 0 {
				q.list = nil
			}
		}
	}
	q.len -= done
	return done
}

// drop throws everything away.
func (q *queue) drop() {
	for _, c := range q.list {
		c.free()
	}
	q.list, q.len = nil, 0
}
