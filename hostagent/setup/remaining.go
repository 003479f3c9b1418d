package setup

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// remaining says how long the rest took in other images of the same guest.
func (r *run) remaining(at time.Duration) string {
	names, err := r.Store.List()
	if err != nil {
		return ""
	}
	longest := time.Duration(0)
	for _, name := range names {
		var rec Record
		b, err := os.ReadFile(filepath.Join(r.Store.Dir(name), keptDir, recordFile))
		if err != nil || json.Unmarshal(b, &rec) != nil || rec.Profile != r.Profile.Name || rec.Accel != r.accel {
			continue
		}
		total := time.Duration(0)
		for _, d := range rec.Took {
			total += d
		}
		longest = max(longest, total)
	}
	if longest <= at {
		return ""
	}
	return fmt.Sprintf("; about %v left, as it took before", (longest - at).Round(time.Second))
}
