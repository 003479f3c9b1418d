package hostagent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"winvm/hostagent/build"
	"winvm/hostagent/session"
)

// Shell runs an interactive command (or the guest's shell) in a revived pair,
// and returns its exit status.
func (h *Host) Shell(ctx context.Context, c build.Config, e session.Exec) (int, error) {
	return build.Shell(ctx, h.complete(c), e)
}

// Path completes a path below the state directory, for messages.
func (h *Host) Path(elem ...string) string {
	return filepath.Join(append([]string{h.StateDir}, elem...)...)
}

// CheckStateDir makes the state directory, and says so if that can't be.
func (h *Host) CheckStateDir() error {
	if err := os.MkdirAll(h.StateDir, 0o755); err != nil {
		return fmt.Errorf("state directory: %w; --state-dir or WINVM_STATE_DIR names another", err)
	}
	return nil
}
