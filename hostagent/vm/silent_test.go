package vm_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"winvm/hostagent/vm"
	"winvm/hostagent/vm/vmtest"
)

// A QEMU that stands still is given up, and killed; one that was slow is not.
func TestQEMUStandsStill(t *testing.T) {
	const limit = 1200 * time.Millisecond
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count"), SilenceLimit: limit})
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
	if closed(v.Failed(), limit) {
		t.Fatalf("it answers again, and failed: %v", v.Err())
	}
	stopped := time.Now()
	signal(syscall.SIGSTOP)
	if !closed(v.Done(), 5*limit) {
		t.Fatal("it has not ended")
	}
	if err := v.Err(); !errors.Is(err, vm.Silent) || time.Since(stopped) < limit {
		t.Errorf("after %v: %v", time.Since(stopped), err)
	}
	t.Log(v.Err())
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
