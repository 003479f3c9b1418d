package rpc

import (
	"bufio"
	"context"
	"io"
	"sync"
	"syscall"

	"winvm/transport/shm"
)

// A Client sends requests over a stream and matches the responses.
type Client struct {
	conn        io.ReadWriteCloser
	maxResponse uint32
	done        chan struct{}

	lane *shm.Lane // nil: there is none

	turn chan struct{} // holds one token while a frame is written; taken alone
	head []byte        // the writer's
	wbuf []byte        // the writer's

	mu      sync.Mutex // guards what follows
	calls   map[uint32]*call
	lastTag uint32
	err     error
}

// A call is one request in flight. Its fields are the caller's until it is in
// Client.calls and after ready is closed, the reader's in between.
type call struct {
	op     uint16
	into   []byte // where the body goes, if it fits
	direct bool   // it is going there; guarded by Client.mu
	slot   shm.Slot
	room   int  // of slot, for the body; 0: none, the slot has the request's
	inLane int  // how many bytes of the body are there; 0: it is in body
	lost   bool // no response will come

	abandoned bool // nobody waits: the reader gives the slot back
	body      []byte
	err       error
	ready     chan struct{}
}

// NewClient starts a client on conn, which it owns from now on. A response
// whose body has more than maxResponse bytes breaks the protocol.
func NewClient(conn io.ReadWriteCloser, maxResponse uint32) *Client {
	c := &Client{
		conn:        conn,
		maxResponse: max(maxResponse, maxErrorText),
		done:        make(chan struct{}),
		turn:        make(chan struct{}, 1),
		calls:       map[uint32]*call{},
	}
	go c.read()
	return c
}

// UseLane lets large bodies go through shared memory. It is to be called before the
// first Call, and only if the serving side has [Limits.Lane].
func (c *Client) UseLane(l *shm.Lane) { c.lane = l }

// Done is closed when the connection has ended; Err then tells why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err tells why the connection ended, nil while it hasn't.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for the reader. Calls in flight fail with
// ErrClosed.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	<-c.done
	return nil
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		_ = c.conn.Close()
	}
}

// Call sends a request whose body is head and tail, one after the other, and
// waits for its response. If into is not nil and large enough the response's
// body is written there; the returned slice is the body in either case, and the
// caller's own.
func (c *Client) Call(ctx context.Context, op uint16, head, tail, into []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &call{op: op, into: into, ready: make(chan struct{})}
	h := header{op: op}
	var where place
	h.errno, where = c.takeSlot(p, tail)
	if h.errno == laneTail {
		tail = nil
	}
	h.length = uint32(len(head) + len(tail))
	var err error
	if h.tag, err = c.enter(p); err != nil {
		p.freeSlot()
		return nil, err
	}
	sent := c.send(ctx, h, where, head, tail)
	if sent {
		select {
		case <-p.ready:
			return p.result()
		case <-ctx.Done():
		}
	}
	if c.leave(h.tag, p, sent) {
		return nil, ctx.Err()
	}
	<-p.ready
	return p.result()
}

// takeSlot takes a slot if the call is worth one and there is one, and puts tail into
// it or offers it for the response. It returns what the request's header says of it.
func (c *Client) takeSlot(p *call, tail []byte) (use uint16, where place) {
	if c.lane == nil || max(len(tail), len(p.into)) < LaneMin || len(tail) > shm.SlotSize {
		return 0, place{}
	}
	var ok bool
	if p.slot, ok = c.lane.Take(); !ok {
		return 0, place{} // all are in use: the channel is there for that
	}
	if len(tail) >= LaneMin {
		copy(p.slot.Bytes(len(tail)), tail)
		return laneTail, place{p.slot.Number(), uint32(len(tail))}
	}
	p.room = min(len(p.into), shm.SlotSize)
	return laneRoom, place{p.slot.Number(), uint32(p.room)}
}

// result returns what the response was, when it has come.
func (p *call) result() ([]byte, error) {
	if p.inLane > 0 {
		p.body = p.into[:copy(p.into, p.slot.Bytes(p.inLane))]
	}
	p.freeSlot()
	return p.body, p.err
}

