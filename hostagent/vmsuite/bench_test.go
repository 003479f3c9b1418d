package vmsuite_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"winvm/hostagent/export"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/nixstore"
	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/transport/mux"
	"winvm/transport/needs"
	"winvm/transport/shm"
)

// benchBytes is what each pass of a benchmark moves.
const benchBytes = 64 << 20

// BenchmarkWire is how quickly bytes get into the controller VM and out of it, layer
// by layer, in one run: the port itself, a stream, the RPC, a file through FUSE. The
// ratio to the port's figure is what can be compared between machines.
//
// WINVM_BENCH_PROFILE=DIR puts CPU profiles of both agents and of the guest's kernel
// there.
func BenchmarkWire(b *testing.B) {
	w := startWire(b, false)
	for _, n := range []int{1, 2, 4} {
		name := map[int]string{1: "raw", 2: "raw2", 4: "raw4"}[n]
		w.run(b, name+"/in", func(b *testing.B) { w.raw(b, "raw-read", n, pour) })
		w.run(b, name+"/out", func(b *testing.B) { w.raw(b, "raw-write", n, drain) })
	}
	w.session(b)
	for name, open := range map[string]opener{"yamux": w.s.Open, "bulk": w.s.OpenBulk} {
		w.run(b, name+"/in", func(b *testing.B) { w.stream(b, open, "sink", pour) })
		w.run(b, name+"/out", func(b *testing.B) { w.stream(b, open, "source", drain) })
	}
	for _, op := range []string{"rpc-read", "rpc-write", "fuse-read", "fuse-write"} {
		w.run(b, strings.Replace(op, "-", "/", 1), func(b *testing.B) { w.order(b, op, 0, func() {}) })
	}
	w.check(b)
	b.Run("rtt/idle", func(b *testing.B) { w.roundTrips(b) })
	b.Run("rtt/read", func(b *testing.B) { w.beside(b, "fuse-read", w.roundTrips) })
	b.Run("rtt/write", func(b *testing.B) { w.beside(b, "fuse-write", w.roundTrips) })
}

// A wire is a controller VM, and what is shared with it.
type wire struct {
	vm       *vm.VM
	lane     *shm.Region // nil: none
	s        *mux.Session
	dir      string // of the store and the xchg
	content  []byte
	orders   *json.Encoder
	reports  *json.Decoder
	profiles string
}

func startWire(b *testing.B, lane bool) *wire {
	b.Helper()
	needs.Tool(b, "qemu-system-x86_64")
	cache := needs.Env(b, "WINVM_CACHE_DIR", "where `hostagent image create` has put the controller's root file system; `make bench` sets it")
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	b.Cleanup(cancel)
	log := slog.New(slog.DiscardHandler)
	a, err := recipe.Get(ctx, "controller", cache, false, func(l string) { b.Log(l) }, log)
	if err != nil {
		b.Fatal(err)
	}
	w := &wire{dir: b.TempDir(), content: make([]byte, benchBytes), profiles: os.Getenv("WINVM_BENCH_PROFILE")}
	do := "winvm.do=bench"
	if w.profiles != "" {
		do += " profile=2"
	}
	cfg := vm.Config{
		Logger: log, ConsoleLog: filepath.Join(b.TempDir(), "console"),
		Machine: qemu.Machine{
			Name: "controller", Memory: qemu.Memory{MiB: 512},
			Kernel: a.Path(recipe.Kernel), Initrd: initrd(b, a), Append: "console=ttyS0 quiet panic=-1 no_timer_check " + do,
			Drives: []qemu.Drive{{ID: "root", File: a.Path(recipe.Root), Format: "raw", ReadOnly: true}},
			Ports:  []qemu.Port{{Name: ports[0]}, {Name: "winvm.ctl"}, {Name: ports[1]}, {Name: ports[2]}, {Name: ports[3]}},
		},
	}
	if lane {
		w.lane = addLane(b, &cfg)
	}
	w.vm, err = vm.Start(ctx, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = w.vm.Kill() })
	ctl := w.vm.Port("winvm.ctl")
	w.orders, w.reports = json.NewEncoder(ctl), json.NewDecoder(bufio.NewReader(ctl))
	return w
}

// order has the guest do something while f does the host's part, over and over.
func (w *wire) order(b *testing.B, op string, ports int, f func()) {
	b.SetBytes(benchBytes)
	var sum answer
	for b.Loop() {
		b.StopTimer()
		w.ask(b, order{Op: "cold"}, func() {})
		b.StartTimer()
		r := w.ask(b, order{Op: op, Bytes: benchBytes, Ports: ports}, f)
		sum.User, sum.System, sum.IRQ = sum.User+r.User, sum.System+r.System, sum.IRQ+r.IRQ
	}
	mib := float64(b.N) * benchBytes / (1 << 20)
	b.ReportMetric(float64(sum.User)/mib, "user-ms/MiB")
	b.ReportMetric(float64(sum.System+sum.IRQ)/mib, "system-ms/MiB")
}

type answer struct {
	Err               string
	User, System, IRQ int64 // ms
	Profile           []byte
	Kernel            string
	Sum               uint64
	Figures           map[string]float64
}

// order is what the guest is asked for; see inside.
type order struct {
	Op           string
	Bytes, Ports int
}

func (w *wire) ask(b *testing.B, o order, f func()) answer {
	b.Helper()
	return w.askFor(b, o, f)
}

func (w *wire) askFor(b *testing.B, o any, f func()) answer {
	b.Helper()
	if err := w.orders.Encode(o); err != nil {
		b.Fatal(err)
	}
	f()
	var r answer
	if err := w.reports.Decode(&r); err != nil {
		b.Fatalf("%v: %v; console: %s", o, err, w.vm.ConsoleTail())
	}
	if r.Err != "" {
		b.Fatalf("%v: %s", o, r.Err)
	}
	return r
}

