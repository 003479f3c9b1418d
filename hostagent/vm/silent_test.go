package vm_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"winvm/hostagent/vm"
	"winvm/hostagent/vm/vmtest"
)

// A QEMU that a signal has stopped is given up, and killed; one that was let go on is not.
func TestQEMUIsStopped(t *testing.T) {
	const limit = time.Second
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count")})
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(v.Pid(), s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	if closed(v.Failed(), limit/2) {
		t.Fatalf("given up too early: %v", v.Err())
	}
	signal(syscall.SIGCONT)
	if closed(v.Failed(), 2*limit) {
		t.Fatalf("it answers again, and failed: %v", v.Err())
	}
	stopped := time.Now()
	signal(syscall.SIGSTOP)
	if !closed(v.Done(), 5*limit) {
		t.Fatal("it has not ended")
	}
	took := time.Since(stopped)
	if err := v.Err(); !errors.Is(err, vm.Halted) || took < limit || took > 2*limit {
		t.Errorf("after %v: %v", took, err)
	}
	t.Logf("after %v: %v", took, v.Err())
}

// A QEMU that hangs, all its threads or the one that the monitor needs while the guest
// computes on, is given up: in the first case soon.
func TestQEMUHangs(t *testing.T) {
	for name, tt := range map[string]struct {
		do      string
		threads string
		silence time.Duration
		within  time.Duration
	}{
		"all of it":    {"count", "all", 0, 3 * time.Second},
		"its monitor":  {"spin", "main", 3 * time.Second, 8 * time.Second},
		"a paused one": {"", "all", 0, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			do := tt.do
			if do == "" {
				do = "count"
			}
			v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", do), SilenceLimit: tt.silence})
			eventually(t, "the guest is up", bootLimit, func() bool { return strings.Contains(v.ConsoleTail(), "guest: "+do) })
			if tt.do == "" {
				if err := v.Pause(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			frozen := vmtest.Freeze(t, v.Pid(), tt.threads)
			if !closed(v.Failed(), tt.within) {
				t.Fatal("nobody noticed")
			}
			if took := time.Since(frozen); !errors.Is(v.Err(), vm.Silent) || took < tt.silence {
				t.Errorf("after %v: %v", took, v.Err())
			} else {
				t.Logf("after %v: %v", took, v.Err())
			}
		})
	}
}

// While it is paused, or its state is saved, it answers.
func TestPausedIsNotSilent(t *testing.T) {
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count"), SilenceLimit: 300 * time.Millisecond})
	if err := v.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if closed(v.Failed(), 1200*time.Millisecond) {
		t.Fatalf("paused, and %v", v.Err())
	}
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if closed(v.Failed(), 400*time.Millisecond) {
		t.Fatalf("resumed, and %v", v.Err())
	}
}

// A guest that goes to sleep would stand still for ever.
func TestGuestSleeps(t *testing.T) {
	m := vmtest.Machine(t, "m", "sleep")
	v := start(t, vm.Config{Machine: m})
	if !closed(v.Failed(), bootLimit) {
		t.Fatalf("it did not fail; the console: %s", v.ConsoleTail())
	}
	if err := v.Err(); !errors.Is(err, vm.Asleep) {
		t.Errorf("got %v", err)
	}
}
