package rpc

import (
	"bytes"
	"errors"
	"testing"
)

func encoded(h header, after ...byte) []byte {
	b := make([]byte, headerSize)
	h.put(b)
	return append(b, after...)
}

func TestSplitter(t *testing.T) {
	where := make([]byte, laneSize)
	place{slot: 3, length: 5000}.put(where)
	for name, c := range map[string]struct {
		responses bool
		frame     []byte
		want      Frame
	}{
		"request":              {false, encoded(header{length: 2, tag: 7, op: 4}, 'a', 'b'), Frame{Tag: 7, Op: 4, Body: []byte("ab"), Length: 2}},
		"its tail in a slot":   {false, append(encoded(header{length: 1, tag: 7, op: 4, errno: laneTail}, where...), 'a'), Frame{Tag: 7, Op: 4, Body: []byte("a"), Length: 5001, HasSlot: true, Slot: 3, InSlot: 5000}},
		"room for its answer":  {false, append(encoded(header{length: 1, tag: 7, op: 4, errno: laneRoom}, where...), 'a'), Frame{Tag: 7, Op: 4, Body: []byte("a"), Length: 1, HasSlot: true, Slot: 3, Room: 5000}},
		"response":             {true, encoded(header{length: 2, tag: 7, op: 4}, 'a', 'b'), Frame{Tag: 7, Op: 4, Body: []byte("ab"), Length: 2}},
		"error":                {true, encoded(header{length: 2, tag: 7, op: 4, errno: 28}, 'n', 'o'), Frame{Tag: 7, Op: 4, Errno: 28, Body: []byte("no"), Length: 2}},
		"response in the slot": {true, encoded(header{length: 100_000, tag: 7, op: 4, errno: inLane}), Frame{Tag: 7, Op: 4, Length: 100_000, HasSlot: true, InSlot: 100_000}},
	} {
		s := Splitter{Responses: c.responses, MaxBody: 1000}
		var got []Frame
		each := func(f Frame) {
			f.Body = append([]byte(nil), f.Body...)
			got = append(got, f)
		}
		// Two frames, a byte at a time.
		for _, b := range bytes.Repeat(c.frame, 2) {
			if err := s.Write([]byte{b}, each); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(got) != 2 || s.Pending() != 0 {
			t.Errorf("%s: %d frames, %d bytes pending", name, len(got), s.Pending())
			continue
		}
		for _, f := range got {
			body, want := f.Body, c.want.Body
			f.Body, c.want.Body = nil, nil
			if !bytes.Equal(body, want) || f.Tag != c.want.Tag || f.Op != c.want.Op || f.Errno != c.want.Errno || f.Length != c.want.Length ||
				f.HasSlot != c.want.HasSlot || f.Slot != c.want.Slot || f.InSlot != c.want.InSlot || f.Room != c.want.Room {
				t.Errorf("%s: %+v with %q, want %+v with %q", name, f, body, c.want, want)
			}
			c.want.Body = want
		}
	}
}

func TestSplitterRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		responses bool
		h         header
	}{
		"request too long":    {false, header{length: 1001}},
		"request's last":      {false, header{errno: laneRoom + 1}},
		"response too long":   {true, header{length: 1001}},
		"error's text":        {true, header{errno: 28, length: maxErrorText + 1}},
		"no number of errors": {true, header{errno: maxErrno + 1}},
	} {
		s := Splitter{Responses: c.responses, MaxBody: max(1000, maxErrorText*2)}
		if c.h.length == 1001 {
			s.MaxBody = 1000
		}
		err := s.Write(encoded(c.h, 'x'), func(f Frame) { t.Errorf("%s: %+v", name, f) })
		if !errors.Is(err, ErrProtocol) || s.Pending() != 0 {
			t.Errorf("%s: %v, %d bytes pending", name, err, s.Pending())
		}
	}
}
