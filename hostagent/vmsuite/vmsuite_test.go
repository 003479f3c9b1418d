package vmsuite_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"winvm/hostagent/export"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/nixstore"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/transport/mux"
	"winvm/transport/needs"
	"winvm/transport/shm"
)

const port = "winvm.rpc"

// buildInside builds the program that runs in the VM.
func buildInside(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "inside")
	cmd := exec.Command("go", "test", "-tags", "vmsuite", "-c", "-o", out, "winvm/hostagent/vmsuite/inside")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// initrd is the controller's with the program in the agent's place.
func initrd(t testing.TB, a recipe.Artefact) string {
	t.Helper()
	base, err := os.ReadFile(a.Path(recipe.Initrd))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initrd")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(base, make([]byte, (4-len(base)%4)%4)...)); err != nil {
		t.Fatal(err)
	}
	agent := buildInside(t)
	w := cpio.NewWriter(f)
	err = errors.Join(
		w.WriteHeader(&cpio.Header{Name: "winvm", Mode: cpio.TypeDir | 0o755, Links: 2}),
		w.WriteHeader(&cpio.Header{Name: "winvm/controlleragent", Mode: cpio.TypeReg | 0o755, Size: int64(len(agent)), Links: 1}),
	)
	if _, e := w.Write(agent); e != nil {
		t.Fatal(e)
	}
	if err = errors.Join(err, w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// The whole suite with the shared-memory lane, as a build has it; what moves bytes
// without, too.
func TestSharesInControllerVM(t *testing.T) {
	t.Run("lane", func(t *testing.T) { testShares(t, true, ".") })
	t.Run("channel alone", func(t *testing.T) {
		testShares(t, false, "Test/^(CreateReadWrite|RandomWrites|Append|Mmap|Copy|Holes|Readdir|Parallel)$")
	})
}

// testShares runs the tests inside whose names match.
func testShares(t *testing.T, lane bool, run string) {
	t.Helper()
	needs.Tool(t, "qemu-system-x86_64")
	cache := needs.Env(t, "WINVM_CACHE_DIR", "where `hostagent image create` has put the controller's root file system; `make test` sets it")
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	a, err := recipe.Get(ctx, "controller", cache, false, func(l string) { t.Log(l) }, log)
	if err != nil {
		t.Fatal(err)
	}
	link, other, err := vm.LinkPair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	cfg := vm.Config{
		Link: link, Logger: log, ConsoleLog: filepath.Join(t.TempDir(), "console"),
		Machine: qemu.Machine{
			Name: "controller", Memory: qemu.Memory{MiB: 512},
			RTCBase: time.Now().UTC().Format("2006-01-02T15:04:05"), // files' times are compared
			Kernel:  a.Path(recipe.Kernel), Initrd: initrd(t, a), Append: "console=ttyS0 quiet panic=-1 winvm.run=" + run,
			Drives: []qemu.Drive{{ID: "root", File: a.Path(recipe.Root), Format: "raw", ReadOnly: true}},
			NIC:    &qemu.NIC{MAC: "52:54:00:77:76:02"}, Ports: []qemu.Port{{Name: port}},
		},
	}
	var region *shm.Region
	if lane {
		region = addLane(t, &cfg)
	}
	v, err := vm.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Kill() }()
	serve(ctx, t, v, region, log)
	report(ctx, t, v)
	if lane && region.Lent() < 100 {
		t.Errorf("only %d requests went through shared memory", region.Lent())
	}
}

// serve serves one session with a store that is this source tree.
func serve(ctx context.Context, t *testing.T, v *vm.VM, lane *shm.Region, log *slog.Logger) {
	t.Helper()
	if _, err := hostfs.RaiseFileLimit(); err != nil {
		t.Fatal(err)
	}
	tree, err := hostfs.New(hostfs.Config{Root: t.TempDir(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	storeDir := t.TempDir()
	if err := os.CopyFS(filepath.Join(storeDir, "source-1"), os.DirFS("../..")); err != nil {
		t.Fatal(err)
	}
	store, err := nixstore.Open(ctx, storeDir, []string{filepath.Join(storeDir, "source-1")}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	ep, err := mux.NewEndpoint(v.Port(port), mux.Config{Lane: lane})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ep.Close() })
	s, err := ep.Dial(ctx)
	if err != nil {
		t.Fatalf("no session: %v; console: %s", err, v.ConsoleTail())
	}
	if (s.Lane() != nil) != (lane != nil) {
		t.Errorf("the session has a lane: %v, the machine: %v", s.Lane() != nil, lane != nil)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = export.Serve(ctx, s, export.Shares{Store: store, Xchg: tree}, log)
	}()
	t.Cleanup(func() {
		s.Abort(io.EOF)
		<-done
	})
}

// addLane gives a machine shared memory.
func addLane(t testing.TB, cfg *vm.Config) *shm.Region {
	t.Helper()
	r, err := shm.Create(pair.LaneMiB << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	cfg.Machine.Lane, cfg.Lane = &qemu.Lane{MiB: pair.LaneMiB}, r.File()
	cfg.Machine.Append += " swiotlb=noforce"
	return r
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: .*`)

// report waits for the VM's end and tells what its tests said.
func report(ctx context.Context, t *testing.T, v *vm.VM) {
	t.Helper()
	select {
	case <-v.Failed():
	case <-ctx.Done():
		t.Fatalf("the VM did not end; console: %s", v.ConsoleTail())
	}
	said := strings.ReplaceAll(v.ConsoleTail(), "\r", "")
	switch {
	case !errors.Is(v.Err(), vm.PoweredOff):
		t.Errorf("the VM ended: %v; console: %s", v.Err(), said)
	case strings.Contains(said, "INSIDE: status 0"):
		t.Logf("%d tests passed inside", strings.Count(said, "--- PASS"))
		if strings.Count(said, "--- PASS") < 8 {
			t.Errorf("only few tests ran: %s", said)
		}
	default:
		t.Errorf("failed inside: %s\n%s", strings.Join(failed.FindAllString(said, -1), "\n"), said)
	}
}
