package mux

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// TestHostilePeer sends, in good records, what no honest peer would.
func TestHostilePeer(t *testing.T) {
	frameOf := func(typ byte, flags uint16, stream, length uint32, body int) []byte {
		b := make([]byte, frameLen+body)
		b[1] = typ
		binary.BigEndian.PutUint16(b[2:], flags)
		binary.BigEndian.PutUint32(b[4:], stream)
		binary.BigEndian.PutUint32(b[8:], length)
		return b
	}
	typ := byte(typeData)
	for name, payload := range map[string][]byte{
		"ping":              frameOf(framePing, flagSYN, 0, 1, 0),
		"unknown type":      frameOf(9, 0, 0, 0, 0),
		"long":              frameOf(frameData, 0, 2, 1<<31, 100),
		"short":             frameOf(frameData, 0, 2, 10, 100),
		"window with body":  frameOf(frameWindow, 0, 2, 100, 100),
		"host's stream":     frameOf(frameWindow, flagSYN, 1, 0, 0),
		"stream 0":          frameOf(frameWindow, flagSYN, 0, 0, 0),
		"version":           append([]byte{1}, frameOf(frameWindow, 0, 2, 0, 0)[1:]...),
		"go away, protocol": frameOf(frameGoAway, 0, 0, 1, 0),
		"double FIN":        nil,
		"over the window":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			h, g := socketLinks(t)
			hs, gs := connect(t, endpoint(t, h), endpoint(t, g))
			ping(t, hs, gs, 10)
			put := func(payload []byte) {
				if gs.conn.lock() != nil {
					return
				}
				// Nobody reads any more once the host has had enough.
				_ = gs.conn.armWrite(time.Second)
				_ = gs.conn.put(typ, payload[:frameLen], nil, payload[frameLen:], false)
				gs.conn.unlock()
			}
			switch name {
			case "double FIN":
				put(frameOf(frameWindow, flagSYN, 100, 0, 0))
				put(frameOf(frameWindow, flagFIN, 100, 0, 0))
				put(frameOf(frameWindow, flagFIN, 100, 0, 0))
			case "over the window":
				put(append(frameOf(frameData, flagSYN, 100, 2, 0), "\x01a"...))
				for range 1 << 7 {
					put(frameOf(frameData, 0, 100, 60000, 60000))
				}
			default:
				put(payload)
			}
			wait(t, hs)
			if !errors.Is(hs.Err(), ErrProtocol) {
				t.Error(hs.Err())
			}
		})
	}
}

// TestHostileBulk does the same on a bulk stream.
func TestHostileBulk(t *testing.T) {
	data := func(flags uint16, stream uint32, n int) frame {
		return frame{typ: frameData, flags: flags, stream: stream, length: uint32(n)}
	}
	const known, unknown = 2, 100
	for name, send := range map[string]func(put func(f frame, body int)){
		"ping":           func(put func(frame, int)) { put(frame{typ: framePing}, 0) },
		"flags":          func(put func(frame, int)) { put(data(1<<10, known, 1), 1) },
		"long":           func(put func(frame, int)) { put(data(0, known, 1<<31), 100) },
		"short":          func(put func(frame, int)) { put(data(0, known, 10), 100) },
		"host's stream":  func(put func(frame, int)) { put(data(flagSYN, 1, 1), 1) },
		"stream 0":       func(put func(frame, int)) { put(data(flagSYN, 0, 1), 1) },
		"opened twice":   func(put func(frame, int)) { put(data(flagSYN, known, 1), 1) },
		"no name":        func(put func(frame, int)) { put(data(flagSYN, unknown, 0), 0) },
		"long name":      func(put func(frame, int)) { put(data(flagSYN, unknown, 60000), 60000) },
		"window, opened": func(put func(frame, int)) { put(frame{typ: frameWindow, flags: flagSYN, stream: unknown}, 0) },
		"double FIN":     func(put func(frame, int)) { put(data(flagFIN, known, 1), 1); put(data(flagFIN, known, 0), 0) },
		"after FIN":      func(put func(frame, int)) { put(data(flagFIN, known, 1), 1); put(data(0, known, 1), 1) },
		"no credit": func(put func(frame, int)) {
			for range 3 {
				put(frame{typ: frameWindow, stream: known, length: 1<<32 - 1}, 0)
			}
		},
		"over the window": func(put func(frame, int)) {
			for range 1 << 7 {
				put(data(0, known, 60000), 60000)
			}
		},
		"more than can be refused": func(put func(frame, int)) {
			for i := range uint32(100_000) {
				put(data(flagSYN, unknown+2*i, 1), 1)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := socketLinks(t)
			hs, gs := connect(t, endpoint(t, h), endpoint(t, g))
			st, err := gs.OpenBulk(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := hs.Accept(t.Context()); err != nil {
				t.Fatal(err)
			}
			if id := st.(*Bulk).id; id != known {
				t.Fatalf("stream %d", id)
			}
			if name == "more than can be refused" {
				_ = hs.conn.lock() // the host can't say no
				defer hs.conn.unlock()
			}
			body := make([]byte, maxPiece)
			send(func(f frame, n int) {
				if gs.conn.lock() != nil {
					return
				}
				_ = gs.conn.armWrite(time.Second)
				copy(body, "xyz")
				_ = gs.conn.putBulk(f, nil, body[:n], false)
				gs.conn.unlock()
			})
			select {
			case <-hs.conn.dead:
			case <-time.After(20 * time.Second):
				t.Fatal("the host bears it")
			}
			if err := hs.conn.why(); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
		})
	}
}
