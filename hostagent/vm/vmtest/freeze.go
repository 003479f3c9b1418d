package vmtest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"winvm/transport/needs"
)

// Freeze has threads of a process stand still as in a deadlock: "all", the "main" one, or
// the "others". No signal stops them. It returns when they do, and lets them go at the
// test's end.
func Freeze(t testing.TB, pid int, which string) time.Time {
	t.Helper()
	needs.Root(t) // ptrace(2) of a process that isn't a child
	program := filepath.Join(t.TempDir(), "freezer")
	if text, err := exec.Command(needs.Tool(t, "go"), "build", "-o", program, "winvm/hostagent/vm/vmtest/freezer").CombinedOutput(); err != nil {
		t.Fatalf("build the freezer: %v\n%s", err, text)
	}
	cmd := exec.Command(program, strconv.Itoa(pid), which)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ok\n" {
		t.Fatalf("freeze process %d: %q, %v", pid, line, err)
	}
	return time.Now()
}