// freeSlot gives the call's slot back; one that the peer may still be using is lost.
func (p *call) freeSlot() {
	switch {
	case !p.slot.Valid():
	case p.lost:
		p.slot.Lose()
	default:
		p.slot.Free()
	}
	p.slot = shm.Slot{}
}

// enter gives p a free tag.
func (c *Client) enter(p *call) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	for {
		c.lastTag++
		if _, used := c.calls[c.lastTag]; !used {
			c.calls[c.lastTag] = p
			return c.lastTag, nil
		}
	}
}

// leave abandons a call; the tag of one that was sent stays taken until its
// response comes. It reports whether the reader leaves the caller's buffer alone;
// if not, it is filling it right now.
func (c *Client) leave(tag uint32, p *call, sent bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[tag] != p {
		if p.direct {
			return false
		}
		p.freeSlot()
		return true
	}
	if sent {
		c.calls[tag] = &call{op: p.op, slot: p.slot, room: p.room, abandoned: true, ready: make(chan struct{})}
	} else {
		delete(c.calls, tag)
		p.freeSlot()
	}
	return true
}

// send writes a frame, unless ctx ends before it is our turn. A write that fails
// ends the connection.
func (c *Client) send(ctx context.Context, h header, where place, head, tail []byte) bool {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-c.turn }()
	front := headerSize
	if h.errno != 0 {
		front += laneSize
	}
	c.head = append(c.head[:0], make([]byte, front)...)
	h.put(c.head)
	if h.errno != 0 {
		where.put(c.head[headerSize:])
	}
	c.head = append(c.head, head...)
	var err error
	if c.wbuf, err = writeParts(c.conn, c.head, tail, c.wbuf); err != nil {
		c.fail(closedError(err))
	}
	return true
}

func (c *Client) read() {
	defer close(c.done)
	r := bufio.NewReaderSize(c.conn, readBuffer)
	var buf [headerSize]byte
	var err error
	for err == nil {
		err = c.readOne(r, &buf)
	}
	c.fail(closedError(err))
	c.mu.Lock()
	defer c.mu.Unlock()
	for tag, p := range c.calls {
		p.err, p.lost = c.err, true
		if p.abandoned {
			p.freeSlot()
		}
		close(p.ready)
		delete(c.calls, tag)
	}
}

func (c *Client) readOne(r *bufio.Reader, buf *[headerSize]byte) error {
	h, err := readHeader(r, buf)
	if err != nil {
		return err
	}
	shared := h.errno == inLane
	if h.length > c.maxResponse || h.errno != 0 && h.length > maxErrorText && !shared {
		return protocolError("response of %d bytes to op %d", h.length, h.op)
	}
	p, err := c.take(h, shared)
	if err != nil {
		return err
	}
	if p.abandoned {
		p.freeSlot()
	}
	if shared {
		p.inLane = int(h.length)
		close(p.ready)
		return nil
	}
	if p.direct {
		p.body = p.into[:h.length]
	} else {
		p.body = make([]byte, h.length)
	}
	err = readBody(r, c.conn, p.body)
	switch {
	case err != nil:
		p.body, p.err = nil, closedError(err)
	case h.errno != 0:
		p.err = &Error{Errno: syscall.Errno(wireErrno(syscall.Errno(h.errno))), Text: string(p.body)}
		p.body = nil
	}
	close(p.ready)
	return err
}

// take returns the call that a response is for and frees its tag. shared says that
// the body is in the call's slot.
func (c *Client) take(h header, shared bool) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.calls[h.tag]
	switch {
	case p == nil || p.op != h.op:
		return nil, protocolError("response to op %d with tag %d, which is not in flight", h.op, h.tag)
	case shared && (h.length == 0 || int(h.length) > p.room):
		return nil, protocolError("response of %d bytes in the %d of a slot", h.length, p.room)
	}
	delete(c.calls, h.tag)
	p.direct = h.errno == 0 && int(h.length) <= len(p.into)
	return p, nil
}
