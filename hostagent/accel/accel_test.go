package accel

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/hostagent/qemu"
	"winvm/hostagent/vm/vmtest"
	"winvm/transport/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(t *testing.T) Config {
	t.Helper()
	return Config{
		Kernel: vmtest.Kernel(t), Binary: needs.Tool(t, qemu.DefaultBinary),
		Cache: filepath.Join(t.TempDir(), "new", "accel.json"), Logger: slog.New(slog.DiscardHandler),
	}
}

// Whatever this machine can do: the answer comes in time, is kept, and is the same.
func TestProbeHere(t *testing.T) {
	cfg := config(t)
	begun := time.Now()
	r, err := Probe(t.Context(), cfg)
	took := time.Since(begun)
	if err != nil || r.Reason == "" || r.Remembered {
		t.Fatalf("got %+v, %v", r, err)
	}
	t.Logf("%v: %+v", took, r)
	if took > limit+time.Second {
		t.Errorf("took %v", took)
	}
	if openable(device) != nil {
		if r.Accel != qemu.TCG || took > 100*time.Millisecond {
			t.Errorf("without %s: %+v after %v", device, r, took)
		}
		return
	}
	begun = time.Now()
	again, err := Probe(t.Context(), cfg)
	if err != nil || !again.Remembered || again.Accel != r.Accel || again.Reason != r.Reason {
		t.Errorf("the second time: %+v, %v", again, err)
	}
	t.Logf("the second time: %v", time.Since(begun))
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(cfg.Cache), ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A CPU model that KVM can always show: where /dev/kvm is there but does not run a
// normal kernel, this is what hangs, and where "host" makes QEMU give up.
func TestProbeHereWithAnOldCPU(t *testing.T) {
	cfg := config(t)
	cfg.CPU = "qemu64"
	begun := time.Now()
	r, err := Probe(t.Context(), cfg)
	if took := time.Since(begun); err != nil || r.Reason == "" || took > limit+time.Second {
		t.Errorf("got %+v, %v, after %v", r, err, took)
	}
	t.Logf("%v: %+v", time.Since(begun), r)
}

// What a "yes" looks like, on the accelerator that is there everywhere.
func TestKernelReachesItsPanic(t *testing.T) {
	r, err := boot(t.Context(), config(t), qemu.TCG, time.Minute)
	if err != nil || r.Reason != "a normal kernel boots under tcg" {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestKernelTooSlow(t *testing.T) {
	begun := time.Now()
	r, err := boot(t.Context(), config(t), qemu.TCG, 300*time.Millisecond)
	if err != nil || !strings.Contains(r.Reason, "does not boot under tcg within 300ms: it said ") {
		t.Fatalf("got %+v, %v", r, err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestQEMUDoesNotStart(t *testing.T) {
	cfg := config(t)
	cfg.Kernel = "/dev/null" // QEMU refuses it
	if r, err := boot(t.Context(), cfg, qemu.TCG, 5*time.Second); err != nil || r.Accel != qemu.TCG || !strings.Contains(r.Reason, "does not start") {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestProbeIsCancelled(t *testing.T) {
	cfg := config(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := boot(ctx, cfg, qemu.TCG, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestNoDevice(t *testing.T) {
	r, err := probe(t.Context(), Config{}, "/nonexistent/kvm")
	if err != nil || r.Accel != qemu.TCG || !strings.Contains(r.Reason, "there is no /nonexistent/kvm") {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestProbeNeedsAKernel(t *testing.T) {
	if _, err := probe(t.Context(), Config{Kernel: "/nonexistent/vmlinuz"}, "/dev/null"); err == nil || !strings.Contains(err.Error(), "no kernel to boot") {
		t.Fatalf("got %v", err)
	}
}

func TestWant(t *testing.T) {
	if r, err := Probe(t.Context(), Config{Want: "tcg"}); err != nil || r.Accel != qemu.TCG {
		t.Errorf("got %+v, %v", r, err)
	}
	r, err := Probe(t.Context(), Config{Want: "kvm"})
	if can := openable(device); (can == nil) != (err == nil) || err == nil && r.Accel != qemu.KVM {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := Probe(t.Context(), Config{Want: "xen"}); err == nil {
		t.Error("xen was accepted")
	}
}

func TestCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "accel.json")
	now := time.Now()
	yes := Result{Accel: qemu.KVM, Reason: "because"}
	if err := remember(path, "key", yes, now); err != nil {
		t.Fatal(err)
	}
	got, ok := recall(path, "key", now.Add(29*24*time.Hour))
	if !ok || got.Accel != qemu.KVM || got.Reason != "because" || !got.Remembered {
		t.Fatalf("got %+v, %v", got, ok)
	}
	for name, no := range map[string]bool{
		"another machine": second(recall(path, "other", now)),
		"too old":         second(recall(path, "key", now.Add(31*24*time.Hour))),
		"from the future": second(recall(path, "key", now.Add(-time.Hour))),
		"no file":         second(recall(path+"x", "key", now)),
		"no path":         second(recall("", "key", now)),
	} {
		if no {
			t.Errorf("%s: was believed", name)
		}
	}
	if err := remember(path, "key", Result{Accel: qemu.TCG}, now); err != nil {
		t.Fatal(err)
	}
	if second(recall(path, "key", now.Add(25*time.Hour))) {
		t.Error("a no is kept for a day only")
	}
	whole, _ := os.ReadFile(path)
	for _, damaged := range []string{
		"", "{", string(whole[:len(whole)/2]), `{"key":"key","result":{"accel":"rm -rf"}}`, strings.Repeat(" ", maxCache) + string(whole),
	} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if second(recall(path, "key", now)) {
			t.Errorf("damaged, but believed: %.40q", damaged)
		}
	}
	if err := remember("/dev/null/x", "key", yes, now); err == nil {
		t.Error("written to nowhere")
	}
}

func second(_ Result, ok bool) bool { return ok }

func TestMachineKey(t *testing.T) {
	a := machineKey("7.2", "", "/dev/null")
	if a != machineKey("7.2", "", "/dev/null") {
		t.Error("the key changes")
	}
	if a == machineKey("8.2", "", "/dev/null") || a == machineKey("7.2", "", "/dev/zero") {
		t.Error("the key doesn't change")
	}
	if !strings.Contains(cpuModel(), "flags=") || kernelRelease() == "" {
		t.Errorf("%q, %q", cpuModel(), kernelRelease())
	}
}
