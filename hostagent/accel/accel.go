// Package accel decides whether guests run under KVM or under TCG.
//
// That /dev/kvm is there and can be opened proves nothing: on some machines (virtual
// ones, mostly) firmware starts under KVM and a normal kernel then hangs. So [Probe]
// boots one: a Linux kernel without a root file system, which has to get as far as its
// panic for the want of one. That shows that ordinary code runs, interrupts come, and
// the serial console works.
//
// The probe takes a fraction of a second where KVM works and two seconds where it
// doesn't, so its answer is kept in a file, by machine: by machine-id, CPU, kernel,
// QEMU and the device node. A "no" is kept for a day only, since a machine that was busy
// may have missed the two seconds, and a "yes" for a month. A file that can't be read,
// or is damaged, is as good as none.
package accel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
)

// Auto is the value of [Config.Want] that lets the machine decide; the others are the two
// accelerators.
const Auto = "auto"

// limit is how long the kernel may take to its panic. Under KVM it takes 0.2 to 0.6 s.
const limit = 2 * time.Second

// device is what KVM is used through.
const device = "/dev/kvm"

// Result is the decision.
type Result struct {
	Accel  qemu.Accel `json:"accel"`
	Reason string     `json:"reason"` // why, for people
	// Remembered is true if the answer came from the file.
	Remembered bool `json:"-"`
}

// Config is what a probe needs.
type Config struct {
	Want   string       // what the user asks for: [Auto] or "", "kvm", "tcg"
	Kernel string       // a Linux kernel that is like the guests'; absolute path
	Binary string       // QEMU; "" = [qemu.DefaultBinary]
	CPU    string       // the guests' CPU model under KVM; "" = [qemu.Machine]'s default
	Cache  string       // the file in which the answer is kept; "" = none
	Logger *slog.Logger // required
}

// Probe decides. What the user asked for is taken as it is; else it finds out whether KVM
// runs a normal guest here. An error means that what was asked for can't be had, or that
// nothing could be found out: no kernel, no QEMU, or ctx ended.
func Probe(ctx context.Context, cfg Config) (Result, error) {
	switch cfg.Want {
	case Auto, "":
		return probe(ctx, cfg, device)
	case string(qemu.TCG):
		return Result{Accel: qemu.TCG, Reason: "asked for"}, nil
	case string(qemu.KVM):
		if err := openable(device); err != nil {
			return Result{}, fmt.Errorf("accelerator kvm was asked for, but: %w (make it usable, or take tcg or auto)", err)
		}
		return Result{Accel: qemu.KVM, Reason: "asked for"}, nil
	}
	return Result{}, fmt.Errorf("accelerator %q: want auto, kvm or tcg", cfg.Want)
}

func probe(ctx context.Context, cfg Config, device string) (Result, error) {
	if err := openable(device); err != nil {
		return Result{Accel: qemu.TCG, Reason: err.Error()}, nil
	}
	if cfg.Binary == "" {
		cfg.Binary = qemu.DefaultBinary
	}
	if _, err := os.Stat(cfg.Kernel); err != nil {
		return Result{}, fmt.Errorf("probe KVM: no kernel to boot: %w", err)
	}
	version, err := qemu.Version(ctx, cfg.Binary)
	if err != nil {
		return Result{}, fmt.Errorf("probe KVM: %w", err)
	}
	key := machineKey(version, cfg.CPU, device)
	if r, ok := recall(cfg.Cache, key, time.Now()); ok {
		return r, nil
	}
	begun := time.Now()
	r, err := boot(ctx, cfg, qemu.KVM, limit)
	if err != nil {
		return Result{}, fmt.Errorf("probe KVM: %w", err)
	}
	cfg.Logger.Info("probed KVM", "result", r.Accel, "reason", r.Reason, "took", time.Since(begun))
	if err := remember(cfg.Cache, key, r, time.Now()); err != nil {
		cfg.Logger.Warn("could not keep the result of the KVM probe; it will be made again", "error", err)
	}
	return r, nil
}

// openable says why the device can't be used, in the user's words.
func openable(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no %s: no hardware virtualisation, or its module isn't loaded", device)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission to open %s: its group (kvm) may", device)
	}
	return fmt.Errorf("can't use %w", err)
}

// boot tries one accelerator. It fails only if ctx ends.
func boot(ctx context.Context, cfg Config, accel qemu.Accel, limit time.Duration) (Result, error) {
	no := func(format string, args ...any) Result {
		return Result{Accel: qemu.TCG, Reason: fmt.Sprintf(format, args...)}
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	startCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	v, err := vm.Start(startCtx, vm.Config{
		Machine: qemu.Machine{
			Binary: cfg.Binary, Name: "probe", Accel: accel, CPU: cfg.CPU, Memory: qemu.Memory{MiB: 128},
			Kernel: cfg.Kernel, NoRNG: true,
			// panic=-1 reboots at once, which ends QEMU.
			Append: "console=ttyS0 panic=-1",
		},
		Logger: cfg.Logger,
	})
	if ctx.Err() != nil {
		if err == nil {
			_ = v.Kill()
		}
		return Result{}, context.Cause(ctx)
	}
	if err != nil {
		return no("QEMU does not start with %s: %s", accel, reason(err)), nil
	}
	defer func() { _ = v.Kill() }()
	select {
	case <-v.Done():
	case <-timer.C:
		return no("a normal kernel does not boot under %s within %v: it %s", accel, limit, saidLast(v.ConsoleTail())), nil
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
	if err := v.Err(); !errors.Is(err, vm.Rebooted) || !strings.Contains(v.ConsoleTail(), "Kernel panic") {
		return no("a normal kernel does not run under %s: %v; it %s", accel, err, saidLast(v.ConsoleTail())), nil
	}
	return Result{Accel: accel, Reason: "a normal kernel boots under " + string(accel)}, nil
}

// reason is the part of a failed start that tells a person something.
func reason(err error) string {
	var end *vm.EndError
	if errors.As(err, &end) && end.Stderr != "" {
		return strings.ReplaceAll(end.Stderr, "\n", "; ")
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// saidLast tells the last line of a console.
func saidLast(console string) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(console, "\r", "")), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return fmt.Sprintf("said last %.200q", last)
	}
	return "said nothing"
}
