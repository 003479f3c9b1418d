package e2e_test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"winvm/hostagent/event"
	"winvm/hostagent/image"
)

// What is too much at once waits, in the order in which it came, and says so; Ctrl-C
// leaves nothing, and a place that a killed hostagent had is free.
func TestQueue(t *testing.T) {
	e := newEnv(t)
	t.Setenv("WINVM_JOBS", "1")
	first := e.startBuild(longCommand...)
	first.await("started")
	waits := func(position string) *run {
		t.Helper()
		r := e.start("build", "--store", e.store, "--", "cmd", "/c", "echo my turn")
		within(t, 10*time.Second, "waits as number "+position, func() bool {
			return strings.Contains(r.stderr.String(), "queue: for a place since ") && strings.Contains(r.stderr.String(), "number "+position+" in the queue, 1 of 1 builds run (--jobs)")
		})
		return r
	}
	second := waits("1")
	third := waits("2")
	stages := map[string]int{} // those of one second are listed in any order
	runs := e.ps()
	for _, r := range runs {
		stages[r.Stage]++
		if r.Stage == "queue" && len(r.QEMU) != 0 {
			t.Errorf("%s waits, and has VMs: %v", r.ID, r.QEMU)
		}
	}
	if len(runs) != 3 || stages["queue"] != 2 {
		t.Errorf("got %+v", runs)
	}
	shell := e.quick("--quiet", "shell", "--store", e.store, "--", "echo at once")
	if lf(shell.stdout.String()) != "at once\n" { // somebody sits in front of it
		t.Errorf("a shell said %q, %s", shell.stdout, shell.stderr)
	}
	must(t, second.cmd.Process.Signal(syscall.SIGINT))
	<-second.done
	second.wants(130, "hostagent: interrupted")
	within(t, 2*time.Second, "the third is next", func() bool { return strings.Contains(third.stderr.String(), "number 1 in the queue") })

	events := e.start("--json", "build", "--store", e.store, "--", "cmd", "/c", "exit 0")
	events.await(`"kind":"waiting"`)
	var told event.Event
	for line := range strings.Lines(events.stdout.String()) {
		if must(t, json.Unmarshal([]byte(line), &told)); told.Kind == event.KindWaiting {
			break
		}
	}
	if data, ok := told.Data.(map[string]any); !ok || told.Stage != "queue" || data["position"] != 2.0 || data["running"] != 1.0 || data["since"] == nil {
		t.Errorf("the event is %+v", told)
	}
	must(t, first.cmd.Process.Kill())
	<-first.done
	killed := time.Now()
	third.await("my turn")
	t.Logf("the next one has output %v after a kill -9", time.Since(killed))
	<-third.done
	third.wants(0)
	<-events.done
	events.wants(0)
	e.build("--", "cmd", "/c", "exit 0").wants(0) // sweeps what the killed one left
}

// What can never fit is refused at once.
func TestTooLargeForTheHost(t *testing.T) {
	e := newEnv(t)
	e.ownImage().edit(func(m *image.Meta) { m.MemoryMiB = 1 << 19 }) // 512 GiB
	r := e.build("--", "cmd", "/c", "exit 0")
	r.wants(125, "more memory than this host has", "--memory")
	if r.took > 5*time.Second {
		t.Errorf("it took %v", r.took)
	}
}
