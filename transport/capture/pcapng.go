package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Blocks of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0A0D0D0A
	blockInterface = 1
	blockPacket    = 6

	byteOrder = 0x1A2B3C4D

	optEnd      = 0
	optName     = 2 // if_name
	optTSResol  = 9 // if_tsresol
	nanoseconds = 9

	// maxBlock bounds a block: the longest packet, and its options.
	maxBlock = MaxData + 4<<10
	// packetFront is what stands before a packet's bytes in its block.
	packetFront = 28
)

// interfaceName is what the captured link is called in the file.
const interfaceName = "winvm-channel"

// A Writer writes a capture. It is not for more than one goroutine.
type Writer struct {
	w   io.Writer
	buf []byte
}

// NewWriter begins a capture.
func NewWriter(w io.Writer) (*Writer, error) {
	_, err := w.Write(Preamble())
	return &Writer{w: w}, err
}

// Preamble is what stands before the packets of a capture.
func Preamble() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, blockSection)
	b = le.AppendUint32(b, 28)
	b = le.AppendUint32(b, byteOrder)
	b = le.AppendUint16(b, 1) // version 1.0
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, 1<<64-1) // length of the section: not known
	b = le.AppendUint32(b, 28)

	opts := le.AppendUint16(nil, optName)
	opts = le.AppendUint16(opts, uint16(len(interfaceName)))
	opts = pad4(append(opts, interfaceName...))
	opts = le.AppendUint16(opts, optTSResol)
	opts = le.AppendUint16(opts, 1)
	opts = append(opts, nanoseconds, 0, 0, 0)
	opts = le.AppendUint32(opts, optEnd)

	length := uint32(20 + len(opts))
	b = le.AppendUint32(b, blockInterface)
	b = le.AppendUint32(b, length)
	b = le.AppendUint16(b, LinkType)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, 0) // packets are never cut short
	b = append(b, opts...)
	return le.AppendUint32(b, length)
}

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Write writes a packet, with one Write. Data may have at most [MaxData] bytes.
func (w *Writer) Write(p *Packet) error {
	w.buf = AppendPacket(w.buf[:0], p)
	_, err := w.w.Write(w.buf)
	return err
}

// AppendPacket appends a packet's block to b.
func AppendPacket(b []byte, p *Packet) []byte {
	le := binary.LittleEndian
	n := headerLen + len(p.Data)
	length := uint32(packetFront + (n+3)/4*4 + 4)
	at := uint64(p.At.UnixNano())
	b = le.AppendUint32(b, blockPacket)
	b = le.AppendUint32(b, length)
	b = le.AppendUint32(b, 0) // interface
	b = le.AppendUint32(b, uint32(at>>32))
	b = le.AppendUint32(b, uint32(at))
	b = le.AppendUint32(b, uint32(n))
	b = le.AppendUint32(b, uint32(n))
	b = p.appendTo(b)
	for range (4 - n%4) % 4 {
		b = append(b, 0)
	}
	return le.AppendUint32(b, length)
}

// A Reader reads a capture, also one that other programs have written anew.
type Reader struct {
	r       *bufio.Reader
	order   binary.ByteOrder
	offset  int64 // in the file
	kinds   []linkKind
	skipped int // bytes that were no block
}

// linkKind is an interface of the file.
type linkKind struct {
	link uint16
	unit time.Duration // of time stamps; 0: finer than a nanosecond
}

// NewReader begins to read a capture. What isn't one is [ErrForeign].
func NewReader(r io.Reader) (*Reader, error) {
	c := &Reader{r: bufio.NewReaderSize(r, maxBlock), order: binary.LittleEndian}
	b, err := c.r.Peek(12)
	if len(b) < 12 || binary.LittleEndian.Uint32(b) != blockSection {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: it doesn't begin as a pcapng file does", ErrForeign)
	}
	return c, nil
}

// Next returns the next packet, whose Data is valid until the next call. The error is
// io.EOF at the end, [ErrCut] if that is within a packet, [ErrDamaged] where something is
// wrong with the file; after that Next goes on behind it.
func (c *Reader) Next() (p Packet, err error) {
	for {
		b, kind, err := c.block()
		if err != nil {
			return p, err
		}
		switch kind {
		case blockInterface:
			err = c.addInterface(b)
		case blockPacket:
			return c.packet(b)
		}
		if err != nil {
			return p, err
		}
	}
}

