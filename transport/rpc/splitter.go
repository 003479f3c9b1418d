package rpc

import "fmt"

// A Frame is a request or a response on a stream that others use.
type Frame struct {
	Tag   uint32
	Op    uint16
	Errno uint16 // of a response
	Body  []byte // what of it is on the stream; valid until the function it is given to returns

	// Length is that of the whole body, wherever it is.
	Length int
	// Slot is the slot of the shared-memory lane that a request names: InSlot bytes of
	// the body are there, or there is Room for that many of the response's. Of a
	// response whose body is in a slot only InSlot is known.
	HasSlot            bool
	Slot, InSlot, Room uint32
}

// A Splitter takes apart one direction of a stream, without a part in it.
type Splitter struct {
	Responses bool
	MaxBody   uint32 // a frame with more on the stream breaks the rules
	buf       []byte
}

// Reset forgets what has come of a frame.
func (s *Splitter) Reset() { s.buf = s.buf[:0] }

// Pending is how many bytes have come of a frame that isn't complete.
func (s *Splitter) Pending() int { return len(s.buf) }

// Write takes bytes of the stream and gives each the frames that are complete. After an
// error, which wraps [ErrProtocol], the bytes are forgotten: the next ones are taken for
// the beginning of a frame.
func (s *Splitter) Write(p []byte, each func(Frame)) error {
	s.buf = append(s.buf, p...)
	rest := s.buf
	for {
		f, n, err := s.parse(rest)
		if err != nil {
			s.Reset()
			return err
		}
		if n == 0 {
			s.buf = append(s.buf[:0], rest...)
			return nil
		}
		each(f)
		rest = rest[n:]
	}
}

// Plausible reports whether p can be the beginning of a frame that known knows the op
// of: for who comes to a stream in its middle.
func (s *Splitter) Plausible(p []byte, known func(op uint16) bool) bool {
	if len(p) < headerSize {
		return false
	}
	h := parseHeader(p)
	return known(h.op) && s.check(h) == nil
}

func (s *Splitter) check(h header) error {
	length := h.length
	if s.Responses && h.errno == inLane {
		length = 0
	}
	switch {
	case length > s.MaxBody, s.Responses && h.errno != 0 && h.errno != inLane && length > maxErrorText:
		return protocolError("body of %d bytes, op %d, last field %d", h.length, h.op, h.errno)
	case s.Responses && h.errno > maxErrno && h.errno != inLane, !s.Responses && h.errno > laneRoom:
		return protocolError("op %d, last field %d", h.op, h.errno)
	}
	return nil
}

func (s *Splitter) parse(b []byte) (f Frame, n int, err error) {
	if len(b) < headerSize {
		return f, 0, nil
	}
	h := parseHeader(b)
	if err := s.check(h); err != nil {
		return f, 0, err
	}
	f = Frame{Tag: h.tag, Op: h.op, Length: int(h.length)}
	n = headerSize
	body := int(h.length)
	switch {
	case s.Responses && h.errno == inLane:
		f.HasSlot, f.InSlot = true, h.length
		body = 0
	case s.Responses:
		f.Errno = h.errno
	case h.errno != 0:
		if n += laneSize; len(b) < n {
			return f, 0, nil
		}
		p := parsePlace(b[headerSize:])
		f.HasSlot, f.Slot = true, p.slot
		if h.errno == laneTail {
			f.InSlot = p.length
			f.Length += int(p.length)
		} else {
			f.Room = p.length
		}
	}
	if len(b) < n+body {
		return f, 0, nil
	}
	f.Body = b[n : n+body]
	return f, n + body, nil
}

func (f Frame) String() string { return fmt.Sprintf("op %d tag %d", f.Op, f.Tag) }
