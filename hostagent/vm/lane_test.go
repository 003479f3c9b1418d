package vm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/hostagent/vm/vmtest"
	"winvm/transport/shm"
)

const laneMiB = 8

// exchange offers the region for a session, fills slot 0 and waits for its
// complement in slot 1.
func exchange(t *testing.T, r *shm.Region, session, value byte) {
	t.Helper()
	l := r.Offer(shm.ID{session})
	ask, err := l.Lend(0, shm.SlotSize)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Return()
	answer, err := l.Lend(1, shm.SlotSize)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Return()
	for i := range ask {
		ask[i] = value + byte(i)
	}
	eventually(t, "the guest copies", bootLimit, func() bool {
		for i := range answer {
			if answer[i] != ^(value + byte(i)) {
				return false
			}
		}
		return true
	})
}

func newLane(t *testing.T) *shm.Region {
	t.Helper()
	r, err := shm.Create(laneMiB << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// The guest maps the shared memory, is suspended, and is revived twice at once onto
// fresh memory each: its mapping still is the memory, and each has its own.
func TestLaneSuspendAndRevive(t *testing.T) {
	m := vmtest.Machine(t, "lane", "lane")
	m.Memory.File, m.Memory.Shared = filepath.Join(t.TempDir(), "memory"), true
	m.Lane = &qemu.Lane{MiB: laneMiB}
	m.Append += " swiotlb=noforce"
	region := newLane(t)
	v := start(t, vm.Config{Machine: m, Lane: region.File()})
	exchange(t, region, 1, 3)
	if !strings.Contains(v.ConsoleTail(), "lane of 8388608 bytes") {
		t.Error(v.ConsoleTail())
	}
	state := filepath.Join(t.TempDir(), "state")
	f, err := os.Create(state)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := v.Save(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() > 2<<20 {
		t.Errorf("state of %d bytes, %v: the shared memory is in it", info.Size(), err)
	}
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	m.Memory.Shared, m.Incoming = false, true
	for i := range 2 {
		fresh := newLane(t)
		v := start(t, vm.Config{Machine: m, Lane: fresh.File()})
		f, err := os.Open(state)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		begun := time.Now()
		if err := v.Load(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if err := v.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("load and resume: %v", time.Since(begun))
		exchange(t, fresh, 2, byte(100+i))
	}
}

// Shared memory and its file belong together.
func TestLaneNeedsItsFile(t *testing.T) {
	region := newLane(t)
	with := qemu.Machine{Name: "m", Memory: qemu.Memory{MiB: 64}, Lane: &qemu.Lane{MiB: laneMiB}}
	without := with
	without.Lane = nil
	for _, cfg := range []vm.Config{{Machine: with}, {Machine: without, Lane: region.File()}} {
		cfg.Logger = quiet()
		if _, err := vm.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "shared memory needs a file") {
			t.Errorf("%v", err)
		}
	}
}
