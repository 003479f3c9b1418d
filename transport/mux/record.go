package mux

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	// maxRecord is the length of a whole record, at most. Two full writes of
	// virtio_console (32 KiB each) and sixteen pages for the guest's read.
	maxRecord = 64 << 10

	headerLen  = 16
	trailerLen = 8
	maxPayload = maxRecord - headerLen - trailerLen
)

// The types of a record. Neither 0 (padding) nor magic[0] may become one.
const (
	typeData  = 1 // the payload is one yamux frame
	typeClose = 2 // no payload; the sender sends nothing after it
	typeBulk  = 3 // the payload is one frame of a bulk stream
)

// lane is one direction of a session: what its next record has to look like.
type lane struct {
	epoch uint32
	seal  uint64
	seq   uint32
}

// putHeader encodes the header of the next record into b.
func (l *lane) putHeader(b []byte, typ byte, length int) {
	binary.BigEndian.PutUint32(b[0:], uint32(typ)<<24|uint32(length))
	binary.BigEndian.PutUint32(b[4:], l.epoch)
	binary.BigEndian.PutUint32(b[8:], l.seq)
	binary.BigEndian.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
}

// putTrailer encodes the trailer of the next record into b.
func (l *lane) putTrailer(b []byte) {
	binary.BigEndian.PutUint64(b, l.seal^uint64(l.seq))
}

// recordHeader is a record's header, as it stands on the link.
type recordHeader struct {
	typ        byte
	length     int // of the payload
	epoch, seq uint32
}

// parseHeader takes a header apart, and checks its checksum and nothing else.
func parseHeader(b []byte) (h recordHeader, err error) {
	if got, want := binary.BigEndian.Uint32(b[12:]), crc32.Checksum(b[:12], castagnoli); got != want {
		return h, fmt.Errorf("%w: header % x: checksum %08x, want %08x", ErrRecord, b[:12], got, want)
	}
	return recordHeader{
		typ:    b[0],
		length: int(binary.BigEndian.Uint32(b[0:]) & 0xffffff),
		epoch:  binary.BigEndian.Uint32(b[4:]),
		seq:    binary.BigEndian.Uint32(b[8:]),
	}, nil
}

// check checks that a record of this type may have this length.
func (h *recordHeader) check() error {
	switch {
	case (h.typ == typeData || h.typ == typeBulk) && h.length >= frameLen && h.length <= maxPayload:
	case h.typ == typeClose && h.length == 0:
	default:
		return fmt.Errorf("%w: type %d with %d bytes", ErrRecord, h.typ, h.length)
	}
	return nil
}

// header checks the header of the next record.
func (l *lane) header(b []byte) (typ byte, length int, err error) {
	h, err := parseHeader(b)
	if err != nil {
		return 0, 0, err
	}
	if h.epoch != l.epoch {
		return 0, 0, fmt.Errorf("%w: epoch %08x, want %08x", ErrEpoch, h.epoch, l.epoch)
	}
	if h.seq != l.seq {
		return 0, 0, fmt.Errorf("%w: record %d came where %d was due", ErrRecord, h.seq, l.seq)
	}
	if err := h.check(); err != nil {
		return 0, 0, err
	}
	return h.typ, h.length, nil
}

// trailer checks the trailer of the next record. A header that is right with a
// trailer that isn't is a record cut in half, and then something else followed.
func (l *lane) trailer(b []byte) error {
	if binary.BigEndian.Uint64(b) != l.seal^uint64(l.seq) {
		return fmt.Errorf("%w: record %d doesn't end where it should", ErrRecord, l.seq)
	}
	return nil
}

// isPad reports whether b, where a header should be, is padding.
func isPad(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// yamux's frame header: version, type, flags, stream, length (yamux's spec.md).
const (
	frameLen = 12

	frameData   = 0
	frameWindow = 1
	framePing   = 2
	frameGoAway = 3

	flagSYN = 1
	flagFIN = 4
	flagRST = 8
)

type frame struct {
	typ    byte
	flags  uint16
	stream uint32
	length uint32
}

func parseFrame(b []byte) frame {
	return frame{
		typ:    b[1],
		flags:  binary.BigEndian.Uint16(b[2:]),
		stream: binary.BigEndian.Uint32(b[4:]),
		length: binary.BigEndian.Uint32(b[8:]),
	}
}

func (f frame) put(b []byte) {
	b[0], b[1] = 0, f.typ
	binary.BigEndian.PutUint16(b[2:], f.flags)
	binary.BigEndian.PutUint32(b[4:], f.stream)
	binary.BigEndian.PutUint32(b[8:], f.length)
}

func (f frame) has(flag uint16) bool { return f.flags&flag != 0 }

// hasBody reports whether a body follows the frame's header.
func (f frame) hasBody() bool { return f.typ == frameData && f.length > 0 }

// checkFrame checks that payload is one yamux frame that the peer may send, and
// keeps from yamux what it wouldn't bound itself.
func checkFrame(payload []byte, peer role) (frame, error) {
	f := parseFrame(payload)
	body := len(payload) - frameLen
	switch {
	case payload[0] != 0:
		return f, fmt.Errorf("%w: yamux version %d", ErrProtocol, payload[0])
	case f.typ == framePing:
		// yamux starts a goroutine for each, and we never ask for one.
		return f, fmt.Errorf("%w: yamux ping", ErrProtocol)
	case f.typ > frameGoAway:
		return f, fmt.Errorf("%w: yamux frame of type %d", ErrProtocol, f.typ)
	case f.typ == frameData && int64(f.length) != int64(body), f.typ != frameData && body != 0:
		return f, fmt.Errorf("%w: yamux frame of type %d and length %d in a record with %d bytes for it",
			ErrProtocol, f.typ, f.length, body)
	case f.typ != frameGoAway && f.flags&flagSYN != 0 && !opens(peer, f.stream):
		return f, fmt.Errorf("%w: yamux stream %d is not the peer's to open", ErrProtocol, f.stream)
	}
	return f, nil
}

// opens reports whether a stream of this number is r's to open: the host, as
// yamux's client, opens odd ones.
func opens(r role, stream uint32) bool {
	return stream != 0 && (stream%2 == 1) == (r == roleHost)
}

// checkBulk checks that head, with a body of that many bytes behind it, is a frame of a
// bulk stream that the peer may send. It has the layout of yamux's.
func checkBulk(head []byte, body int, peer role) (frame, error) {
	f := parseFrame(head)
	switch {
	case head[0] != 0 || f.typ > frameWindow || f.flags&^(flagSYN|flagFIN|flagRST) != 0:
		return f, fmt.Errorf("%w: bulk frame % x", ErrProtocol, head)
	case f.typ == frameData && int64(f.length) != int64(body), f.typ == frameWindow && body != 0:
		return f, fmt.Errorf("%w: bulk frame of type %d and length %d in a record with %d bytes for it",
			ErrProtocol, f.typ, f.length, body)
	case f.has(flagSYN) && (f.typ != frameData || !opens(peer, f.stream)):
		return f, fmt.Errorf("%w: bulk stream %d is not the peer's to open", ErrProtocol, f.stream)
	}
	return f, nil
}
