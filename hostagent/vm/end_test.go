package vm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/hostagent/vm/vmtest"
	"winvm/transport/needs"
)

func TestEndsByItself(t *testing.T) {
	for do, want := range map[string]vm.Cause{"poweroff": vm.PoweredOff, "reboot": vm.Rebooted} {
		t.Run(do, func(t *testing.T) {
			m := vmtest.Machine(t, "m", do)
			m.CPU = "qemu64"
			v := start(t, vm.Config{Machine: m})
			if !closed(v.Done(), bootLimit) {
				t.Fatal("it did not end")
			}
			if err := v.Err(); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			t.Log(v.Err())
		})
	}
}

func TestPanicAndScreenshot(t *testing.T) {
	vmtest.NeedsModules(t)
	m := vmtest.Machine(t, "m", "panic")
	m.Panic, m.VGAMemMiB = true, 1
	m.Append = strings.Replace(m.Append, "console=ttyS0", "console=tty0 console=ttyS0", 1)
	v := start(t, vm.Config{Machine: m})
	if !closed(v.Failed(), bootLimit) {
		t.Fatal("it did not fail")
	}
	if err := v.Err(); !errors.Is(err, vm.Panicked) {
		t.Errorf("got %v", err)
	}
	if closed(v.Done(), 0) {
		t.Error("QEMU ended: nobody can look at the screen")
	}
	path := filepath.Join(t.TempDir(), "screen.png")
	if err := v.Screenshot(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(data, []byte("\x89PNG")) || len(data) < 500 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if keep := os.Getenv("WINVM_TEST_SCREENSHOT"); keep != "" {
		_ = os.WriteFile(keep, data, 0o600)
	}
	if err := v.Screenshot(t.Context(), "relative.png"); err == nil {
		t.Error("a relative path was taken")
	}
}

// A drive whose file can't grow stops the guest, and the cause says so.
func TestDiskError(t *testing.T) {
	vmtest.NeedsModules(t)
	needs.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		needs.Missing(t, "mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { // after QEMU's end
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 16<<20); err != nil {
		t.Fatal(err)
	}
	m := vmtest.Machine(t, "m", "fill")
	m.Drives = []qemu.Drive{{ID: "scratch", File: disk, Format: "raw"}}
	v := start(t, vm.Config{Machine: m})
	if !closed(v.Failed(), bootLimit) {
		t.Fatal("it did not fail")
	}
	if err := v.Err(); !errors.Is(err, vm.DiskError) || !strings.Contains(err.Error(), "drive scratch") {
		t.Errorf("got %v", err)
	}
	t.Log(v.Err())
}

// A QEMU that stops speaking the protocol is killed: nobody could control it.
func TestMonitorLost(t *testing.T) {
	script := filepath.Join(t.TempDir(), "qemu")
	text := `#!/bin/sh
exec >&4 2>/dev/null
echo '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}'
read capabilities <&4; echo '{"return": {}}'
read cont <&4; echo '{"return": {}}'
echo 'I am not QEMU'
exec sleep 1000
`
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	v := start(t, vm.Config{Machine: qemu.Machine{Binary: script, Name: "m", Memory: qemu.Memory{MiB: 1}}})
	if !closed(v.Done(), 5*time.Second) {
		t.Fatal("not done")
	}
	if err := v.Err(); !errors.Is(err, vm.MonitorLost) || !strings.Contains(err.Error(), "I am not QEMU") {
		t.Errorf("got %v", err)
	}
}

func TestQEMUIsKilled(t *testing.T) {
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count")})
	if err := syscall.Kill(v.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if !closed(v.Done(), time.Second) {
		t.Fatal("not done within a second")
	}
	t.Logf("noticed after %v: %v", time.Since(begun), v.Err())
	var end *vm.EndError
	if !errors.Is(v.Err(), vm.Signalled) || !errors.As(v.Err(), &end) || end.Detail != "killed" || end.Status == "" {
		t.Errorf("got %v", v.Err())
	}
	if err := v.Pause(t.Context()); err == nil {
		t.Error("paused a dead VM")
	}
}

// Kill can be called by many, at any time, and ends a stopped process too.
func TestKill(t *testing.T) {
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count")})
	if err := syscall.Kill(v.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for range 3 {
		go func() { errs <- v.Kill() }()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if !errors.Is(v.Err(), vm.Killed) {
		t.Error(v.Err())
	}
}
