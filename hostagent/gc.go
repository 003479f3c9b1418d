package hostagent

import (
	"context"
	"errors"
	"time"

	"winvm/hostagent/garbage"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/rundir"
)

// GC removes what nobody uses, or, if dry is set, only says what it would remove. Kept
// failures, logs and cached root file systems have to be older than age.
func (h *Host) GC(ctx context.Context, age time.Duration, dry bool) ([]garbage.Item, error) {
	var needed []string
	names, err := h.Images().List()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		i, err := h.Images().Load(n)
		if err != nil {
			h.Log.Warn("an image is left alone", "error", err)
			continue
		}
		for _, digest := range i.Recipes {
			needed = append(needed, digest)
		}
	}
	runs, errRuns := rundir.Garbage(h.StateDir, age)
	images, errImages := h.Images().Garbage()
	roots, errRoots := recipe.Garbage(h.CacheDir, needed, age)
	gone, err := garbage.Collect(ctx, append(append(runs, images...), roots...), dry)
	return gone, errors.Join(err, errRuns, errImages, errRoots)
}
