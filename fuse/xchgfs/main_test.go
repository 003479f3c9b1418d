package xchgfs_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/fuse/xchgfs"
	"winvm/hostagent/hostfs"
	"winvm/transport/needs"
)

// TestMain runs the tests, or, in a child process, a mount: a process that touches
// mapped files of a mount which it serves itself can hang in the garbage collector.
func TestMain(m *testing.M) {
	if os.Getenv("XCHGFS_CHILD") == "1" {
		if err := child(os.Args[1], os.Args[2], os.Args[3] == "writeback"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// child serves the host directory on dir until standard input ends.
func child(dir, host string, writeback bool) error {
	if _, err := hostfs.RaiseFileLimit(); err != nil {
		return err
	}
	tree, err := hostfs.New(hostfs.Config{Root: host})
	if err != nil {
		return err
	}
	fs, err := xchgfs.Mount(dir, xchgfs.Config{
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Writeback: writeback,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	fs.SetTree(tree)
	fmt.Println("mounted")
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := fs.Close(ctx); err != nil {
		return err
	}
	return tree.Close()
}

// startChild mounts host on a new directory in another process.
func startChild(t *testing.T, host, mode string) (dir string) {
	t.Helper()
	needs.FUSE(t)
	dir = t.TempDir()
	cmd := exec.Command(os.Args[0], dir, host, mode)
	cmd.Env = append(os.Environ(), "XCHGFS_CHILD=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process that serves the mount: %v", err)
		}
		wantNoMount(t, dir)
	})
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatalf("no mount: %v", err)
	}
	return dir
}
