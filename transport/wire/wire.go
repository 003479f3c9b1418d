package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is what every decoder's error wraps.
var ErrMalformed = errors.New("malformed message")

// Malformed says what is wrong with a message.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// An Encoder appends fields to a buffer. The zero value is ready for use.
type Encoder struct{ buf []byte }

// NewEncoder returns an Encoder that appends to buf.
func NewEncoder(buf []byte) *Encoder { return &Encoder{buf: buf} }

// Bytes returns what was encoded so far.
func (e *Encoder) Bytes() []byte { return e.buf }

// U8 appends one byte.
func (e *Encoder) U8(v uint8) { e.buf = append(e.buf, v) }

// Bool appends 1 or 0 as one byte.
func (e *Encoder) Bool(v bool) {
	if v {
		e.U8(1)
	} else {
		e.U8(0)
	}
}

// U16 appends two bytes, little endian.
func (e *Encoder) U16(v uint16) { e.buf = binary.LittleEndian.AppendUint16(e.buf, v) }

// U32 appends four bytes, little endian.
func (e *Encoder) U32(v uint32) { e.buf = binary.LittleEndian.AppendUint32(e.buf, v) }

// U64 appends eight bytes, little endian.
func (e *Encoder) U64(v uint64) { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }

// I64 appends eight bytes, two's complement, little endian.
func (e *Encoder) I64(v int64) { e.U64(uint64(v)) }

// String appends a length of two bytes and the bytes of s, which has at most
// 65,535 of them: what is longer is a programming error and panics.
func (e *Encoder) String(s string) {
	if len(s) > 1<<16-1 {
		panic(fmt.Sprintf("wire: string of %d bytes", len(s)))
	}
	e.U16(uint16(len(s)))
	e.buf = append(e.buf, s...)
}

// Raw appends b as it is.
func (e *Encoder) Raw(b []byte) { e.buf = append(e.buf, b...) }

// A Decoder takes fields off a message. The first field that does not fit
// makes every later one zero; Err tells at the end.
type Decoder struct {
	buf  []byte
	off  int
	tail []byte // what comes behind buf, for Rest alone
	err  error
}

// NewDecoder returns a Decoder of message buf, which it does not copy.
func NewDecoder(buf []byte) *Decoder { return &Decoder{buf: buf} }

// NewSplitDecoder returns a Decoder of a message whose last part lies elsewhere, in
// memory that its sender may still change. No field is ever taken from there: only
// [Decoder.Rest] returns it, whole.
func NewSplitDecoder(buf, tail []byte) *Decoder { return &Decoder{buf: buf, tail: tail} }

// Err tells the first thing that was wrong.
func (d *Decoder) Err() error { return d.err }

// Close is Err, and an error if bytes are left over.
func (d *Decoder) Close() error {
	if d.err == nil && d.off != len(d.buf) {
		d.err = Malformed("%d bytes too many", len(d.buf)-d.off)
	}
	if d.err == nil && len(d.tail) > 0 {
		d.err = Malformed("%d bytes behind the message", len(d.tail))
	}
	return d.err
}

// Len tells how many bytes are left.
func (d *Decoder) Len() int { return len(d.buf) - d.off }

// Fail makes the decoder fail with what is wrong, if it hasn't yet.
func (d *Decoder) Fail(format string, args ...any) {
	if d.err == nil {
		d.err = Malformed(format, args...)
	}
}

// Raw takes n bytes, without a copy.
func (d *Decoder) Raw(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.buf)-d.off {
		d.Fail("%d bytes wanted at offset %d of %d", n, d.off, len(d.buf))
		return nil
	}
	b := d.buf[d.off : d.off+n : d.off+n]
	d.off += n
	return b
}

// Rest takes all that is left, without a copy: opaque bytes, which may be memory of
// the sender's (see [NewSplitDecoder]).
func (d *Decoder) Rest() []byte {
	if len(d.tail) == 0 || d.err != nil {
		return d.Raw(d.Len())
	}
	if n := d.Len(); n > 0 {
		d.Fail("%d bytes before the rest, which is elsewhere", n)
		return nil
	}
	b := d.tail
	d.tail = nil
	return b
}

// U8 takes one byte.
func (d *Decoder) U8() uint8 {
	if b := d.Raw(1); b != nil {
		return b[0]
	}
	return 0
}

// Bool takes one byte that must be 0 or 1.
func (d *Decoder) Bool() bool {
	v := d.U8()
	if v > 1 {
		d.Fail("%d where 0 or 1 is wanted", v)
	}
	return v == 1
}

// U16 takes two bytes.
func (d *Decoder) U16() uint16 {
	if b := d.Raw(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// U32 takes four bytes.
func (d *Decoder) U32() uint32 {
	if b := d.Raw(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// U64 takes eight bytes.
func (d *Decoder) U64() uint64 {
	if b := d.Raw(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// I64 takes eight bytes, two's complement.
func (d *Decoder) I64() int64 { return int64(d.U64()) }

// String takes a string of at most max bytes.
func (d *Decoder) String(max int) string {
	n := int(d.U16())
	if n > max {
		d.Fail("string of %d bytes, at most %d allowed", n, max)
		return ""
	}
	return string(d.Raw(n))
}
