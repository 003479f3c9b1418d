package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"winvm/hostagent/vm/vmtest"
)

// longCommand says "started" and then does nothing for a minute.
var longCommand = []string{"--", "cmd", "/c", `echo started& S:\tool\tool.exe sleep 60000`}

// A VM that dies under a command is told at once, with what was last seen of it.
func TestVMDies(t *testing.T) {
	for _, vm := range []string{"controller", "guest"} {
		t.Run(vm, func(t *testing.T) {
			e := newEnv(t)
			r := e.startBuild(append([]string{"--out", e.path("o")}, longCommand...)...)
			r.await("started")
			must(t, syscall.Kill(e.qemu(vm), syscall.SIGKILL))
			sent := time.Now()
			r.wait()
			if d := time.Since(sent); d > 2*time.Second {
				t.Errorf("it took %v to notice", d)
			}
			r.wants(125, "VM "+vm+": a signal ended QEMU: killed", "last on the controller's console:")
			r.namesLogs()
			if exists(e.path("o")) {
				t.Error("there is an output")
			}
		})
	}
}

// qemu is the process of a VM.
func (e *env) qemu(vm string) int {
	e.t.Helper()
	pid := 0
	within(e.t, 20*time.Second, "QEMU of the "+vm, func() bool {
		pid = e.qemus()[vm]
		return pid != 0
	})
	return pid
}

// The same before there is a command.
func TestVMDiesEarly(t *testing.T) {
	for _, after := range []time.Duration{0, 100, 300} {
		e := newEnv(t)
		r := e.startBuild(longCommand...)
		pid := e.qemu("guest")
		time.Sleep(after * time.Millisecond)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		r.wait()
		r.wants(125, "VM guest")
		if r.took > 15*time.Second {
			t.Errorf("it took %v", r.took)
		}
	}
}

