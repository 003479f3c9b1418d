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

	"winvm/transport/shm"
)

// Limits bound what one connection may cost the serving side.
type Limits struct {
	MaxRequest uint32 // bytes of a request's body
	InFlight   int    // handlers at work at once

	// Lane is the shared memory beside the connection, for handlers that know what
	// to do with a tail; nil: none.
	Lane *shm.Lane
}

// A Handler carries out one request. body is its own until it returns, and then the
// next request's. So is tail,
// what comes behind body if the caller put that into the lane (nil if not; see
// [Limits.Lane]): but the peer can change those bytes at any time. They may be passed
// on, and must be copied before anything is made of them. An error becomes an errno by
// way of Errno, with its text.
type Handler func(ctx context.Context, op uint16, body, tail []byte, resp *Response) error

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
		if h.length > s.limits.MaxRequest || h.errno > laneRoom || h.errno != 0 && s.limits.Lane == nil {
			return protocolError("request of %d bytes, op %d, last field %d", h.length, h.op, h.errno)
		}
		var shared []byte
		if h.errno != 0 {
			if shared, err = s.lend(r, h); err != nil {
				return err
			}
		}
		slots <- struct{}{} // before the allocation; handlers always end
		body := getBuffer(int(h.length))
		if err := readBody(r, s.conn, body); err != nil {
			if shared != nil {
				s.limits.Lane.Return()
			}
			return cutShort(err)
		}
		s.workers.Go(func() {
			defer func() { <-slots }()
			if shared != nil {
				defer s.limits.Lane.Return()
			}
			s.answer(ctx, h, body, shared)
		})
	}
}

// cutShort is the error of a stream that ends within a frame.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// lend reads which slot a request is about and returns its memory.
func (s *server) lend(r io.Reader, h header) ([]byte, error) {
	where, err := readPlace(r)
	if err != nil {
		return nil, cutShort(err)
	}
	if h.errno == laneTail && uint64(h.length)+uint64(where.length) > uint64(s.limits.MaxRequest) {
		return nil, protocolError("request of %d and %d bytes, op %d", h.length, where.length, h.op)
	}
	b, err := s.limits.Lane.Lend(where.slot, where.length)
	if err != nil {
		return nil, protocolError("op %d: %v", h.op, err)
	}
	return b, nil
}

func (s *server) answer(ctx context.Context, h header, body, shared []byte) {
	var resp Response
	var tail []byte
	switch h.errno {
	case laneTail:
		tail = shared
	case laneRoom:
		resp.room = shared
	}
	err := s.call(ctx, h.op, body, tail, &resp)
	putBuffer(body)
	defer func() { putBuffer(resp.buf) }()
	out := header{tag: h.tag, op: h.op}
	if err != nil {
		text := err.Error()
		resp = Response{}
		resp.Append([]byte(text[:min(len(text), maxErrorText)]))
		out.errno = wireErrno(s.errno(err))
	}
	resp.reserve(0)
	out.length = uint32(len(resp.buf) - headerSize)
	if resp.shared > 0 {
		out.length, out.errno = uint32(resp.shared), inLane
	}
	out.put(resp.buf)
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.write(resp.buf); err != nil && ctx.Err() == nil {
		s.log.Debug("response not sent", "op", h.op, "err", err)
		_ = s.conn.Close()
	}
}

// write writes a frame; the header of a large one by itself, so that its reader knows
// where the body belongs before that comes.
func (s *server) write(frame []byte) error {
	if len(frame) >= largeBody {
		if _, err := s.conn.Write(frame[:headerSize]); err != nil {
			return err
		}
		frame = frame[headerSize:]
	}
	_, err := s.conn.Write(frame)
	return err
}

// wireErrno is the number for an error: never 0, which would mean success.
func wireErrno(e syscall.Errno) uint16 {
	if e == 0 || e > maxErrno {
		return uint16(syscall.EIO)
	}
	return uint16(e)
}

func (s *server) call(ctx context.Context, op uint16, body, tail []byte, resp *Response) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("handler panicked", "op", op, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %w", syscall.EIO)
		}
	}()
	return s.handle(ctx, op, body, tail, resp)
}
