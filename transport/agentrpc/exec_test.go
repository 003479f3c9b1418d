package agentrpc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"winvm/transport/rpc"
)

// A script is a stream whose peer has sent fixed bytes; what is written is kept.
type script struct {
	io.Reader
	bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func (s *script) Close() error { return nil }

func reading(b []byte) *ExecConn { return NewExecConn(&script{Reader: bytes.NewReader(b)}) }

func frame(kind FrameKind, length uint32, payload string) []byte {
	return append([]byte{byte(kind), byte(length), byte(length >> 8), byte(length >> 16), byte(length >> 24)}, payload...)
}

func TestExecBytes(t *testing.T) {
	s := &script{Reader: strings.NewReader("")}
	c := NewExecConn(s)
	status := uint32(0xC0000005)
	steps := []error{
		c.WriteJSON(FrameStart, ExecStart{Command: "cmd", PTY: &PTY{Term: "xterm", Cols: 80, Rows: 25}}),
		c.Write(FrameStdin, []byte("in")),
		c.Write(FrameStdinEOF, nil),
		c.Write(FrameSignal, []byte("INT")),
		c.Write(FrameStdout, []byte{0, 255}),
		c.WriteJSON(FrameExit, ExecExit{Status: &status}),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	want := string(frame(1, 60, `{"command":"cmd","pty":{"term":"xterm","cols":80,"rows":25}}`)) +
		string(frame(2, 2, "in")) + string(frame(3, 0, "")) + string(frame(5, 3, "INT")) +
		string(frame(6, 2, "\x00\xff")) + string(frame(8, 21, `{"status":3221225477}`))
	if got := s.String(); got != want {
		t.Errorf("got\n%swant\n%s", hex.Dump([]byte(got)), hex.Dump([]byte(want)))
	}
}

func TestExecRoundTrip(t *testing.T) {
	for name, half := range map[string]bool{"whole": false, "byte by byte": true} {
		t.Run(name, func(t *testing.T) {
			s := &script{Reader: strings.NewReader("")}
			w := NewExecConn(s)
			sizes := []int{0, 1, 4095, MaxExecFrame - 1, MaxExecFrame, MaxExecFrame + 1, 3*MaxExecFrame + 7}
			var want bytes.Buffer
			for i, n := range sizes {
				data := make([]byte, n)
				for j := range data {
					data[j] = byte(rand.Uint32())
				}
				want.Write(data)
				if m, err := w.Writer(FrameStdout).Write(data); err != nil || m != n {
					t.Fatalf("%d: %d, %v", i, m, err)
				}
			}
			var r io.Reader = bytes.NewReader(s.Bytes())
			if half {
				r = iotest.OneByteReader(r)
			}
			c := NewExecConn(&script{Reader: r})
			var got bytes.Buffer
			frames := 0
			for ; ; frames++ {
				kind, payload, err := c.Read()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil || kind != FrameStdout || len(payload) == 0 || len(payload) > MaxExecFrame {
					t.Fatalf("kind %d, %d bytes, %v", kind, len(payload), err)
				}
				got.Write(payload)
			}
			if !bytes.Equal(got.Bytes(), want.Bytes()) || frames != 1+1+1+1+2+4 {
				t.Errorf("%d bytes in %d frames, want %d", got.Len(), frames, want.Len())
			}
		})
	}
}

func TestExecBounds(t *testing.T) {
	for _, n := range []uint32{MaxExecFrame + 1, 1 << 30, math.MaxUint32} {
		c := reading(frame(FrameStdout, n, "x"))
		if _, _, err := c.Read(); !errors.Is(err, rpc.ErrProtocol) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if cap(c.buf) != 0 {
			t.Errorf("%d bytes were allocated", cap(c.buf))
		}
	}
	for what, b := range map[string][]byte{"header": frame(FrameStdout, 5, "")[:3], "payload": frame(FrameStdout, 5, "four"), "no payload": frame(FrameStdout, 5, "")} {
		if _, _, err := reading(b).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut off in the %s: %v", what, err)
		}
	}
	if _, _, err := reading(nil).Read(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	c := reading(nil)
	if err := c.WriteJSON(FrameStart, ExecStart{Command: strings.Repeat("x", MaxExecFrame)}); err == nil {
		t.Error("a message that doesn't fit a frame was sent")
	}
	if err := c.WriteJSON(FrameStart, math.Inf(1)); err == nil {
		t.Error("what isn't JSON was sent")
	}
}

// Frames that many goroutines write stay whole.
func TestExecParallel(t *testing.T) {
	a, b := net.Pipe()
	w, r := NewExecConn(a), NewExecConn(b)
	var wg sync.WaitGroup
	for kind := FrameStdout; kind <= FrameStderr; kind++ {
		for range 2 {
			wg.Go(func() {
				for i := range 200 {
					if err := w.Write(kind, bytes.Repeat([]byte{byte(kind)}, i*50)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	go func() {
		wg.Wait()
		_ = w.Close()
	}()
	got := map[FrameKind]int{}
	for {
		kind, payload, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range payload {
			if FrameKind(c) != kind {
				t.Fatal("frames are mixed up")
			}
		}
		got[kind] += len(payload)
	}
	if want := 2 * 50 * 199 * 200 / 2; got[FrameStdout] != want || got[FrameStderr] != want {
		t.Errorf("%v, want %d each", got, want)
	}
	_ = r.Close()
}

func TestExecWriteFails(t *testing.T) {
	a, b := net.Pipe()
	_ = b.Close()
	c := NewExecConn(a)
	if err := c.Write(FrameStdin, nil); err == nil {
		t.Error("a write to nobody worked")
	}
	if _, err := c.Writer(FrameStdin).Write([]byte("x")); err == nil {
		t.Error("a write to nobody worked")
	}
	_ = c.Close()
}

// FuzzExecRead: whatever comes, frames are within the limit, and writing them
// again gives the bytes that were read.
func FuzzExecRead(f *testing.F) {
	f.Add([]byte{})
	f.Add(frame(FrameStart, 2, "{}"))
	f.Add(frame(FrameStdout, 5, "four"))
	f.Add(frame(200, math.MaxUint32, ""))
	f.Add(append(frame(FrameStdin, 1, "x"), frame(FrameStdinEOF, 0, "")...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := reading(sent)
		s := &script{Reader: strings.NewReader("")}
		again := NewExecConn(s)
		for {
			kind, payload, err := c.Read()
			if err != nil {
				break
			}
			if len(payload) > MaxExecFrame {
				t.Fatalf("%d bytes", len(payload))
			}
			if err := again.Write(kind, payload); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(sent, s.Bytes()) {
			t.Error("read and written again it is different")
		}
	})
}
