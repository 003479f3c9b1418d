package vm_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/transport/needs"
)

// hostProcess is the process that TestNoQEMUSurvivesItsHost kills: it starts a VM, says
// its process id, and waits.
func hostProcess() {
	v, err := vm.Start(context.Background(), vm.Config{
		Machine: qemu.Machine{
			Binary: os.Getenv("WINVM_TEST_HOST"), Name: "orphan", Memory: qemu.Memory{MiB: 16},
		},
		Logger: quiet(),
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	// Threads come and go: QEMU must not depend on any but its own.
	for range 50 {
		go func() { runtime.LockOSThread() }()
	}
	time.Sleep(100 * time.Millisecond)
	if v.Err() != nil {
		fmt.Println(v.Err())
		os.Exit(1)
	}
	fmt.Println(v.Pid())
	select {}
}

func TestNoQEMUSurvivesItsHost(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WINVM_TEST_HOST="+needs.Tool(t, qemu.DefaultBinary))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the host said %q", line)
	}
	if !alive(pid) {
		t.Error("QEMU isn't there")
	}
	begun := time.Now()
	_ = cmd.Process.Kill() // SIGKILL: nothing can be cleaned up
	_ = cmd.Wait()
	eventually(t, "QEMU is gone", 2*time.Second, func() bool { return !alive(pid) })
	t.Logf("gone after %v", time.Since(begun))
}

// alive reports whether a process runs; a zombie that nobody reaps doesn't.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}
