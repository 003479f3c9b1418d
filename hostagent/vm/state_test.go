package vm_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/hostagent/vm/vmtest"
)

// saved suspends a guest that counts, and echoes if it has ports, and returns the
// description that it revives from.
func saved(t *testing.T, do string, change func(*qemu.Machine)) (m qemu.Machine, state string, count int) {
	t.Helper()
	m = vmtest.Machine(t, "saved", do)
	m.Memory.File, m.Memory.Shared = filepath.Join(t.TempDir(), "memory"), true
	if change != nil {
		change(&m)
	}
	v := start(t, vm.Config{Machine: m})
	eventually(t, "the guest counts", bootLimit, func() bool { return lastCount(v) >= 3 })
	if len(m.Ports) > 0 {
		echo(t, v, "before")
	}
	state = filepath.Join(t.TempDir(), "state")
	f, err := os.Create(state)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begun := time.Now()
	if err := v.Save(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	info, _ := f.Stat()
	t.Logf("save: %v, state of %d bytes", took, info.Size())
	if err := v.Resume(t.Context()); err == nil {
		t.Error("a saved VM was resumed: its memory file isn't what was saved any more")
	}
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	m.Memory.Shared, m.Incoming = false, true
	return m, state, lastCount(v)
}

func revive(t *testing.T, m qemu.Machine, state string) *vm.VM {
	t.Helper()
	begun := time.Now()
	v := start(t, vm.Config{Machine: m})
	up := time.Since(begun)
	f, err := os.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := v.Load(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	loaded := time.Since(begun) - up
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("revive: QEMU up %v, load %v, in all %v", up, loaded, time.Since(begun))
	return v
}

func echo(t *testing.T, v *vm.VM, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	if err := v.WaitPort(ctx, "echo", true); err != nil {
		t.Fatal(err)
	}
	port := v.Port("echo")
	port.SetDeadline(time.Now().Add(20 * time.Second))
	begun := time.Now()
	if _, err := io.WriteString(port, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(port, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v", got, err)
	}
	t.Logf("echo of %d bytes: %v", len(text), time.Since(begun))
}

// The whole of it: ports, state, two revives at once from one memory file.
func TestSuspendAndReviveTwiceAtOnce(t *testing.T) {
	vmtest.NeedsModules(t)
	m, state, count := saved(t, "both", func(m *qemu.Machine) {
		m.Ports = []qemu.Port{{Name: "echo"}, {Name: "other"}}
	})
	memory := hash(t, m.Memory.File)
	one, two := revive(t, m, state), revive(t, m, state)
	for _, v := range []*vm.VM{one, two} {
		if !closed(v.Failed(), 0) { // it lives
			echo(t, v, strings.Repeat("after the revive ", 1000))
		}
		eventually(t, "it counts on", 20*time.Second, func() bool { return lastCount(v) > count+5 })
		if first := firstCount(v); first < count || first > count+2 {
			t.Errorf("saved at %d, went on at %d", count, first)
		}
	}
	for _, v := range []*vm.VM{one, two} {
		if err := v.Kill(); err != nil || !errors.Is(v.Err(), vm.Killed) {
			t.Errorf("%v, %v", err, v.Err())
		}
	}
	if hash(t, m.Memory.File) != memory {
		t.Error("a revive changed the memory file")
	}
}

// A VM without a memory file has its memory in the state.
func TestSuspendWithoutMemoryFile(t *testing.T) {
	m, state, count := saved(t, "count", func(m *qemu.Machine) { m.Memory.File, m.Memory.Shared = "", false })
	v := revive(t, m, state)
	eventually(t, "it counts on", 20*time.Second, func() bool { return lastCount(v) > count })
	if first := firstCount(v); first < count || first > count+2 {
		t.Errorf("saved at %d, went on at %d", count, first)
	}
}

// A revived VM can be saved again: what it changed goes into the state.
func TestReviveSaveRevive(t *testing.T) {
	m, state, count := saved(t, "count", nil)
	v := revive(t, m, state)
	eventually(t, "it counts on", 20*time.Second, func() bool { return lastCount(v) > count+2 })
	again := filepath.Join(t.TempDir(), "again")
	f, err := os.Create(again)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := v.Save(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	v.Kill()
	count = lastCount(v)
	third := revive(t, m, again)
	eventually(t, "it counts on", 20*time.Second, func() bool { return lastCount(third) > count })
	if first := firstCount(third); first < count || first > count+2 {
		t.Errorf("saved at %d, went on at %d", count, first)
	}
}

func TestLoadFailures(t *testing.T) {
	m, state, _ := saved(t, "count", nil)
	good, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		state  []byte
		change func(*qemu.Machine)
	}{
		"empty":     {nil, nil},
		"cut short": {good[:len(good)/2], nil},
		"garbage":   {bytes.Repeat([]byte("no"), 4096), nil},
		"machine":   {good, func(m *qemu.Machine) { m.VGAMemMiB = 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			m := m
			if tc.change != nil {
				tc.change(&m)
			}
			v := start(t, vm.Config{Machine: m})
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, tc.state, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			begun := time.Now()
			err = v.Load(ctx, f)
			t.Logf("after %v: %v", time.Since(begun), err)
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "load the state of VM") {
				t.Errorf("got %v", err)
			}
			if err := v.Resume(ctx); err == nil {
				t.Error("resumed without a state")
			}
		})
	}
}

func TestReviveRefusesAWrongMemoryFile(t *testing.T) {
	m := vmtest.Machine(t, "m", "count")
	m.Incoming, m.Memory.File = true, filepath.Join(t.TempDir(), "memory")
	try := func(want string) {
		t.Helper()
		if _, err := vm.Start(t.Context(), vm.Config{Machine: m, Logger: quiet()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	try("no such file")
	if _, err := os.Stat(m.Memory.File); err == nil {
		t.Error("the memory file was created")
	}
	if err := os.WriteFile(m.Memory.File, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	try("damaged or another machine's")
	m.Memory.Shared = true
	try("privately")
}

func TestSaveCancelledAndResumed(t *testing.T) {
	m := vmtest.Machine(t, "m", "count")
	v := start(t, vm.Config{Machine: m})
	eventually(t, "the guest counts", bootLimit, func() bool { return lastCount(v) >= 1 })
	// A pipe that nobody reads: the save can't end.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err = v.Save(ctx, w)
	t.Logf("cancelled save: %v, %v", time.Since(begun), err)
	w.Close()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := lastCount(v)
	eventually(t, "it counts on", 20*time.Second, func() bool { return lastCount(v) > at })
}

func TestPause(t *testing.T) {
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count")})
	eventually(t, "the guest counts", bootLimit, func() bool { return lastCount(v) >= 1 })
	for range 2 { // twice is once
		if err := v.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // what is on its way
	at := lastCount(v)
	time.Sleep(300 * time.Millisecond)
	if now := lastCount(v); now != at {
		t.Errorf("a paused guest counted from %d to %d", at, now)
	}
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it counts on", 20*time.Second, func() bool { return lastCount(v) > at })
	if v.Err() != nil {
		t.Error("a pause is no failure:", v.Err())
	}
}
