package wire

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzDecoder: fields are read as a script says. What was read without an error encodes to
// the bytes it was read from; after an error nothing is read any more.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07"), []byte("\x01\x01\x02\x00\x03\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x02\x00abxyz"))
	f.Add([]byte("\x06\x06"), []byte("\xff\xff"))
	f.Add([]byte("\x01"), []byte("\x02"))
	f.Add([]byte("\x07"), []byte("a"))
	f.Fuzz(func(t *testing.T, script, sent []byte) {
		d, e := NewDecoder(sent), NewEncoder(nil)
		for _, op := range script {
			if d.Err() != nil {
				break
			}
			before := len(e.Bytes())
			switch op % 8 {
			case 0:
				e.U8(d.U8())
			case 1:
				e.Bool(d.Bool())
			case 2:
				e.U16(d.U16())
			case 3:
				e.U32(d.U32())
			case 4:
				e.U64(d.U64())
			case 5:
				e.I64(d.I64())
			case 6:
				s := d.String(40)
				if len(s) > 40 {
					t.Fatalf("a string of %d bytes", len(s))
				}
				e.String(s)
			case 7:
				e.Raw(d.Raw(int(op) / 8))
			}
			if d.Err() != nil {
				e = NewEncoder(e.Bytes()[:before])
			}
		}
		if !bytes.HasPrefix(sent, e.Bytes()) {
			t.Errorf("read and written again it is different: %x of %x", e.Bytes(), sent)
		}
		if d.Err() == nil && d.Len() != len(sent)-len(e.Bytes()) {
			t.Errorf("%d bytes left of %d, %d read", d.Len(), len(sent), len(e.Bytes()))
		}
		if d.Err() != nil && (!errors.Is(d.Err(), ErrMalformed) || d.U64() != 0 || d.String(9) != "" || d.Close() == nil) {
			t.Errorf("goes on after %v", d.Err())
		}
	})
}
