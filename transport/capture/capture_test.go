package capture_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"winvm/transport/capture"
	"winvm/transport/mux"
	"winvm/transport/needs"
	"winvm/transport/virtioserial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write testdata anew (then Version has to change, too)")

func packets() []capture.Packet {
	at := time.Unix(1600000000, 123456789)
	return []capture.Packet{
		{At: at, From: mux.SideHost, Data: []byte("hello")},
		{At: at.Add(time.Millisecond), From: mux.SideGuest, Offset: 1 << 40, Missing: true, Data: []byte("abcd")},
		{At: at.Add(time.Second), Link: 7, From: mux.SideGuest, Offset: 3, End: true, Data: []byte{}},
	}
}

// readAll returns the packets and what Next failed with.
func readAll(t *testing.T, b []byte) (list []capture.Packet, errs []error) {
	t.Helper()
	r, err := capture.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, []error{err}
	}
	for {
		p, err := r.Next()
		if err == nil {
			p.Data = bytes.Clone(p.Data)
			list = append(list, p)
			continue
		}
		if errors.Is(err, io.EOF) {
			return list, errs
		}
		if errs = append(errs, err); !errors.Is(err, capture.ErrDamaged) {
			return list, errs
		}
	}
}

// The bytes of a file: captures that exist are so.
func TestFormat(t *testing.T) {
	file := capture.Bytes(packets())
	got := hex.Dump(file)
	path := filepath.Join("testdata", "capture.hex")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is different now:\n%s", path, got)
	}
	list, errs := readAll(t, file)
	for i := range list {
		list[i].At = list[i].At.Local()
	}
	if len(errs) != 0 || !reflect.DeepEqual(list, packets()) {
		t.Errorf("%+v, %v", list, errs)
	}
}

func TestCut(t *testing.T) {
	file := capture.Bytes(packets())
	first := len(capture.Bytes(packets()[:1]))
	for n := first + 1; n < len(capture.Bytes(packets()[:2])); n++ {
		list, errs := readAll(t, file[:n])
		if len(list) != 1 || len(errs) != 1 || !errors.Is(errs[0], capture.ErrCut) {
			t.Fatalf("%d bytes: %+v, %v", n, list, errs)
		}
	}
}

func TestDamaged(t *testing.T) {
	file := capture.Bytes(packets())
	first := len(capture.Bytes(packets()[:1]))
	for name, b := range map[string][]byte{
		"a length":       change(file, first-4, 0xff),
		"a length ahead": change(file, first+5, 0x7f),
		"bytes too many": append(append(bytes.Clone(file[:first]), "garbage"...), file[first:]...),
		"bytes too few":  append(bytes.Clone(file[:first-9]), file[first:]...),
	} {
		list, errs := readAll(t, b)
		if len(list) == 0 || len(errs) != 1 || !errors.Is(errs[0], capture.ErrDamaged) {
			t.Errorf("%s: %+v, %v", name, list, errs)
		}
		if last := list[len(list)-1]; last.Link != 7 {
			t.Errorf("%s: what comes behind is lost: %+v", name, list)
		}
	}
}

func change(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

func TestForeign(t *testing.T) {
	file := capture.Bytes(packets()[:1])
	link := bytes.Index(file, []byte{capture.LinkType, 0, 0, 0, 0, 0, 0, 0})
	magic := bytes.Index(file, []byte("wv"))
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":         {nil, capture.ErrForeign},
		"text":            {[]byte(strings.Repeat("no capture\n", 10)), capture.ErrForeign},
		"other link":      {change(file, link, 1), capture.ErrForeign},
		"other packets":   {change(file, magic, 'x'), capture.ErrForeign},
		"another version": {change(file, magic+2, 2), capture.ErrVersion},
	} {
		list, errs := readAll(t, c.b)
		if len(list) != 0 || len(errs) != 1 || !errors.Is(errs[0], c.want) {
			t.Errorf("%s: %+v, %v", name, list, errs)
		}
	}
}

// Wireshark's tools write the other byte order and microseconds on some machines.
func TestOtherOrder(t *testing.T) {
	be := binary.BigEndian
	b := be.AppendUint32(nil, 0x0A0D0D0A)
	b = be.AppendUint32(b, 28)
	b = be.AppendUint32(b, 0x1A2B3C4D)
	b = be.AppendUint32(b, 1<<16)
	b = be.AppendUint64(b, 1<<64-1)
	b = be.AppendUint32(b, 28)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, 20)
	b = be.AppendUint16(b, capture.LinkType)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = be.AppendUint32(b, 20)
	data := append([]byte("wv\x01\x01\x00\x00\x00\x00"), make([]byte, 8)...)
	b = be.AppendUint32(b, 6)
	b = be.AppendUint32(b, 48)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint64(b, 1500000) // 1.5 s
	b = be.AppendUint32(b, 16)
	b = be.AppendUint32(b, 16)
	b = append(b, data...)
	b = be.AppendUint32(b, 48)
	list, errs := readAll(t, b)
	if len(errs) != 0 || len(list) != 1 || list[0].From != mux.SideGuest || list[0].At.UnixMilli() != 1500 {
		t.Errorf("%+v, %v", list, errs)
	}
}

