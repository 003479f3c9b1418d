package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"winvm/hostagent/build"
	"winvm/hostagent/control"
	"winvm/hostagent/rundir"
	"winvm/hostagent/session"
)

// askLimit is how long a run's host agent may take to answer.
const askLimit = 2 * time.Second

// killLimit is how long a run may take to end.
const killLimit = 30 * time.Second

// A Run is what is known of a run that lives.
type Run struct {
	control.Status
	Dir string `json:"dir"`
	// Problem is why its host agent did not answer; the Status has the ID alone then.
	Problem string `json:"problem,omitempty"`
}

// Runs asks all runs below the state directory what they are at, side by side.
func (h *Host) Runs(ctx context.Context) ([]Run, error) {
	list, err := rundir.List(h.StateDir)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(r rundir.Run) bool { // the second half of a check
		_, err := os.Lstat(filepath.Join(r.Dir, control.SocketName))
		return err != nil
	})
	runs := make([]Run, len(list))
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var wg sync.WaitGroup
	for i, r := range list {
		wg.Go(func() {
			runs[i] = Run{Dir: r.Dir}
			status, err := control.Ask(ctx, r.Dir)
			if err != nil {
				status, runs[i].Problem = control.Status{}, err.Error()
			}
			status.ID = r.ID // the directory's name; the rest is what the process says
			runs[i].Status = status
		})
	}
	wg.Wait()
	living := runs[:0]
	for _, r := range runs {
		if r.Problem == "" || rundir.Locked(r.Dir) { // else it has ended meanwhile
			living = append(living, r)
		}
	}
	return living, nil
}

// Kill ends a run, and returns when it has ended.
func (h *Host) Kill(ctx context.Context, id string) error {
	r, err := rundir.Find(h.StateDir, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	if err := control.Kill(ctx, r.Dir); err != nil {
		return fmt.Errorf("kill run %s: %w", r.ID, err)
	}
	return nil
}

// Screenshot is the guest's screen of a run, a PNG.
func (h *Host) Screenshot(ctx context.Context, id string) ([]byte, error) {
	r, err := rundir.Find(h.StateDir, id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	png, err := control.Screenshot(ctx, r.Dir)
	if err != nil {
		return nil, fmt.Errorf("screenshot of run %s: %w", r.ID, err)
	}
	return png, nil
}

// Attach runs a command, or the guest's shell, in the pair that a failed build has
// left, and returns its exit status.
func (h *Host) Attach(ctx context.Context, id string, e session.Exec) (int, error) {
	r, err := rundir.Find(h.StateDir, id)
	if err != nil {
		return 0, err
	}
	asking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := control.Attach(asking, r.Dir)
	if err != nil {
		return 0, fmt.Errorf("attach to run %s: %w", r.ID, err)
	}
	exit, err := session.RunOver(ctx, stream, e)
	switch {
	case err != nil && errors.Is(err, io.EOF):
		return 0, fmt.Errorf("run %s has ended", r.ID)
	case err != nil:
		return 0, fmt.Errorf("the session in the guest of run %s: %w", r.ID, err)
	case exit.Status == nil:
		return 0, fmt.Errorf("the session in the guest of run %s ended without an exit status", r.ID)
	}
	return build.StatusOfCode(*exit.Status), nil
}
