package mux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzPreface: a stream's name is either good, and what was sent, or refused.
func FuzzPreface(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x07fs/xchg and more"))
	f.Add([]byte("\x00"))
	f.Add([]byte("\x03A/b"))
	f.Add(append([]byte{65}, bytes.Repeat([]byte("a"), 65)...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		name, err := readPreface(bytes.NewReader(sent))
		if err != nil {
			return
		}
		again, err := encodePreface(name)
		if err != nil || !bytes.HasPrefix(sent, again) {
			t.Errorf("read %q, which encodes to %q, %v", name, again, err)
		}
	})
}

// FuzzFrame: what is let through to yamux has the length that its record has, and opens
// no stream that isn't the peer's to open.
func FuzzFrame(f *testing.F) {
	header := func(version, typ byte, flags uint16, stream, length uint32, body string) []byte {
		b := []byte{version, typ}
		b = binary.BigEndian.AppendUint16(b, flags)
		b = binary.BigEndian.AppendUint32(b, stream)
		b = binary.BigEndian.AppendUint32(b, length)
		return append(b, body...)
	}
	f.Add(header(0, frameData, flagSYN, 1, 3, "abc"), true)
	f.Add(header(0, frameData, 0, 2, 1<<31, "abc"), false)
	f.Add(header(0, frameWindow, flagSYN, 2, 1<<20, ""), true)
	f.Add(header(0, framePing, 1, 0, 7, ""), false)
	f.Add(header(0, frameGoAway, 0xffff, 0, 0, ""), true)
	f.Add(header(1, frameData, 0, 1, 0, ""), false)
	f.Fuzz(func(t *testing.T, payload []byte, host bool) {
		if len(payload) < frameLen || len(payload) > maxPayload {
			return // a record's length is checked before
		}
		peer := roleGuest
		if host {
			peer = roleHost
		}
		fr, err := checkFrame(payload, peer)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("%v", err)
			}
			return
		}
		body := len(payload) - frameLen
		if fr.typ == framePing || fr.hasBody() != (body > 0) || fr.hasBody() && int(fr.length) != body {
			t.Errorf("let through: %+v with %d bytes", fr, body)
		}
		if fr.typ != frameGoAway && fr.flags&flagSYN != 0 && (fr.stream == 0 || (fr.stream%2 == 1) != host) {
			t.Errorf("let through: %+v from the host: %v", fr, host)
		}
	})
}
