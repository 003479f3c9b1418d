package shm_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/shm"
	"winvm/transport/shm/shmtest"
)

const slots = 3

var session = shm.ID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// header is the region's header as the other side sees it.
func header(t *testing.T, r *shm.Region) []byte {
	t.Helper()
	b := make([]byte, 64)
	if _, err := r.File().ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeaderGolden(t *testing.T) {
	host, _ := shmtest.Regions(t, slots)
	host.Offer(session)
	want, err := os.ReadFile("testdata/header.hex")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(header(t, host)); got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// What isn't this session's memory is refused, and the reason said.
func TestAcceptRefuses(t *testing.T) {
	for want, spoil := range map[string]func(f *os.File, h []byte) []byte{
		"magic":           func(_ *os.File, h []byte) []byte { h[3] ^= 1; return h },
		"checksum":        func(_ *os.File, h []byte) []byte { h[33] ^= 1; return h },
		"version 2":       func(_ *os.File, h []byte) []byte { h[16] = 2; return sealed(h) },
		"slots of 4096":   func(_ *os.File, h []byte) []byte { binary.LittleEndian.PutUint32(h[20:], 4096); return sealed(h) },
		"it says that":    func(_ *os.File, h []byte) []byte { h[27] = 1; return sealed(h) },
		"another session": func(_ *os.File, h []byte) []byte { h[32] ^= 1; return sealed(h) },
		"begin with":      func(_ *os.File, h []byte) []byte { clear(h); return h },
	} {
		t.Run(want, func(t *testing.T) {
			host, guest := shmtest.Regions(t, slots)
			host.Offer(session)
			if _, err := host.File().WriteAt(spoil(host.File(), header(t, host)), 0); err != nil {
				t.Fatal(err)
			}
			if l, err := guest.Accept(session); !errors.Is(err, shm.ErrRefused) || !strings.Contains(err.Error(), want) || l != nil {
				t.Errorf("%v, %v", l, err)
			}
			host.Offer(session) // and made good again
			if _, err := guest.Accept(session); err != nil {
				t.Error(err)
			}
		})
	}
}

// sealed gives a header the right checksum.
func sealed(h []byte) []byte {
	shm.Checksum(h)
	return h
}

// Nobody who has the file can make it smaller: a mapping would fault.
func TestSealed(t *testing.T) {
	host, _ := shmtest.Regions(t, slots)
	for _, size := range []int64{0, 4096, 1 << 30} {
		if err := host.File().Truncate(size); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate to %d: %v", size, err)
		}
	}
	if _, err := unix.FcntlInt(host.File().Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("another seal: %v", err)
	}
}

func TestSizes(t *testing.T) {
	for _, size := range []int{-1, 0, 1, shm.SlotSize, 2*shm.SlotSize + 4096, shm.MaxSize + shm.SlotSize} {
		if r, err := shm.Create(size); !errors.Is(err, shm.ErrRefused) {
			t.Errorf("%d bytes: %v, %v", size, r, err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := shm.Map(f); !errors.Is(err, shm.ErrRefused) {
		t.Errorf("an empty file: %v", err)
	}
}

func take(t *testing.T, l *shm.Lane, want int) (out []shm.Slot) {
	t.Helper()
	for {
		s, ok := l.Take()
		if !ok {
			break
		}
		out = append(out, s)
	}
	if len(out) != want {
		t.Fatalf("%d slots are free, want %d", len(out), want)
	}
	return out
}

func TestSlots(t *testing.T) {
	host, guest := shmtest.Regions(t, slots)
	serving := host.Offer(session)
	calling, err := guest.Accept(session)
	if err != nil {
		t.Fatal(err)
	}
	all := take(t, calling, slots)
	for i, s := range all {
		b := s.Bytes(shm.SlotSize)
		b[0], b[len(b)-1] = byte(i+1), byte(i+1)
	}
	for i, s := range all {
		b, err := serving.Lend(s.Number(), shm.SlotSize)
		if err != nil || b[0] != byte(i+1) || b[len(b)-1] != byte(i+1) || cap(b) != shm.SlotSize {
			t.Errorf("slot %d: %d, %d, %v", i, b[0], b[len(b)-1], err)
		}
		serving.Return()
	}
	if n := host.Lent(); n != slots {
		t.Errorf("lent %d times", n)
	}
	all[1].Free()
	if s, ok := calling.Take(); !ok || s.Number() != all[1].Number() {
		t.Error("not the one that was used last")
	}
}

func TestLendChecks(t *testing.T) {
	_, serving := shmtest.Lanes(t, slots)
	for _, x := range [][2]uint32{{slots, 1}, {1<<32 - 1, 1}, {0, 0}, {0, shm.SlotSize + 1}, {0, 1<<32 - 1}} {
		if b, err := serving.Lend(x[0], x[1]); !errors.Is(err, shm.ErrSlot) {
			t.Errorf("%d bytes of slot %d: %d bytes, %v", x[1], x[0], len(b), err)
		}
	}
}

// A slot whose call got no response isn't used again in the session, and is in the
// next; one that its user still has in the next session isn't given to another.
func TestLostSlots(t *testing.T) {
	host, guest := shmtest.Regions(t, slots)
	host.Offer(shm.ID{1})
	one, err := guest.Accept(shm.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	all := take(t, one, slots)
	all[0].Lose()
	all[1].Free()
	take(t, one, 1)[0].Free()
	host.Offer(shm.ID{2})
	two, err := guest.Accept(shm.ID{2})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := one.Take(); ok {
		t.Error("a slot for a session that has ended")
	}
	take(t, two, 2) // all[2] is still in use
	all[2].Lose()   // late
	take(t, two, 1)
}

// While a handler is at work on a slot the region isn't offered to another session.
func TestBusyRegionIsNotOffered(t *testing.T) {
	host, guest := shmtest.Regions(t, slots)
	one := host.Offer(shm.ID{1})
	if _, err := one.Lend(0, 1); err != nil {
		t.Fatal(err)
	}
	if two := host.Offer(shm.ID{2}); two != nil {
		t.Error("offered while it is in use")
	}
	if l, err := guest.Accept(shm.ID{2}); !errors.Is(err, shm.ErrRefused) {
		t.Errorf("%v, %v", l, err)
	}
	one.Return()
	if two := host.Offer(shm.ID{3}); two == nil {
		t.Error("not offered")
	}
	if _, err := guest.Accept(shm.ID{3}); err != nil {
		t.Error(err)
	}
	if _, err := one.Lend(0, 1); !errors.Is(err, shm.ErrSlot) {
		t.Errorf("a slot of a session that has ended: %v", err)
	}
}

func TestClosedRegion(t *testing.T) {
	host, guest := shmtest.Regions(t, slots)
	l := host.Offer(shm.ID{1})
	c, err := guest.Accept(shm.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(host.Close(), host.Close(), guest.Close()); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Take(); ok {
		t.Error("a slot of a closed region")
	}
	if _, err := l.Lend(0, 1); !errors.Is(err, shm.ErrSlot) {
		t.Error(err)
	}
	if host.Offer(shm.ID{2}) != nil {
		t.Error("a closed region was offered")
	}
	if _, err := guest.Accept(shm.ID{1}); !errors.Is(err, shm.ErrRefused) {
		t.Error(err)
	}
}
