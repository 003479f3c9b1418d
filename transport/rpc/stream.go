package rpc

import (
	"bufio"
	"io"
	"sync"
)

const (
	// readBuffer is what the reader takes off the stream at once; a large body goes
	// past it to where it belongs.
	readBuffer = 4 << 10
	// largeBody is from how many bytes on a body is worth calls of its own.
	largeBody = 32 << 10
)

// What a stream may have, to save copies; *mux.Stream has both.
type (
	// fullReader reads until p is full, as io.ReadFull does.
	fullReader interface {
		ReadFull(p []byte) (int, error)
	}
	// partsWriter writes head and body, one after the other.
	partsWriter interface {
		WriteParts(head, body []byte) (int, error)
	}
)

// readBody fills p from r, which reads from conn: what r hasn't got comes straight
// from conn if that can do so.
func readBody(r *bufio.Reader, conn io.Reader, p []byte) error {
	full, ok := conn.(fullReader)
	if !ok || len(p) < largeBody {
		_, err := io.ReadFull(r, p)
		return err
	}
	n, err := io.ReadFull(r, p[:min(r.Buffered(), len(p))])
	if err == nil && n < len(p) {
		var k int
		if k, err = full.ReadFull(p[n:]); err == io.EOF && n+k > 0 { //nolint:errorlint // as io.ReadFull
			err = io.ErrUnexpectedEOF
		}
	}
	return err
}

// writeParts writes head and body; buf is memory for both, which it returns.
func writeParts(conn io.Writer, head, body, buf []byte) ([]byte, error) {
	if w, ok := conn.(partsWriter); ok && len(body) >= largeBody {
		_, err := w.WriteParts(head, body)
		return buf, err
	}
	buf = append(append(buf[:0], head...), body...)
	_, err := conn.Write(buf)
	return buf, err
}

// buffers are large ones that are not in use.
var buffers sync.Pool

// getBuffer returns n bytes, of whatever content.
func getBuffer(n int) []byte {
	if n >= largeBody {
		if b, ok := buffers.Get().(*[]byte); ok && cap(*b) >= n {
			return (*b)[:n]
		}
	}
	return make([]byte, n)
}

// putBuffer ends the use of a buffer.
func putBuffer(b []byte) {
	if cap(b) >= largeBody {
		poison(b[:cap(b)])
		buffers.Put(&b)
	}
}
