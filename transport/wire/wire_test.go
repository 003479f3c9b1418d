package wire

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestFields(t *testing.T) {
	e := NewEncoder([]byte("head"))
	e.U8(200)
	e.Bool(true)
	e.Bool(false)
	e.U16(0xbeef)
	e.U32(0xdeadbeef)
	e.U64(math.MaxUint64)
	e.I64(-5)
	e.String("text")
	e.String("")
	e.Raw([]byte{1, 2, 3})
	want := "head\xc8\x01\x00\xef\xbe\xef\xbe\xad\xde\xff\xff\xff\xff\xff\xff\xff\xff\xfb\xff\xff\xff\xff\xff\xff\xff\x04\x00text\x00\x00\x01\x02\x03"
	if string(e.Bytes()) != want {
		t.Fatalf("encoded %q", e.Bytes())
	}
	d := NewDecoder(e.Bytes())
	if string(d.Raw(4)) != "head" || d.U8() != 200 || !d.Bool() || d.Bool() || d.U16() != 0xbeef || d.U32() != 0xdeadbeef ||
		d.U64() != math.MaxUint64 || d.I64() != -5 || d.String(4) != "text" || d.String(0) != "" {
		t.Error("a field came back different")
	}
	if d.Len() != 3 {
		t.Errorf("%d bytes left", d.Len())
	}
	if err := NewDecoder(e.Bytes()).Close(); !errors.Is(err, ErrMalformed) {
		t.Errorf("closed with bytes left: %v", err)
	}
	if !bytes.Equal(d.Rest(), []byte{1, 2, 3}) || d.Close() != nil {
		t.Errorf("rest: %v", d.Err())
	}
}

// After the first field that doesn't fit everything is zero, and the first error stays.
func TestShort(t *testing.T) {
	for n := range 8 {
		d := NewDecoder(make([]byte, n))
		if d.U64() != 0 || !errors.Is(d.Err(), ErrMalformed) {
			t.Errorf("8 bytes of %d: %v", n, d.Err())
		}
		first := d.Err()
		if d.U8() != 0 || d.U16() != 0 || d.U32() != 0 || d.Raw(0) != nil || d.String(9) != "" || d.Bool() || d.I64() != 0 {
			t.Error("a field after the error isn't zero")
		}
		d.Fail("later")
		if d.Err() != first || d.Close() != first { //nolint:errorlint // the very same error
			t.Errorf("the error became %v", d.Err())
		}
	}
}

func TestBadFields(t *testing.T) {
	for what, f := range map[string]func(*Decoder){
		"bool 2":          func(d *Decoder) { d.Bool() },
		"string too long": func(d *Decoder) { d.U8(); d.String(3) },
		"string cut":      func(d *Decoder) { d.U8(); d.String(100) },
		"negative length": func(d *Decoder) { d.Raw(-1) },
		"huge length":     func(d *Decoder) { d.Raw(math.MaxInt) },
	} {
		d := NewDecoder([]byte("\x02\x04\x00abc"))
		f(d)
		if !errors.Is(d.Err(), ErrMalformed) {
			t.Errorf("%s: %v", what, d.Err())
		}
	}
}

// Raw's result can't grow into the rest of the message.
func TestRawIsClipped(t *testing.T) {
	d := NewDecoder([]byte("abcd"))
	_ = append(d.Raw(2), 'X')
	if string(d.Rest()) != "cd" {
		t.Error("an append to one field overwrote the next")
	}
}

func TestLongStringPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewEncoder(nil).String(strings.Repeat("x", 1<<16))
}

// No field is taken from a tail; only Rest gives it out, whole and in its place.
func TestSplitDecoder(t *testing.T) {
	tail := []byte{1, 2, 3, 4}
	d := NewSplitDecoder([]byte{7, 0}, tail)
	if v := d.U16(); v != 7 {
		t.Errorf("%d", v)
	}
	if b := d.Rest(); len(b) != 4 || &b[0] != &tail[0] || d.Close() != nil || len(d.Rest()) != 0 {
		t.Errorf("rest % x, %v", b, d.Err())
	}
	for name, take := range map[string]func(d *Decoder){
		"a field":           func(d *Decoder) { d.U16(); d.U8() },
		"a string":          func(d *Decoder) { d.U16(); _ = d.String(100) },
		"nothing":           func(d *Decoder) { d.U16() },
		"the rest too soon": func(d *Decoder) { d.U8(); d.Rest() },
	} {
		d := NewSplitDecoder([]byte{7, 0}, tail)
		if take(d); d.Close() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
