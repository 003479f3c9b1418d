package build

import (
	"context"
	"fmt"

	"winvm/hostagent/session"
)

// Shell revives a pair as for a build and runs an SSH command in it, the guest's
// shell if it is empty: with a terminal, if e has one. It returns the command's exit
// status.
func Shell(ctx context.Context, c Config, e session.Exec) (int, error) {
	b := &build{Config: c, life: life{isShell: true}}
	ctx = b.begin(ctx)
	defer b.control.cancel(nil)
	status := 0
	nothing := func(context.Context) error { return nil }
	err := b.all(ctx, nothing, func(ctx context.Context) error {
		exit, err := b.session.Run(ctx, e)
		if err != nil {
			return fmt.Errorf("the session in the guest: %w", err)
		}
		if exit.Status != nil {
			status = StatusOfCode(*exit.Status)
		}
		return b.flush(ctx)
	})
	b.writeTrace()
	if err != nil {
		return 0, b.classify(ctx, err)
	}
	return status, nil
}
