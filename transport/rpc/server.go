package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"syscall"
)

// Limits bound what one connection may cost the serving side.
type Limits struct {
	MaxRequest uint32 // bytes of a request's body
	InFlight   int    // handlers at work at once
}

// A Response is what a Handler fills in. Its zero value is an empty body.
type Response struct{ buf []byte }

// Append adds to the body.
func (r *Response) Append(b []byte) {
	r.reserve(len(b))
	r.buf = append(r.buf, b...)
}

// Grow adds n bytes to the body, to be filled in by the handler.
func (r *Response) Grow(n int) []byte {
	r.reserve(n)
	old := len(r.buf)
	r.buf = r.buf[:old+n]
	return r.buf[old:]
}

// Shrink takes the last n bytes of the body away again.
func (r *Response) Shrink(n int) { r.buf = r.buf[:len(r.buf)-n] }

// reserve makes room for n more bytes and, at first, for the header before them.
func (r *Response) reserve(n int) {
	if cap(r.buf) == 0 {
		r.buf = make([]byte, headerSize, headerSize+n)
	}
	if need := len(r.buf) + n; need > cap(r.buf) {
		r.buf = append(make([]byte, 0, need), r.buf...)
	}
}

// A Handler carries out one request. body is its own until it returns. An error
// becomes an errno by way of Errno, with its text.
type Handler func(ctx context.Context, op uint16, body []byte, resp *Response) error

type server struct {
	conn    io.ReadWriteCloser
	handle  Handler
	errno   func(error) syscall.Errno
	log     *slog.Logger
	limits  Limits
	wmu     sync.Mutex // serialises writes
	workers sync.WaitGroup
}

// Serve answers requests on conn until the peer hangs up (nil), ctx ends (its
// error) or the peer breaks the protocol. It closes conn and returns when the
// last handler has returned. errno chooses the number for a handler's error.
func Serve(ctx context.Context, conn io.ReadWriteCloser, handle Handler, errno func(error) syscall.Errno, limits Limits, log *slog.Logger) error {
	s := &server{conn: conn, handle: handle, errno: errno, log: log, limits: limits}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = conn.Close()
	})
	working, cancel := context.WithCancel(ctx)
	err := s.read(working)
	outer := ctx.Err()
	cancel()
	_ = conn.Close() // also ends writes to a peer that doesn't read
	s.workers.Wait()
	if !stop() {
		<-closed
	}
	if outer != nil {
		return outer
	}
	return err
}

func (s *server) read(ctx context.Context) error {
	r := bufio.NewReaderSize(s.conn, readBuffer)
	slots := make(chan struct{}, s.limits.InFlight)
	var buf [headerSize]byte
	for {
		h, err := readHeader(r, &buf)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if h.length > s.limits.MaxRequest || h.errno != 0 {
			return protocolError("request of %d bytes, op %d, last field %d", h.length, h.op, h.errno)
		}
		slots <- struct{}{} // before the allocation; handlers always end
		body := make([]byte, h.length)
		if _, err := io.ReadFull(r, body); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		s.workers.Go(func() {
			defer func() { <-slots }()
			s.answer(ctx, h, body)
		})
	}
}

func (s *server) answer(ctx context.Context, h header, body []byte) {
	var resp Response
	err := s.call(ctx, h.op, body, &resp)
	out := header{tag: h.tag, op: h.op}
	if err != nil {
		text := err.Error()
		resp = Response{}
		resp.Append([]byte(text[:min(len(text), maxErrorText)]))
		out.errno = wireErrno(s.errno(err))
	}
	resp.reserve(0)
	out.length = uint32(len(resp.buf) - headerSize)
	out.put(resp.buf)
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if _, err := s.conn.Write(resp.buf); err != nil && ctx.Err() == nil {
		s.log.Debug("response not sent", "op", h.op, "err", err)
		_ = s.conn.Close()
	}
}

// wireErrno is the number for an error: never 0, which would mean success.
func wireErrno(e syscall.Errno) uint16 {
	if e == 0 || e > maxErrno {
		return uint16(syscall.EIO)
	}
	return uint16(e)
}

func (s *server) call(ctx context.Context, op uint16, body []byte, resp *Response) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("handler panicked", "op", op, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %w", syscall.EIO)
		}
	}()
	return s.handle(ctx, op, body, resp)
}
