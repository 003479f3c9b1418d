package vm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/hostagent/qemu"
	"winvm/hostagent/qmp"
	"winvm/hostagent/vm"
	"winvm/hostagent/vm/vmtest"
)

func TestMain(m *testing.M) {
	if pid := os.Getenv("WINVM_TEST_HOST"); pid != "" {
		hostProcess() // see TestNoQEMUSurvivesItsHost
		return
	}
	goleak.VerifyTestMain(m)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func start(t *testing.T, cfg vm.Config) *vm.VM {
	t.Helper()
	cfg.Logger = quiet()
	v, err := vm.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("command: %s\nstderr: %s\nconsole:\n%s", v.Command(), v.Stderr(), v.ConsoleTail())
		}
		if err := v.Kill(); err != nil {
			t.Error(err)
		}
		for _, p := range cfg.Machine.Ports {
			v.Port(p.Name).Close()
		}
	})
	return v
}

// eventually polls, for what has no event: what a guest prints.
func eventually(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", limit, what)
		}
	}
}

const bootLimit = 90 * time.Second

// lastCount is the last number that a counting guest has printed whole, or -1.
func lastCount(v *vm.VM) int { return counts(v.ConsoleTail(), true) }

func firstCount(v *vm.VM) int { return counts(v.ConsoleTail(), false) }

func counts(console string, last bool) int {
	at := -1
	lines := strings.Split(console, "\n")
	for _, l := range lines[:len(lines)-1] {
		if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(l, "count "))); err == nil {
			if at = n; !last {
				break
			}
		}
	}
	return at
}

func closed(c <-chan struct{}, limit time.Duration) bool {
	select {
	case <-c:
		return true
	case <-time.After(limit):
		return false
	}
}

func hash(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestStartFailures(t *testing.T) {
	good := vmtest.Machine(t, "m", "count")
	for name, tc := range map[string]struct {
		change func(*qemu.Machine)
		want   string
	}{
		"no QEMU":   {func(m *qemu.Machine) { m.Binary = "/nonexistent/qemu" }, "is QEMU installed?"},
		"no kernel": {func(m *qemu.Machine) { m.Kernel = "/nonexistent/vmlinuz" }, "/nonexistent/vmlinuz"},
		"no drive": {func(m *qemu.Machine) {
			m.Drives = []qemu.Drive{{ID: "a", File: "/nonexistent/disk", Format: "raw"}}
		}, "/nonexistent/disk"},
		"cpu":      {func(m *qemu.Machine) { m.CPU = "z80" }, "z80"},
		"invalid":  {func(m *qemu.Machine) { m.Memory.MiB = 0 }, "MiB of memory"},
		"no link":  {func(m *qemu.Machine) { m.NIC = &qemu.NIC{MAC: "52:54:00:00:00:01"} }, "needs a link"},
		"not QEMU": {func(m *qemu.Machine) { m.Binary = "/bin/true" }, "exit status 0"},
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			tc.change(&m)
			begun := time.Now()
			v, err := vm.Start(t.Context(), vm.Config{Machine: m, Logger: quiet()})
			if err == nil {
				v.Kill()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something with %q", err, tc.want)
			}
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A QEMU that never greets: the context ends the wait, and the process is gone.
func TestStartIsCancelled(t *testing.T) {
	script := filepath.Join(t.TempDir(), "qemu")
	pidFile := filepath.Join(t.TempDir(), "pid")
	text := fmt.Sprintf("#!/bin/sh\necho $$ > %s\nexec sleep 1000\n", pidFile)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := vm.Start(ctx, vm.Config{
		Machine: qemu.Machine{Binary: script, Name: "m", Memory: qemu.Memory{MiB: 1}}, Logger: quiet(),
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	data, _ := os.ReadFile(pidFile)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || syscall.Kill(pid, 0) == nil {
		t.Errorf("process %d is still there (%v)", pid, err)
	}
}

func TestConsoleLogIsBounded(t *testing.T) {
	log := filepath.Join(t.TempDir(), "console")
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count"), ConsoleLog: log, ConsoleLogLimit: 50})
	eventually(t, "the guest counts", bootLimit, func() bool { return lastCount(v) >= 5 })
	v.Kill()
	data, err := os.ReadFile(log)
	if err != nil || len(data) > 150 || !bytes.Contains(data, []byte("limit is reached")) {
		t.Errorf("%q, %v", data, err)
	}
}

func TestCommandsOfARefusedKind(t *testing.T) {
	v := start(t, vm.Config{Machine: vmtest.Machine(t, "m", "count")})
	err := v.Screenshot(t.Context(), filepath.Join(t.TempDir(), "x.png"))
	var refused *qmp.Error
	if !errors.As(err, &refused) {
		t.Errorf("a screenshot without a VGA adapter: %v", err)
	}
	if err := v.Load(t.Context(), nil); err == nil {
		t.Error("a running VM was loaded into")
	}
	if err := v.WaitPort(t.Context(), "nosuch", true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
