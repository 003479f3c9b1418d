package vm_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/hostagent/vm/vmtest"
)

// frame is an Ethernet frame of the local experimental type, which guests send back.
func frame(n, size int) []byte {
	f := make([]byte, size)
	copy(f, "\x52\x54\x00\x00\x00\x01\x52\x54\x00\x00\x00\x02\x88\xb5")
	binary.BigEndian.PutUint32(f[14:], uint32(n))
	return f
}

// The host plays the other VM on the link. No frame is lost, though the sender is far
// ahead, and though the guest stands still for a while.
func TestLink(t *testing.T) {
	vmtest.NeedsModules(t)
	ours, theirs, err := vm.LinkPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	m := vmtest.Machine(t, "m", "frames")
	m.NIC = &qemu.NIC{MAC: "52:54:00:00:00:01"}
	v := start(t, vm.Config{Machine: m, Link: theirs})
	eventually(t, "the guest's network is up", bootLimit, func() bool {
		return strings.Contains(v.ConsoleTail(), "frames ready")
	})
	const frames = 1000
	ours.SetDeadline(time.Now().Add(30 * time.Second))
	begun := time.Now()
	sent := make(chan error, 1)
	go func() {
		for i := range frames {
			if _, err := ours.Write(frame(i, 1514)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	buf := make([]byte, 65536)
	for want := 0; want < frames; {
		n, err := ours.Read(buf)
		if err != nil {
			t.Fatalf("after %d frames: %v", want, err)
		}
		if n < 18 || buf[12] != 0x88 || buf[13] != 0xb5 {
			continue // the guest's own: neighbour discovery
		}
		if got := int(binary.BigEndian.Uint32(buf[14:])); got != want || n != 1514 {
			t.Fatalf("frame %d of %d bytes, want %d", got, n, want)
		}
		if want++; want == frames/2 {
			if err := errors.Join(v.Pause(t.Context()), v.Resume(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	t.Logf("%d frames there and back: %v", frames, time.Since(begun))
}
