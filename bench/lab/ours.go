package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"winvm/hostagent/export"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/nixstore"
	"winvm/transport/mux"
)

// ours serves both shares over one session: what the host agent does in a build.
type ours struct {
	store   *nixstore.Store
	scan    time.Duration // that the store took to open
	tree    *hostfs.FS
	session *mux.Session
	served  chan struct{}
}

// openOurs looks at the store as a build does before its VMs run.
func openOurs(ctx context.Context, dir string, log *slog.Logger) (*ours, error) {
	storeDir := filepath.Join(dir, "store")
	entries, err := os.ReadDir(storeDir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(storeDir, e.Name()))
	}
	o := &ours{}
	begin := time.Now()
	if o.store, err = nixstore.Open(ctx, storeDir, paths, nil, log); err != nil {
		return nil, err
	}
	o.scan = time.Since(begin)
	if o.tree, err = hostfs.New(hostfs.Config{Root: filepath.Join(dir, "xchg"), Logger: log}); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

// serve dials the controller VM and serves until close. lane says whether the session
// has to have shared memory, or may not.
func (o *ours) serve(ctx context.Context, ep *mux.Endpoint, lane bool, log *slog.Logger) error {
	s, err := ep.Dial(ctx)
	if err != nil {
		return fmt.Errorf("no session: %w", err)
	}
	if (s.Lane() != nil) != lane {
		s.Abort(io.EOF)
		return fmt.Errorf("the session has shared memory: %v; wanted: %v", !lane, lane)
	}
	o.session, o.served = s, make(chan struct{})
	go func() {
		defer close(o.served)
		_ = export.Serve(ctx, s, export.Shares{Store: o.store, Xchg: o.tree}, log)
	}()
	return nil
}

func (o *ours) close() error {
	var errs []error
	if o.session != nil {
		o.session.Abort(io.EOF)
		<-o.served
	}
	if o.store != nil {
		errs = append(errs, o.store.Close())
	}
	if o.tree != nil {
		errs = append(errs, o.tree.Close())
	}
	return errors.Join(errs...)
}