// run runs a benchmark and keeps profiles of it.
func (w *wire) run(b *testing.B, name string, f func(b *testing.B)) {
	b.Run(name, func(b *testing.B) {
		if w.profiles == "" {
			f(b)
			return
		}
		file, err := os.Create(filepath.Join(w.profiles, "host-"+strings.ReplaceAll(name, "/", "-")))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		w.ask(b, order{Op: "profile"}, func() {})
		if err := pprof.StartCPUProfile(file); err != nil {
			b.Fatal(err)
		}
		f(b)
		pprof.StopCPUProfile()
		p := w.ask(b, order{Op: "profiled"}, func() {})
		path := filepath.Join(w.profiles, "guest-"+strings.ReplaceAll(name, "/", "-"))
		err = errors.Join(os.WriteFile(path, p.Profile, 0o644), os.WriteFile(path+".kernel", []byte(p.Kernel), 0o644))
		if err != nil {
			b.Fatal(err)
		}
	})
}

func pour(c net.Conn, n int) error {
	buf := make([]byte, 1<<20)
	for ; n > 0; n -= len(buf) {
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

func drain(c net.Conn, n int) error {
	buf := make([]byte, 1<<20)
	for ; n > 0; n -= len(buf) {
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
	}
	return nil
}

// ports are those of the VM; the first is the one that the session runs over.
var ports = []string{port, "winvm.2", "winvm.3", "winvm.4"}

// raw moves the bytes over some ports at once.
func (w *wire) raw(b *testing.B, op string, n int, f func(c net.Conn, n int) error) {
	w.order(b, op, n, func() {
		var g errgroup.Group
		for _, name := range ports[:n] {
			g.Go(func() error { return f(w.vm.Port(name), benchBytes/n) })
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	})
}

// session begins the session and serves the shares: a store with one file, an empty
// xchg.
func (w *wire) session(b *testing.B) {
	b.Helper()
	for i := 0; i < len(w.content); i += 8 {
		binary.LittleEndian.PutUint64(w.content[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	storeDir, xchgDir := filepath.Join(w.dir, "store"), filepath.Join(w.dir, "xchg")
	err := errors.Join(os.MkdirAll(filepath.Join(storeDir, "bench-1"), 0o755), os.Mkdir(xchgDir, 0o755),
		os.WriteFile(filepath.Join(storeDir, "bench-1", "file"), w.content, 0o644))
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	tree, err := hostfs.New(hostfs.Config{Root: xchgDir, Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tree.Close() })
	paths, err := nixstore.Closure(b.Context(), storeDir, nil)
	if err != nil {
		b.Fatal(err)
	}
	store, err := nixstore.Open(b.Context(), storeDir, paths, nil, log)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	ep, err := mux.NewEndpoint(w.vm.Port(port), mux.Config{Lane: w.lane})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ep.Close() })
	w.ask(b, order{Op: "session"}, func() {
		if w.s, err = ep.Dial(b.Context()); err != nil {
			b.Fatal(err)
		}
		if (w.s.Lane() != nil) != (w.lane != nil) {
			b.Fatalf("a lane of the session: %v, of the machine: %v", w.s.Lane() != nil, w.lane != nil)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = export.Serve(context.Background(), w.s, export.Shares{Store: store, Xchg: tree}, log)
		}()
		b.Cleanup(func() {
			w.s.Abort(io.EOF)
			<-done
		})
	})
}

// opener opens a stream of either kind.
type opener func(ctx context.Context, name string) (net.Conn, error)

// stream is order for a stream of the guest's; see inside.
func (w *wire) stream(b *testing.B, open opener, name string, f func(c net.Conn, n int) error) {
	c, err := open(b.Context(), name)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	b.SetBytes(benchBytes)
	ack := make([]byte, 1)
	for b.Loop() {
		if _, err := c.Write(binary.BigEndian.AppendUint64(nil, benchBytes)); err != nil {
			b.Fatal(err)
		}
		if err := f(c, benchBytes); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, ack); err != nil {
			b.Fatal(err)
		}
	}
}

// check compares what was read and written with what should have been.
func (w *wire) check(b *testing.B) {
	b.Helper()
	var sum uint64
	for i := 0; i < benchBytes; i += 8 {
		sum = sum*31 + binary.LittleEndian.Uint64(w.content[i:])
	}
	if got := w.ask(b, order{Op: "fuse-sum", Bytes: benchBytes}, func() {}).Sum; got != sum {
		b.Errorf("the guest has read other bytes than the file's")
	}
	w.ask(b, order{Op: "cold"}, func() {})
	w.ask(b, order{Op: "fuse-write", Bytes: benchBytes}, func() {})
	written, err := os.ReadFile(filepath.Join(w.dir, "xchg", "file"))
	if err != nil || len(written) != benchBytes {
		b.Fatalf("%d bytes written: %v", len(written), err)
	}
	for i := 0; i < benchBytes; i += 4096 {
		if got := binary.LittleEndian.Uint64(written[i:]); got != uint64(i) {
			b.Fatalf("at %d is what belongs to %d", i, got)
		}
	}
}

// roundTrips measures 64 bytes there and back.
func (w *wire) roundTrips(b *testing.B) {
	c, err := w.s.Open(b.Context(), "echo")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	buf := make([]byte, 64)
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// beside runs f while the guest does op again and again.
func (w *wire) beside(b *testing.B, op string, f func(b *testing.B)) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				w.ask(b, order{Op: "cold"}, func() {})
				w.ask(b, order{Op: op, Bytes: benchBytes}, func() {})
			}
		}
	}()
	f(b)
	close(stop)
	<-done
}
