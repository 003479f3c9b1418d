package soak

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/hostagent/hostfs"
	"winvm/hostagent/nixstore"
	"winvm/transport/needs"
)

var (
	soakFor   = flag.Duration("soak.for", 2*time.Second, "how long to go on")
	soakSeed  = flag.Uint64("soak.seed", 0, "seed of the operations; 0 takes one from the clock")
	soakEvery = flag.Duration("soak.every", 700*time.Millisecond, "mean time between two faults of a link")
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "1" {
		run := runMapper
		if os.Args[1] != mapperArg {
			run = func() error { return runChild(os.Args[1], os.Args[2]) }
		}
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// A run is what one test has together.
type run struct {
	t      *testing.T
	seed   uint64
	dirs   dirs
	hosts  [2]*host
	mounts [2]string
	n      counts
	failed atomic.Bool
	stop   context.CancelFunc
	check  func() // when all are done
}

func (r *run) fail(who string) func(string, ...any) {
	return func(format string, args ...any) {
		r.failed.Store(true)
		r.t.Errorf("seed %d: %s: %s", r.seed, who, fmt.Sprintf(format, args...))
		r.stop()
	}
}

func TestSoak(t *testing.T) {
	needs.FUSE(t)
	if _, err := hostfs.RaiseFileLimit(); err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, seed: *soakSeed}
	if r.seed == 0 {
		r.seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", r.seed)
	r.start()
}

func (r *run) start() {
	t := r.t
	base := t.TempDir()
	r.dirs = dirs{store: filepath.Join(base, "store"), outputs: filepath.Join(base, "outputs"), xchg: filepath.Join(base, "xchg")}
	for _, d := range []string{r.dirs.store, r.dirs.outputs, r.dirs.xchg, filepath.Join(r.dirs.outputs, outName)} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := r.makeStore()
	store, err := nixstore.New(r.dirs.store, []string{"input"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()

	serving, end := context.WithCancel(context.Background())
	var hosts, workers sync.WaitGroup
	defer hosts.Wait()
	defer end()
	for i := range r.hosts {
		socket := filepath.Join(base, fmt.Sprintf("s%d", i))
		r.hosts[i] = startHost(serving, t, &hosts, socket, r.dirs, store, r.seed+uint64(i))
		r.mounts[i] = startChild(t, socket)
	}
	working, stop := context.WithTimeout(context.Background(), *soakFor)
	r.stop = stop
	defer stop()
	begin := time.Now()
	r.work(working, &workers, files)
	workers.Wait()
	r.check()
	r.report(time.Since(begin))
}

// work starts everybody who works until ctx ends.
func (r *run) work(ctx context.Context, wg *sync.WaitGroup, files map[string][]byte) {
	log := newLog(r)
	for i := range 6 {
		w := &worker{
			name: fmt.Sprintf("w%d", i), host: r.hosts[i%2], n: &r.n, mapper: startMapper(r.t),
			rnd: rand.New(rand.NewPCG(r.seed, uint64(i))), behind: i < 4,
		}
		w.fail = w.explain(r.fail(w.name))
		w.dir, w.real = filepath.Join(r.mounts[i%2], "xchg", w.name), r.dirs.xchgDir(w.name)
		if i >= 4 {
			w.dir, w.real = filepath.Join(r.mounts[i%2], "store", outName, w.name), r.dirs.outputsDir(w.name)
		}
		if err := os.Mkdir(w.real, 0o755); err != nil {
			r.t.Fatal(err)
		}
		wg.Go(func() { w.run(ctx.Done()) })
	}
	for i := range 4 {
		wg.Go(func() { log.appender(ctx, i) })
	}
	wg.Go(func() { r.readStore(ctx, files) })
	wg.Go(func() { r.watchHost(ctx) })
	for _, h := range r.hosts {
		wg.Go(func() { h.faultsLoop(ctx, *soakEvery) })
	}
	r.check = log.check
}

func (r *run) report(took time.Duration) {
	var sessions, injected int64
	kinds := map[string]int64{}
	for _, h := range r.hosts {
		sessions += h.sessions.Load()
		injected += h.injected.Load()
		for f := range h.kinds {
			if n := h.kinds[f].Load(); n > 0 {
				kinds[faultNames[f]] += n
			}
		}
	}
	r.t.Logf("%v: %d operations, %d MB written, %d files confirmed and compared, %d trees compared, %d faults %v, %d sessions, %d errors told, %d recoveries, %d losses seen before they were told",
		took.Round(time.Second), r.n.ops.Load(), r.n.bytes.Load()>>20, r.n.confirmed.Load(), r.n.checked.Load(),
		injected, kinds, sessions, r.n.told.Load(), r.n.recovered.Load(), r.n.lost.Load())
}
