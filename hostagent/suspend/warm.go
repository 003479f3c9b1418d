package suspend

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"winvm/hostagent/image"
	"winvm/hostagent/manifest"
	"winvm/hostagent/nixstore"
	"winvm/hostagent/session"
	"winvm/transport/wire"
)

// ErrWarmTooLarge is returned if the inputs to be warmed don't fit into the controller's
// memory.
var ErrWarmTooLarge = errors.New("don't fit into the controller's memory")

// What the controller's memory is needed for beside contents of files, in bytes: the
// system, smbd and the agent with what it reads ahead and what a build's other files
// take; and of each file its inode and name in the kernel, and its metadata in the agent.
const (
	controllerReserve = 160 << 20
	perWarmEntry      = 1400
	pageSize          = 4096
)

// openWarm opens what is to be warmed as the store that the suspend shows, and nothing
// as an empty one.
func (a *attempt) openWarm(ctx context.Context) (*nixstore.Store, error) {
	w := a.Image.Warm
	if w == nil {
		return nixstore.New(filepath.Join(a.WorkDir, "store"), nil)
	}
	paths, err := nixstore.Closure(ctx, w.Store, w.Inputs)
	var store *nixstore.Store
	if err == nil {
		store, err = nixstore.Open(ctx, w.Store, paths, a.Manifests, a.Log)
	}
	if err != nil {
		return nil, fmt.Errorf("inputs to be kept warm: %w; `hostagent suspend %s` takes --warm for others and --cold for none", err, a.Image.Name)
	}
	if err := checkWarm(store.Manifests(), a.Image.ControllerMemory()); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// checkWarm refuses what the controller's memory can't hold.
func checkWarm(ms []*manifest.Manifest, controllerMiB int) error {
	need := int64(controllerReserve)
	for _, m := range ms {
		need += int64(m.Section.Len()) * perWarmEntry
		for i := range m.Section.Len() {
			if m.Section.Kind(i) == wire.KindFile {
				// A size that can't be summed up is too much anyway.
				pages := min(m.Section.Size(i), 1<<40) + pageSize - 1
				need += int64(pages / pageSize * pageSize)
			}
		}
		if need > 1<<50 {
			break
		}
	}
	if mib := (need + 1<<20 - 1) >> 20; mib > int64(controllerMiB) {
		return fmt.Errorf("the inputs to be kept warm %w: with all else it would need %d MiB and has %d; name fewer with --warm, or give --controller-memory %d",
			ErrWarmTooLarge, mib, controllerMiB, mib)
	}
	return nil
}

// warm has the controller read everything that is to be warm.
func (a *attempt) warm(ctx context.Context, s *session.Session, store *nixstore.Store) error {
	if a.Image.Warm == nil {
		return nil
	}
	a.Report.Stage("suspend", "reading the warm inputs into the controller")
	r, err := s.Agent.Warm(ctx)
	if err != nil {
		return fmt.Errorf("reading the warm inputs into the controller: %w", err)
	}
	a.state.Warmed = &image.Warmed{StorePaths: len(store.Names()), Files: r.Files, Bytes: r.Bytes}
	a.Log.Debug("warm inputs", "files", r.Files, "bytes", r.Bytes, "took", r.Took)
	return nil
}
