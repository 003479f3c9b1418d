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
				gs.conn.turn <- struct{}{}
				// Nobody reads any more once the host has had enough.
				_ = gs.conn.armWrite(time.Second)
				_ = gs.conn.put(typeData, payload[:frameLen], payload[frameLen:])
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
