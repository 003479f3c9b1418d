package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Exit codes come back whole; what doesn't fit an exit status becomes 1.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		code   uint32
		status int
	}{
		{"0", []string{"cmd", "/c", "exit 0"}, 0, 0},
		{"1", []string{"cmd", "/c", "exit 1"}, 1, 1},
		{"7", []string{"cmd", "/c", "exit", "7"}, 7, 7},
		{"255", []string{"cmd", "/c", "exit 255"}, 255, 255},
		{"256", []string{toolPath, "exit", "256"}, 256, 1},
		{"300", []string{toolPath, "exit", "300"}, 300, 1},
		{"minus1", []string{"cmd", "/c", "exit -1"}, 0xffffffff, 1},
		{"crash", []string{toolPath, "crash"}, 0xc0000005, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			r := e.build(append([]string{"--result", e.path("result"), "--"}, c.args...)...)
			r.wants(c.status)
			if c.code > 255 {
				r.wants(c.status, fmt.Sprintf("exited with %d (0x%08x)", c.code, c.code))
			}
			got := readResult(t, e.path("result"))
			if got.ExitCode == nil || *got.ExitCode != c.code || got.Status != c.status {
				t.Errorf("result: %+v, want exit code %d and status %d", got, c.code, c.status)
			}
		})
	}
}

// A jsonEvent is a line of --json.
type jsonEvent struct {
	Kind, Stage, Message, Stream string
	Data                         json.RawMessage
}

func events(t *testing.T, r *run) []jsonEvent {
	t.Helper()
	var out []jsonEvent
	for line := range strings.Lines(r.stdout.String()) {
		var e jsonEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("standard output has a line that is no event: %q: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

// With --json there is nothing but events on standard output, and they have the
// output and the whole exit code.
func TestEvents(t *testing.T) {
	e := newEnv(t)
	r := e.start("--json", "build", "--store", e.store, "--", "cmd", "/c", "echo to out& echo to err>&2& exit 70000")
	r.wait()
	r.wants(1)
	said := map[string]string{}
	var result struct {
		ID       string
		Status   int
		ExitCode *uint32 `json:"exit_code"`
		Timeline []struct{ Name string }
	}
	var kinds []string
	for _, ev := range events(t, r) {
		kinds = append(kinds, ev.Kind)
		switch ev.Kind {
		case "output":
			said[ev.Stream] += ev.Message
		case "result":
			must(t, json.Unmarshal(ev.Data, &result))
		}
	}
	if lf(said["stdout"]) != "to out\n" || lf(said["stderr"]) != "to err\n" {
		t.Errorf("the output events say %q", said)
	}
	if result.ExitCode == nil || *result.ExitCode != 70000 || result.Status != 1 || result.ID == "" || len(result.Timeline) == 0 {
		t.Errorf("the result event says %+v; events: %q", result, kinds)
	}
}

// A failure of hostagent itself is an event and a result too.
func TestEventsOfFailure(t *testing.T) {
	e := newEnv(t)
	r := e.start("--json", "build", "--store", e.store, "--result", e.path("result"), "--", "nosuchcommand")
	r.wait()
	r.wants(127, "command not found in the guest: nosuchcommand")
	failed := false
	for _, ev := range events(t, r) {
		failed = failed || ev.Kind == "failed" && strings.Contains(ev.Message, "nosuchcommand")
	}
	if !failed {
		t.Errorf("no event of kind failed in %s", r.stdout)
	}
	if got := readResult(t, e.path("result")); got.Status != 127 || got.ExitCode != nil || got.Error == "" {
		t.Errorf("result: %+v", got)
	}
}

// What can't be run says so: 127 if it isn't there, 126 if it is.
func TestCantRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"nothing of that name", []string{"--", "nosuchcommand"}, 127, "command not found"},
		{"no such path", []string{"--", `S:\tool\nosuch.exe`}, 127, "command not found"},
		{"text", []string{"--", `S:\text\text.exe`}, 126, "can't run"},
		{"no such directory", []string{"--cwd", `C:\nosuch`, "--", "cmd", "/c", "exit 0"}, 126, `no directory "C:\\nosuch"`},
		{"no command", []string{}, 125, "no command"},
		{"a quotation mark in the name", []string{"--", `a"b`}, 126, "quotation mark"},
		{"a command line that is too long", []string{"--", "cmd", "/c", strings.Repeat("x", 33000)}, 126, "at most 32767"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			writeFile(t, e.path("store", "text", "text.exe"), "This is not a program.\n")
			e.build(c.args...).wants(c.status, c.says)
		})
	}
}
