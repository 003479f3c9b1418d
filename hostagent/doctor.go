package hostagent

import (
	"context"

	"winvm/hostagent/doctor"
)

// Doctor looks at all that is needed of this host.
func (h *Host) Doctor(ctx context.Context) []doctor.Check {
	return doctor.Run(ctx, doctor.Config{
		StateDir: h.StateDir, CacheDir: h.CacheDir, LibexecDir: h.LibexecDir,
		Helpers: []string{agentFile, runnerFile}, QEMU: h.QEMU, Accelerator: h.Accelerator,
	})
}
