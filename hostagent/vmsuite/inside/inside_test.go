//go:build vmsuite

package inside_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/fuse/xchgfs"
	"winvm/transport/fsrpc"
	"winvm/transport/fsrpc/fsrpctest"
	"winvm/transport/mux"
	"winvm/transport/shm"
	"winvm/transport/virtioserial"
)

// The mounts: the share, and a second one that stands for the host's view of it.
const (
	xchg  = "/xchg"
	other = "/tmp/other"
	store = "/nix/store"
)

// serveArg makes the program the one that serves the mounts. The tests run in a
// process of their own: one that faults in mmap'ed pages of a mount it serves itself
// can hang in Go's garbage collector.
const serveArg = "serve-mounts"

// TestMain is started as `controlleragent daemon …`.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == ioArg:
		fmt.Fprintf(os.Stderr, "files: %v\n", serveIO())
		return
	case isBench():
		fmt.Printf("bench: %v\n", serveBench(context.Background()))
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	if len(os.Args) > 1 && os.Args[1] == serveArg {
		if err := serve(context.Background()); err != nil {
			fmt.Printf("serving the mounts: %v\n", err)
		}
		return
	}
	// SpecialFiles makes a FIFO on the host, which no mount lets anybody do; Modes
	// compares sooner than the kernel forgets what it knows through the other mount.
	os.Args = []string{os.Args[0], "-test.v", "-test.run=" + argument("winvm.run="), "-test.timeout=8m", "-test.skip=TestXchg/(SpecialFiles|Modes)"}
	status := 1
	if err := startServer(); err != nil {
		fmt.Printf("the mounts' server: %v\n", err)
	} else {
		status = m.Run()
	}
	fmt.Printf("INSIDE: status %d\n", status)
	time.Sleep(time.Second) // the console is slow
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// argument is a word of the kernel's command line that begins with key, without it.
func argument(key string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(word, key); ok {
			return value
		}
	}
	return ""
}

// startServer starts the other process and waits until it has mounted.
func startServer() error {
	cmd := exec.Command("/proc/self/exe", serveArg)
	cmd.Stderr = os.Stdout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil && line != "mounted\n" {
		err = errors.New(line)
	}
	return err
}

// serve mounts everything over one session with the host, for as long as the VM
// runs.
func serve(ctx context.Context) error {
	s, err := dial(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(other, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{xchg, other} {
		conn, err := s.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareXchg))
		if err != nil {
			return err
		}
		tree, err := fsrpc.AttachTree(ctx, conn)
		if err != nil {
			return err
		}
		cfg := xchgfs.Config{AllowOther: true, Source: "winvm" + filepath.Base(dir)}
		if dir == other { // what is seen there has to be what the host has now
			cfg.AttrTimeout, cfg.EntryTimeout = 1, 1
		}
		m, err := xchgfs.Mount(dir, cfg)
		if err != nil {
			return err
		}
		m.SetTree(tree)
	}
	conn, err := s.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareStore))
	if err != nil {
		return err
	}
	client, err := fsrpc.AttachStore(ctx, conn)
	if err != nil {
		return err
	}
	m, err := storefs.Mount(store, storefs.Config{AllowOther: true})
	if err != nil {
		return err
	}
	if err := m.SetSession(ctx, client, nil); err != nil {
		return err
	}
	fmt.Println("mounted")
	time.AfterFunc(stuckAfter, dumpStacks)
	<-s.Done()
	return s.Err()
}

// stuckAfter is when the tests must have hung: they take a minute or two.
const stuckAfter = 6 * time.Minute

// dumpStacks writes where every thread of the tests' process and every goroutine
// of this one is.
func dumpStacks() {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", os.Getppid()))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		fmt.Fprintf(os.Stderr, "%s\n%s\n", f, b)
	}
	_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
}

func dial(ctx context.Context) (*mux.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	path, err := virtioserial.Wait(ctx, "", "winvm.rpc")
	if err != nil {
		return nil, err
	}
	p, err := virtioserial.Open(path)
	if err != nil {
		return nil, err
	}
	lane, err := shm.Find("")
	if err != nil && !errors.Is(err, shm.ErrNone) {
		return nil, err
	}
	ep, err := mux.NewEndpoint(p, mux.Config{Lane: lane})
	if err != nil {
		return nil, err
	}
	return ep.Accept(ctx)
}

func TestXchg(t *testing.T) { fsrpctest.TestMount(t, xchg, other) }

// TestStore walks the store, which is this program's source, and reads it twice.
func TestStore(t *testing.T) {
	files := 0
	err := filepath.WalkDir("/nix/store/source-1", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		first, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		again, err := os.ReadFile(p)
		if err == nil && !bytes.Equal(first, again) {
			t.Errorf("%s: read differently", p)
		}
		return err
	})
	if err != nil || files < 100 {
		t.Errorf("%d files: %v", files, err)
	}
	b, err := os.ReadFile("/nix/store/source-1/go.mod")
	if err != nil || !bytes.HasPrefix(b, []byte("module winvm")) {
		t.Errorf("go.mod: %q, %v", b, err)
	}
	if err := os.WriteFile("/nix/store/source-1/x", nil, 0o644); err == nil {
		t.Error("the store can be written")
	}
}
