package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"winvm/hostagent/usage"
)

// noteUse has the controller agent note what is opened and read, if somebody wants to
// know.
func (b *build) noteUse(ctx context.Context) error {
	if b.ReportDir == "" && !b.NoteUse {
		return nil
	}
	err := b.session.Agent.Track(ctx)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("the image's controller agent can't tell what a build reads: `hostagent suspend %s` brings it up to date", b.Image)
	}
	if err != nil {
		return fmt.Errorf("noting what the build reads: %w", err)
	}
	return nil
}

// tellUse makes the report of it.
func (b *build) tellUse(ctx context.Context) error {
	if b.ReportDir == "" && !b.NoteUse {
		return nil
	}
	defer b.Timeline.Begin("report")()
	list, partial, err := b.session.Agent.Touched(ctx)
	if err != nil {
		return fmt.Errorf("asking what the build has read: %w", err)
	}
	r := usage.New(b.StoreDir, b.store.Manifests(), list, partial)
	for _, name := range b.outNames() {
		if err := r.AddWritten(filepath.Join(b.staging, name)); err != nil {
			return fmt.Errorf("report of what was written: %w", err)
		}
	}
	b.result.Use = &r
	if b.ReportDir == "" {
		return nil
	}
	if err := r.Write(b.ReportDir); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}
