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

type header struct {
	length uint32
	tag    uint32
	op     uint16
	errno  uint16
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
	return header{
		length: binary.LittleEndian.Uint32(buf[:]),
		tag:    binary.LittleEndian.Uint32(buf[4:]),
		op:     binary.LittleEndian.Uint16(buf[8:]),
		errno:  binary.LittleEndian.Uint16(buf[10:]),
	}, nil
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