// A VM that stands still is noticed soon, wherever it does: QEMU stopped by a signal, a
// VM whose CPU doesn't run, a guest whose SSH server hangs.
func TestVMHangs(t *testing.T) {
	stop := func(t *testing.T, e *env, vm string) { must(t, syscall.Kill(e.qemu(vm), syscall.SIGSTOP)) }
	freeze := func(t *testing.T, e *env, vm string) { vmtest.Freeze(t, e.qemu(vm), "others") }
	for name, tt := range map[string]struct {
		vm     string
		hang   func(t *testing.T, e *env, vm string)
		within time.Duration
		wants  string
	}{
		"controller is stopped": {"controller", stop, 3 * time.Second, "VM controller: QEMU's process was stopped by a signal"},
		"guest is stopped":      {"guest", stop, 3 * time.Second, "VM guest: QEMU's process was stopped by a signal"},
		"controller hangs":      {"controller", freeze, 4 * time.Second, "does not answer"},
		"guest hangs":           {"guest", freeze, 8 * time.Second, "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			r := e.startBuild(longCommand...)
			r.await("started")
			tt.hang(t, e, tt.vm)
			since := time.Now()
			r.wait()
			r.wants(125, tt.wants)
			took := time.Since(since)
			t.Logf("noticed, told and cleaned up after %v", took)
			if took > tt.within {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// stopSSH stops the guest's side of the SSH connection; see killSSH.
var stopSSH = strings.Replace(killSSH, "kill -9", "kill -STOP", 1)

func TestSSHHangs(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild("--", "cmd", "/c", stopSSH)
	r.await("started")
	r.wait()
	r.wants(125, "the guest does not answer over SSH", "and nothing at last for")
}

// A VM that is kept from running by others is not given up: not while the host is busy
// (here: QEMU gets a CPU after others), nor while the guest is.
func TestSlowIsNotHung(t *testing.T) {
	e := newEnv(t)
	for range runtime.NumCPU() {
		busy := exec.Command("sh", "-c", "while :; do :; done")
		must(t, busy.Start())
		t.Cleanup(func() { _ = busy.Process.Kill(); _ = busy.Wait() })
	}
	r := e.startBuild("--", "cmd", "/c", `echo started& S:\tool\tool.exe spin 2000& echo done`)
	r.await("started")
	for _, vm := range []string{"controller", "guest"} {
		pid := e.qemu(vm)
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		must(t, err)
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			must(t, err)
			must(t, syscall.Setpriority(syscall.PRIO_PROCESS, tid, 5))
		}
	}
	r.wait()
	r.wants(0)
	if !strings.Contains(r.stdout.String(), "done") {
		t.Errorf("it said %q", r.stdout)
	}
}

// Ctrl-C works on a VM that stands still, too.
func TestInterruptHungVM(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild(longCommand...)
	r.await("started")
	must(t, syscall.Kill(e.qemu("controller"), syscall.SIGSTOP))
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	sent := time.Now()
	r.wait()
	r.wants(130)
	if d := time.Since(sent); d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
}

// killSSH ends the guest's side of the SSH connection: the process of sshd that
// serves it is Administrator's own. start /unix is Wine's; no Windows guest could.
const killSSH = `echo started& start /wait /unix /bin/sh -c "for p in /proc/[0-9]*; do if grep -q notty $p/cmdline; then kill -9 ${p#/proc/}; fi; done"& S:\tool\tool.exe sleep 60000`

func TestSSHDies(t *testing.T) {
	e := newEnv(t)
	r := e.build("--out", e.path("o"), "--", "cmd", "/c", killSSH)
	r.wants(125, "exit is unknown", "SSH")
	r.namesLogs()
	if r.took > 30*time.Second || exists(e.path("o")) {
		t.Errorf("it took %v; output exists: %v", r.took, exists(e.path("o")))
	}
}

// hostagent killed with SIGKILL takes its VMs along; the next run sweeps what it
// left, also beside --out.
func TestHostagentKilled(t *testing.T) {
	e := newEnv(t)
	for i, after := range []time.Duration{100, 300, 0} {
		r := e.startBuild(append([]string{"--out", e.path("o")}, longCommand...)...)
		if i == 2 {
			r.await("started")
		} else {
			e.qemu("guest")
			time.Sleep(after * time.Millisecond)
		}
		must(t, r.cmd.Process.Kill())
		<-r.done
		within(t, 2*time.Second, "its QEMUs end", func() bool { return len(e.qemus()) == 0 })
		if len(e.leftovers()) < 2 {
			t.Errorf("run %d: no run directory and no staging to sweep: %v", i, e.leftovers())
		}
		if i < 2 {
			continue
		}
		// wait, in build, finds what three killed runs left.
		r = e.build("--out", e.path("o"), "--", "cmd", "/c", "echo x >%out%")
		r.wants(0)
	}
	if !exists(e.path("o")) {
		t.Error("the build after it has no output")
	}
}

// A build leaves the runs of others alone that are alive.
func TestSweepSparesTheLiving(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild("--out", e.path("o"), "--", "cmd", "/c", `echo started& S:\tool\tool.exe await X:\go 60000& echo x >%out%`)
	r.await("started")
	other := e.startBuild("--", "cmd", "/c", "exit 0")
	<-other.done
	other.wants(0)
	runs, err := filepath.Glob(filepath.Join(e.state, "run", "*", "xchg"))
	if err != nil || len(runs) != 1 {
		t.Fatalf("run directories: %v, %v", runs, err)
	}
	writeFile(t, filepath.Join(runs[0], "go"), "go on\n")
	r.wait()
	r.wants(0)
	if !strings.Contains(r.stdout.String(), "go on") || !exists(e.path("o")) {
		t.Errorf("it said %q", r.stdout)
	}
}

// Every run leaves its consoles and its timeline; that of a command that failed by
// itself is no failure of ours.
func TestLogsAreKept(t *testing.T) {
	e := newEnv(t)
	e.build("--", "cmd", "/c", "exit 3").wants(3)
	logs, _ := filepath.Glob(filepath.Join(e.state, "logs", "*", "*"))
	var names []string
	for _, l := range logs {
		names = append(names, filepath.Base(l))
	}
	if got := strings.Join(names, " "); got != "controller.console guest.console timeline.json" {
		t.Errorf("the logs are %s", got)
	}
}
