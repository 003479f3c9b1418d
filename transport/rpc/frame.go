package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

const (
	headerSize   = 12
	maxErrorText = 1 << 10
	// maxErrno is the largest number that Linux gives a meaning to outside of the
	// kernel; FUSE refuses a reply with one of 512 and above, which would hang.
	maxErrno = 511
)

// ErrProtocol is wrapped by the error that ends a connection whose peer broke the
// rules of the framing.
var ErrProtocol = errors.New("rpc: protocol error")

// ErrClosed is returned by calls on a connection that has ended.
var ErrClosed = errors.New("rpc: connection closed")

// Error is a response's errno with the peer's text. errors.Is and errors.As find
// the syscall.Errno in it.
type Error struct {
	Errno syscall.Errno
	Text  string
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Errno }

// What the last field of a header says of the lane. A request's says how many
// bytes of what slot it is about, in 8 bytes more.
const (
	laneTail = 1 // request: the slot has the rest of the body
	laneRoom = 2 // request: the response's body may go into the slot

	inLane = 1 << 15 // response: the body is in the slot, not behind the header
)

// laneSize is the length of what follows the header of a request with a slot.
const laneSize = 8

// LaneMin is the least number of bytes for which a slot is worth it. Measured:
// docs/performance.md.
const LaneMin = 4 << 10

type header struct {
	length uint32
	tag    uint32
	op     uint16
	errno  uint16 // in a request: what a slot is for
}

func (h header) put(b []byte) {
	binary.LittleEndian.PutUint32(b, h.length)
	binary.LittleEndian.PutUint32(b[4:], h.tag)
	binary.LittleEndian.PutUint16(b[8:], h.op)
	binary.LittleEndian.PutUint16(b[10:], h.errno)
}

func readHeader(r io.Reader, buf *[headerSize]byte) (header, error) {
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return header{}, err
	}
	return parseHeader(buf[:]), nil
}

func parseHeader(b []byte) header {
	return header{
		length: binary.LittleEndian.Uint32(b),
		tag:    binary.LittleEndian.Uint32(b[4:]),
		op:     binary.LittleEndian.Uint16(b[8:]),
		errno:  binary.LittleEndian.Uint16(b[10:]),
	}
}

// place is what a request says of a slot.
type place struct{ slot, length uint32 }

func (p place) put(b []byte) {
	binary.LittleEndian.PutUint32(b, p.slot)
	binary.LittleEndian.PutUint32(b[4:], p.length)
}

func readPlace(r io.Reader) (place, error) {
	var b [laneSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return place{}, err
	}
	return parsePlace(b[:]), nil
}

func parsePlace(b []byte) place {
	return place{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
}

// closedError makes what ended a connection ErrClosed, unless it is ErrProtocol.
func closedError(err error) error {
	switch {
	case errors.Is(err, ErrProtocol):
		return err
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the peer hung up", ErrClosed)
	default:
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
