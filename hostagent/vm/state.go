package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"winvm/hostagent/qmp"
)

// Pause stops the guest's CPUs. It does nothing if they stand still already.
func (v *VM) Pause(ctx context.Context) error {
	return v.change(ctx, "pause", "stop", paused)
}

// Resume lets the guest's CPUs run. It does nothing if they run already.
func (v *VM) Resume(ctx context.Context) error {
	return v.change(ctx, "resume", "cont", running)
}

// change moves between running and paused.
func (v *VM) change(ctx context.Context, verb, command string, to stage) error {
	at := v.at()
	if at == to || at == saved && to == paused {
		return nil
	}
	if at != running && at != paused {
		return fmt.Errorf("%s VM %s: %s", verb, v.name, stageTexts[at])
	}
	v.mu.Lock()
	v.pausing = to == paused
	v.mu.Unlock()
	if err := v.mon.Run(ctx, command, nil, nil); err != nil {
		return fmt.Errorf("%s VM %s: %w", verb, v.name, v.ended(err))
	}
	v.setStage(to)
	return nil
}

func (v *VM) at() stage {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stage
}

func (v *VM) setStage(s stage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stage = s
}

// Save pauses the guest and writes its state to file, from the file's offset on. With
// shared memory that is the state of the devices, and the memory file has the rest;
// without, the memory is part of it. Save doesn't sync either of them.
//
// When it fails, also because ctx ended, the guest is paused and can be resumed; what
// the file holds then is worthless. (QEMU can't interrupt a write: if file is a pipe
// that nobody reads, Save gives up waiting for it after two seconds.)
func (v *VM) Save(ctx context.Context, file *os.File) error {
	if err := v.Pause(ctx); err != nil {
		return err
	}
	if at := v.at(); at != paused {
		return fmt.Errorf("save VM %s: %s", v.name, stageTexts[at])
	}
	err := v.migrate(ctx, file, "migrate")
	if err != nil {
		return fmt.Errorf("save the state of VM %s: %w", v.name, v.ended(err))
	}
	v.setStage(saved)
	return nil
}

// Load reads the state that Save wrote, from the file's offset on; the VM must have been
// started with Machine.Incoming. Afterwards it is paused.
//
// If the VM was saved with shared memory, Machine.Memory.File is the file that was the
// memory then. When Load fails, only Kill is left.
func (v *VM) Load(ctx context.Context, file *os.File) error {
	if at := v.at(); at != waiting {
		return fmt.Errorf("load the state of VM %s: %s", v.name, stageTexts[at])
	}
	if err := v.migrate(ctx, file, "migrate-incoming"); err != nil {
		v.setStage(broken)
		return fmt.Errorf("load the state of VM %s: %w", v.name, v.ended(err))
	}
	v.setStage(paused)
	return nil
}

// stateFD is the name that the state's file has in QEMU.
const stateFD = "winvm-state"

// migrate moves the state through file in the direction of command.
func (v *VM) migrate(ctx context.Context, file *os.File, command string) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	// x-ignore-shared leaves out memory that is mapped shared. It is in the stream and
	// must be equal on both sides, so it can't depend on how the memory is mapped here.
	if err := v.mon.Run(ctx, "migrate-set-capabilities", map[string]any{"capabilities": []capability{
		{"events", true}, {"x-ignore-shared", v.memoryFile},
	}}, nil); err != nil {
		return err
	}
	if command == "migrate" {
		// The default is 128 MiB/s, which is for networks.
		if err := v.mon.Run(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}, nil); err != nil {
			return err
		}
	}
	events := v.mon.Subscribe("MIGRATION")
	defer events.Close()
	if err := v.mon.RunWithFile(ctx, "getfd", map[string]string{"fdname": stateFD}, file, nil); err != nil {
		return err
	}
	if err := v.mon.Run(ctx, command, map[string]string{"uri": "fd:" + stateFD}, nil); err != nil {
		return err
	}
	err := v.waitMigration(ctx, events)
	if err != nil && ctx.Err() != nil && command == "migrate" {
		v.cancelMigration(ctx, events)
	}
	return err
}

// errMigration is a migration that QEMU gave up.
var errMigration = errors.New("QEMU could not move the state")

// waitMigration waits for the migration's end.
func (v *VM) waitMigration(ctx context.Context, events *qmp.Subscription) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, ok := <-events.C:
			if !ok {
				return qmp.ErrClosed
			}
			switch status := e.String("status"); status {
			case "completed":
				return nil
			case "failed", "cancelled":
				return v.migrationError(ctx, status)
			}
		}
	}
}

// migrationError asks QEMU why; for an incoming one it is about to end, and says it on
// its standard error only.
func (v *VM) migrationError(ctx context.Context, status string) error {
	var info struct {
		Desc string `json:"error-desc"`
	}
	err := v.mon.Run(ctx, "query-migrate", nil, &info)
	if errors.Is(err, qmp.ErrClosed) {
		return err
	}
	if info.Desc == "" {
		info.Desc = status
	}
	return fmt.Errorf("%w: %s", errMigration, info.Desc)
}

// cancelMigration makes sure that nothing more is written when Save has returned.
func (v *VM) cancelMigration(ctx context.Context, events *qmp.Subscription) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := v.mon.Run(ctx, "migrate_cancel", nil, nil); err != nil {
		v.log.Warn("could not cancel the saving of the state", "error", err)
		return
	}
	if err := v.waitMigration(ctx, events); err != nil && ctx.Err() != nil {
		v.log.Warn("the saving of the state does not end", "error", err)
	}
}

// Screenshot writes what the VGA adapter shows to path, an absolute one, as a PNG.
func (v *VM) Screenshot(ctx context.Context, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("screenshot of VM %s: %q is not an absolute path", v.name, path)
	}
	err := v.mon.Run(ctx, "screendump", map[string]string{"filename": path, "format": "png"}, nil)
	if err != nil {
		return fmt.Errorf("screenshot of VM %s: %w", v.name, v.ended(err))
	}
	return nil
}
