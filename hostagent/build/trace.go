package build

import (
	"errors"
	"os"
	"path/filepath"

	"winvm/hostagent/event"
)

// TraceName is the timeline's file in a run's logs, a Chrome trace.
const TraceName = "timeline.json"

// writeTrace writes the timeline to the run's logs, and where else it was asked for.
// That it can't be written is no reason to fail a build.
func (b *build) writeTrace() {
	paths := []string{b.TraceFile}
	if b.logs != "" {
		paths = append(paths, filepath.Join(b.logs, TraceName))
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		if err := b.writeTraceTo(path); err != nil {
			b.Report.Tell(event.KindWarning, "the timeline could not be written: %v", err)
		}
	}
}

func (b *build) writeTraceTo(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(b.Timeline.WriteTrace(f, "hostagent build "+b.result.ID), f.Close())
}
