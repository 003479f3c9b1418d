package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// states lists the directories of suspended states, whole or not.
func (i *ownImage) states() (out []string) {
	i.e.t.Helper()
	found, err := filepath.Glob(filepath.Join(i.dir, "state-*"))
	must(i.e.t, err)
	for _, f := range found {
		out = append(out, filepath.Base(f))
	}
	return out
}

// works runs a build from the image as it is.
func (e *env) works() {
	e.t.Helper()
	r := e.build("--", "cmd", "/c", `type S:\tool\tool.exe >nul&& echo works`)
	r.wants(0)
	r.says("works\n")
}

// A suspend that ends early, however it ends, leaves the old state as it was, and
// one that comes to its end replaces it under the builds that run meanwhile.
func TestSuspend(t *testing.T) {
	e := newEnv(t)
	i := e.ownImage()
	old := i.states()[0]

	for _, after := range []time.Duration{500 * time.Millisecond, 6 * time.Second} {
		r := e.start("suspend", imageName)
		time.Sleep(after)
		must(t, r.cmd.Process.Signal(syscall.SIGINT))
		sent := time.Now()
		r.wait()
		r.wants(130, "hostagent: interrupted")
		if d := time.Since(sent); d > 5*time.Second {
			t.Errorf("it took %v to end", d)
		}
		if left := i.states(); len(left) != 1 || left[0] != old {
			t.Errorf("after an interrupted suspend there are %v, and %s was there before", left, old)
		}
	}
	e.works()
	e.endsSuspend()
	if left := i.states(); len(left) != 1 || left[0] != old {
		t.Errorf("after a suspend that was ended there are %v, and %s was there before", left, old)
	}

	// Killed as late as can be: while the states are written.
	r := e.start("suspend", imageName)
	awaitStderr(r, "saving both VMs")
	must(t, r.cmd.Process.Kill())
	<-r.done
	within(t, 2*time.Second, "its QEMUs end", func() bool { return len(e.qemus()) == 0 })
	if len(i.states()) != 2 {
		t.Errorf("killed too late or too early to tell: there are %v", i.states())
	}
	e.works() // sweeps the run directory

	r = e.start("suspend", imageName)
	builds := 0
	for running := true; running; builds++ {
		b := e.startBuild("--", "cmd", "/c", "echo works")
		<-b.done
		b.wants(0)
		b.says("works\n")
		select {
		case <-r.done:
			running = false
		default:
		}
	}
	r.wait()
	r.wants(0)
	if now := i.states(); len(now) != 1 || now[0] == old {
		t.Errorf("after the suspend there are %v; the old one was %s", now, old)
	}
	t.Logf("%d builds while it ran for %v", builds, r.took)
	e.works()
	if st, err := os.Stat(i.statePath("guest.memory")); err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
		t.Errorf("the new state's memory: %v", err)
	}
}

// endsSuspend has a suspend listed, looked at, and ended by another process.
func (e *env) endsSuspend() {
	e.t.Helper()
	r := e.start("suspend", imageName)
	awaitStderr(r, "booting both VMs")
	var runs []ps
	within(e.t, 20*time.Second, "ps knows its VMs", func() bool {
		runs = e.ps()
		return len(runs) == 1 && runs[0].QEMU["guest"] != 0
	})
	if len(runs) != 1 || runs[0].Image != imageName || runs[0].Pid != r.cmd.Process.Pid ||
		!strings.Contains(runs[0].Stage, "booting") || runs[0].Problem != "" || runs[0].Command[0] != "(suspend)" {
		e.t.Fatalf("ps says %+v", runs)
	}
	e.quick("screenshot", runs[0].ID, "-o", e.path("suspend.png")).wants(0)
	e.quick("shell", "--attach", runs[0].ID).wants(125, "can't be attached to")
	e.quick("kill", runs[0].ID).wants(0)
	r.wait()
	r.wants(130, "ended by `hostagent kill`")
}

func awaitStderr(r *run, text string) {
	r.e.t.Helper()
	within(r.e.t, patience, "standard error has "+text, func() bool {
		select {
		case <-r.done:
			r.e.t.Fatalf("hostagent ended: %s", r.stderr)
		default:
		}
		return strings.Contains(r.stderr.String(), text)
	})
}

// Of an image that does not exist nothing is made.
func TestSuspendRefused(t *testing.T) {
	e := newEnv(t)
	e.ownImage()
	for _, args := range [][]string{{"suspend", "nosuch"}, {"image", "show", "nosuch"}, {"image", "verify", "nosuch"}, {"image", "remove", "nosuch"}} {
		r := e.start(args...)
		r.wait()
		r.wants(125, "no such image")
	}
	if entries, _ := os.ReadDir(filepath.Join(e.state, "images")); len(entries) != 1 {
		t.Errorf("there are now %v", entries)
	}
}