// block returns the next block. What is none is passed over, and told of once there is
// one again.
func (c *Reader) block() (b []byte, kind uint32, err error) {
	for {
		front, err := c.r.Peek(12)
		if len(front) == 0 && c.skipped == 0 {
			return nil, 0, ioErr(err)
		}
		if len(front) < 12 {
			return nil, 0, c.cut(len(front), err)
		}
		length, ok := c.frontOf(front)
		if ok {
			b, err = c.r.Peek(length)
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, 0, ioErr(err)
			}
			// One that is longer than what there is was cut, or its length is wrong.
			ok = len(b) == length && int(c.order.Uint32(b[length-4:])) == length
		}
		if ok && c.skipped > 0 {
			n := c.skipped
			c.skipped = 0
			return nil, 0, fmt.Errorf("%w: %d bytes before offset %d are no part of it", ErrDamaged, n, c.offset)
		}
		if ok {
			// What Peek returned stays where it is until the next read.
			_, _ = c.r.Discard(length)
			c.offset += int64(length)
			return b, c.order.Uint32(b), nil
		}
		_, _ = c.r.Discard(1)
		c.offset++
		c.skipped++
	}
}

// frontOf returns the length of the block that begins so, if it can be one.
func (c *Reader) frontOf(b []byte) (length int, ok bool) {
	if binary.LittleEndian.Uint32(b) == blockSection {
		switch uint32(byteOrder) {
		case binary.LittleEndian.Uint32(b[8:]):
			c.order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[8:]):
			c.order = binary.BigEndian
		default:
			return 0, false
		}
		c.kinds = nil
	}
	n := c.order.Uint32(b[4:])
	if n < 12 || n%4 != 0 || n > maxBlock {
		return 0, false
	}
	// While looking for where it goes on, not every number will do.
	if kind := c.order.Uint32(b); c.skipped > 0 && kind != blockSection && kind != blockPacket && kind != blockInterface {
		return 0, false
	}
	return int(n), true
}

func (c *Reader) cut(n int, err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return ioErr(err)
	}
	begin := c.offset - int64(c.skipped)
	n += c.skipped
	c.skipped = 0
	_, _ = c.r.Discard(c.r.Buffered())
	return fmt.Errorf("%w: the last %d bytes, from offset %d on, are the beginning of one", ErrCut, n, begin)
}

func ioErr(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("read the capture: %w", err)
}

func (c *Reader) addInterface(b []byte) error {
	if len(b) < 20 {
		return fmt.Errorf("%w: interface block of %d bytes", ErrDamaged, len(b))
	}
	k := linkKind{link: c.order.Uint16(b[8:]), unit: time.Microsecond}
	opts := b[16 : len(b)-4]
	for len(opts) >= 4 {
		code, n := c.order.Uint16(opts), int(c.order.Uint16(opts[2:]))
		if code == optEnd || 4+n > len(opts) {
			break
		}
		if code == optTSResol && n == 1 && opts[4] <= nanoseconds {
			k.unit = time.Second
			for range opts[4] {
				k.unit /= 10
			}
		}
		opts = opts[min(len(opts), 4+(n+3)/4*4):]
	}
	if len(c.kinds) < 64 {
		c.kinds = append(c.kinds, k)
	}
	return nil
}

func (c *Reader) packet(b []byte) (p Packet, err error) {
	if len(b) < packetFront+4 {
		return p, fmt.Errorf("%w: packet block of %d bytes before offset %d", ErrDamaged, len(b), c.offset)
	}
	number, n := c.order.Uint32(b[8:]), int64(c.order.Uint32(b[20:]))
	at := uint64(c.order.Uint32(b[12:]))<<32 | uint64(c.order.Uint32(b[16:]))
	if n > int64(len(b)-packetFront-4) || int64(number) >= int64(len(c.kinds)) {
		return p, fmt.Errorf("%w: packet block before offset %d: %d bytes of interface %d", ErrDamaged, c.offset, n, number)
	}
	k := c.kinds[number]
	if k.link != LinkType {
		return p, fmt.Errorf("%w: its packets have the link type %d, not %d", ErrForeign, k.link, LinkType)
	}
	if p, err = parsePacket(b[packetFront : packetFront+n]); err != nil {
		return p, err
	}
	if len(p.Data) > MaxData {
		return p, fmt.Errorf("%w: packet of %d bytes before offset %d", ErrDamaged, len(p.Data), c.offset)
	}
	p.At = time.Unix(0, int64(at)*int64(k.unit))
	return p, nil
}

// Bytes is a capture with these packets.
func Bytes(packets []Packet) []byte {
	b := bytes.Clone(Preamble())
	for i := range packets {
		b = AppendPacket(b, &packets[i])
	}
	return b
}
