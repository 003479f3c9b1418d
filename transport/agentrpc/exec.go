package agentrpc

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"winvm/transport/rpc"
)

// A FrameKind is the kind of a frame on an exec stream.
//
//	frame   kind u8 | length u32, little endian | payload
type FrameKind uint8

// The kinds of frame. Host to controller: FrameStart once, FrameStdin,
// FrameStdinEOF, FrameResize, FrameSignal. Controller to host: FrameStdout,
// FrameStderr, FrameExit once, as the last.
const (
	FrameStart    FrameKind = iota + 1 // ExecStart as JSON
	FrameStdin                         // bytes
	FrameStdinEOF                      // nothing
	FrameResize                        // PTY as JSON
	FrameSignal                        // an SSH signal's name: INT, TERM, KILL
	FrameStdout                        // bytes
	FrameStderr                        // bytes
	FrameExit                          // ExecExit as JSON
)

func (k FrameKind) String() string {
	names := [...]string{
		FrameStart: "start", FrameStdin: "stdin", FrameStdinEOF: "stdin-eof", FrameResize: "resize",
		FrameSignal: "signal", FrameStdout: "stdout", FrameStderr: "stderr", FrameExit: "exit",
	}
	if k > 0 && int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// execHeader is the length of a frame's header.
const execHeader = 5

func parseExecHeader(h []byte) (kind FrameKind, length int, err error) {
	n := binary.LittleEndian.Uint32(h[1:])
	if n > MaxExecFrame {
		return 0, 0, fmt.Errorf("%w: exec frame of %d bytes", rpc.ErrProtocol, n)
	}
	return FrameKind(h[0]), int(n), nil
}

// CutExecFrame takes the first frame off b, for who is not a part of the conversation. n is
// how many bytes it has, 0 if it isn't complete.
func CutExecFrame(b []byte) (kind FrameKind, payload []byte, n int, err error) {
	if len(b) < execHeader {
		return 0, nil, 0, nil
	}
	kind, length, err := parseExecHeader(b)
	if err != nil || len(b) < execHeader+length {
		return 0, nil, 0, err
	}
	return kind, b[execHeader : execHeader+length], execHeader + length, nil
}

// MaxExecFrame is the most bytes one frame carries.
const MaxExecFrame = 64 << 10

// An ExecConn reads and writes the frames of an exec stream. One goroutine may
// read; any number may write.
type ExecConn struct {
	conn io.ReadWriteCloser
	r    *bufio.Reader
	buf  []byte

	mu   sync.Mutex // serialises writes; taken alone
	wbuf []byte
}

// NewExecConn wraps a stream, which it owns from now on.
func NewExecConn(conn io.ReadWriteCloser) *ExecConn {
	return &ExecConn{conn: conn, r: bufio.NewReaderSize(conn, MaxExecFrame)}
}

// Close ends the stream.
func (c *ExecConn) Close() error { return c.conn.Close() }

// Read returns the next frame. The payload is valid until the next Read. At the
// end of the stream the error is io.EOF.
func (c *ExecConn) Read() (FrameKind, []byte, error) {
	var h [execHeader]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return 0, nil, err
	}
	kind, n, err := parseExecHeader(h[:])
	if err != nil {
		return 0, nil, err
	}
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return kind, c.buf, nil
}

// Write sends payload as one or, if it is longer than MaxExecFrame, several
// frames.
func (c *ExecConn) Write(kind FrameKind, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		n := min(len(payload), MaxExecFrame)
		c.wbuf = append(c.wbuf[:0], byte(kind))
		c.wbuf = binary.LittleEndian.AppendUint32(c.wbuf, uint32(n))
		c.wbuf = append(c.wbuf, payload[:n]...)
		if _, err := c.conn.Write(c.wbuf); err != nil {
			return err
		}
		if payload = payload[n:]; len(payload) == 0 {
			return nil
		}
	}
}

// WriteJSON sends v as one frame.
func (c *ExecConn) WriteJSON(kind FrameKind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxExecFrame {
		return fmt.Errorf("a message of %d bytes does not fit a frame of %d", len(b), MaxExecFrame)
	}
	return c.Write(kind, b)
}

// Writer returns an io.Writer whose bytes become frames of that kind.
func (c *ExecConn) Writer(kind FrameKind) io.Writer { return frameWriter{c, kind} }

type frameWriter struct {
	c    *ExecConn
	kind FrameKind
}

func (w frameWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := w.c.Write(w.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
