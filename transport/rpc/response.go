package rpc

// A Response is what a Handler fills in. Its zero value is an empty body. What it
// returns to be filled in is to be written only: it can be memory that the peer sees,
// and changes.
type Response struct {
	buf    []byte // header and body; the header alone if the body is in room
	room   []byte // memory of the caller's, for a large body; nil: none
	shared int    // how many bytes of the body are in room; 0: it is in buf
}

// NewResponse returns the Response of a request that came some other way than over a
// connection of [Serve]. What a handler wants at once of LaneMin bytes or more is taken
// from room, if it is large enough.
func NewResponse(room []byte) *Response { return &Response{room: room} }

// Body is what was added so far.
func (r *Response) Body() []byte {
	switch {
	case r.shared > 0:
		return r.room[:r.shared]
	case len(r.buf) > headerSize:
		return r.buf[headerSize:]
	default:
		return nil
	}
}

// Append adds to the body.
func (r *Response) Append(b []byte) { copy(r.Grow(len(b)), b) }

// Grow adds n bytes to the body, to be filled in by the handler.
func (r *Response) Grow(n int) []byte {
	if r.shared == 0 && len(r.buf) <= headerSize && n >= LaneMin && n <= len(r.room) {
		r.shared = n
		return r.room[:n]
	}
	if old := r.shared; old > 0 {
		if old+n <= len(r.room) {
			r.shared += n
			return r.room[old : old+n]
		}
		r.shared = 0
		r.reserve(old + n)
		r.buf = append(r.buf, r.room[:old]...)
		r.room = nil
	}
	r.reserve(n)
	old := len(r.buf)
	r.buf = r.buf[:old+n]
	return r.buf[old:]
}

// Shrink takes the last n bytes of the body away again.
func (r *Response) Shrink(n int) {
	if r.shared > 0 {
		r.shared -= n
		return
	}
	r.buf = r.buf[:len(r.buf)-n]
}

// reserve makes room for n more bytes and, at first, for the header before them.
func (r *Response) reserve(n int) {
	if cap(r.buf) == 0 {
		r.buf = getBuffer(headerSize + n)[:headerSize]
	}
	if need := len(r.buf) + n; need > cap(r.buf) {
		old := r.buf
		r.buf = append(getBuffer(need)[:0], old...)
		putBuffer(old)
	}
}