func TestRing(t *testing.T) {
	r := capture.NewRing(10_000)
	var at int64
	for range 1000 {
		r.Add(&capture.Packet{From: mux.SideHost, Offset: at, Data: make([]byte, 1000)})
		at += 1000
	}
	list := r.Packets()
	if list[0].Offset != 0 || list[len(list)-1].Offset != at-1000 || len(list) > 150 {
		t.Fatalf("%d packets, %d to %d", len(list), list[0].Offset, list[len(list)-1].Offset)
	}
	gaps := 0
	for i, p := range list[1:] {
		if follows := p.Offset == list[i].Offset+1000; follows == p.Missing {
			t.Errorf("packet at %d: missing %v", p.Offset, p.Missing)
		}
		if p.Missing {
			gaps++
		}
	}
	if gaps != 1 {
		t.Errorf("%d gaps", gaps)
	}
	last := 0
	for i := len(list) - 1; i >= 0 && !list[i].Missing; i-- {
		last++
	}
	if last++; last < 7 || last > 10 {
		t.Errorf("of the last packets there are %d, want about 10,000 bytes of them", last)
	}
}

// tapped returns a link with a tap, its other end, and how to connect to the tap.
func tapped(t *testing.T) (tap *capture.Tap, link mux.Link, peer net.Conn, dial func() *capture.Reader) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "debug")
	tap, err := capture.Listen(t.Context(), path, mux.SideHost)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tap.Close)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	h, f, err := virtioserial.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	peer, err = net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	link = tap.Wrap(h)
	t.Cleanup(func() { _ = link.Close() })
	return tap, link, peer, func() *capture.Reader {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		r, err := capture.NewReader(c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func next(t *testing.T, r *capture.Reader) capture.Packet {
	t.Helper()
	p, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Who comes late gets the beginning, then what passes, then the end.
func TestTap(t *testing.T) {
	tap, link, peer, dial := tapped(t)
	if _, err := link.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write([]byte("two")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := link.Read(buf); err != nil || string(buf[:n]) != "two" {
		t.Fatal(n, err)
	}
	r := dial()
	if p := next(t, r); p.From != mux.SideHost || string(p.Data) != "one" || p.Offset != 0 {
		t.Errorf("%+v", p)
	}
	if p := next(t, r); p.From != mux.SideGuest || string(p.Data) != "two" {
		t.Errorf("%+v", p)
	}
	if _, err := link.Write([]byte("three")); err != nil {
		t.Fatal(err)
	}
	if p := next(t, r); string(p.Data) != "three" || p.Offset != 3 || p.Missing {
		t.Errorf("%+v", p)
	}
	_ = link.Close()
	for _, from := range []mux.Side{mux.SideHost, mux.SideGuest} {
		if p := next(t, r); !p.End || p.From != from {
			t.Errorf("%+v", p)
		}
	}
	tap.Close()
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// A reader that takes nothing holds nobody up, and is told what it missed.
func TestTapSlowReader(t *testing.T) {
	_, link, peer, dial := tapped(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, peer)
	}()
	defer func() { cancel(); _ = peer.Close(); <-done }()
	r := dial()
	block := make([]byte, 1<<20)
	begin := time.Now()
	for range 64 {
		if _, err := link.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("64 MiB took %v", took)
	}
	var got int64
	missing := false
	for got < 64<<20 && !missing {
		p := next(t, r)
		missing = p.Missing || p.Offset != got
		got = p.Offset + int64(len(p.Data))
		if ctx.Err() == nil && p.Offset+int64(len(p.Data)) >= 16<<20 {
			cancel()
			_, _ = link.Write([]byte("x")) // the reader has room again
		}
	}
	if !missing {
		t.Error("64 MiB waited for a reader")
	}
}

// Without a path there is no tap, and the link is the link itself.
func TestNoTap(t *testing.T) {
	tap, err := capture.Listen(t.Context(), "", mux.SideHost)
	if tap != nil || err != nil {
		t.Fatal(tap, err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if tap.Wrap(a) != mux.Link(a) {
		t.Error("the link is wrapped")
	}
	tap.Close()
}

func TestTapRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debug")
	a, err := capture.Listen(t.Context(), path, mux.SideHost)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := capture.Listen(t.Context(), path, mux.SideHost); !errors.Is(err, virtioserial.ErrInUse) {
		t.Errorf("%v", err)
	}
}

// Whoever gets past the socket's mode as another user is sent away.
func TestTapOtherUser(t *testing.T) {
	needs.Root(t)
	path := filepath.Join(t.TempDir(), "debug")
	tap, err := capture.Listen(t.Context(), path, mux.SideHost)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	for uid, welcome := range map[uintptr]bool{0: true, 65534: false} {
		got := make(chan int, 1)
		go func() { // as another user; the thread is used for nothing else
			runtime.LockOSThread()
			same := ^uintptr(0)
			_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uid, same)
			_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0) // the way to the socket is root's
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
			}
			if errno != 0 || err != nil {
				t.Errorf("uid %d: %v, %v", uid, errno, err)
			}
			n, _ := unix.Read(fd, make([]byte, 4))
			_ = unix.Close(fd)
			got <- n
		}()
		if n := <-got; (n > 0) != welcome {
			t.Errorf("uid %d has got %d bytes", uid, n)
		}
	}
}

// FuzzReader: whatever a file has, reading it ends.
func FuzzReader(f *testing.F) {
	whole := capture.Bytes(packets())
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(append(bytes.Clone(whole[:100]), whole[103:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := capture.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		for range 1 + len(b) {
			if _, err := r.Next(); err != nil && !errors.Is(err, capture.ErrDamaged) {
				return
			}
		}
		t.Error("it doesn't end")
	})
}
