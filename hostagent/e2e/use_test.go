package e2e_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"winvm/hostagent/usage"
)

// A report says what the build has read of its inputs and what it has left alone; its
// channel can be captured meanwhile.
func TestReport(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("store", "a-1", "read"), "inside a\n")
	writeFile(t, e.path("store", "a-1", "sub", "unread"), "not read\n")
	writeFile(t, e.path("store", "c-1", "file"), "not used\n")
	serialdbg := filepath.Join(filepath.Dir(hostagent(t)), "serialdbg")
	capture := exec.Command(serialdbg, "capture", "--wait", "1m", "-o", e.path("all.pcapng"), e.path("debug"))
	said := newLiveBuffer()
	capture.Stderr = said
	must(t, capture.Start())
	ended := make(chan error, 1)
	go func() { ended <- capture.Wait() }()
	t.Cleanup(func() { _ = capture.Process.Kill() })

	r := e.build("--report", e.path("report"), "--trim-inputs", "--out", e.path("out"), "--debug-socket", e.path("debug"), "--", "cmd", "/c",
		`dir /b S:\& type S:\a-1\read& copy S:\a-1\read %out%`)
	r.wants(0, "what was used of the inputs is in", "--input "+e.path("store", "a-1"))
	if strings.Contains(r.stderr.String(), "c-1") {
		t.Errorf("c-1 was not used:\n%s", r.stderr)
	}
	var rep usage.Report
	must(t, json.Unmarshal([]byte(readFile(t, e.path("report", "report.json"))), &rep))
	inputs := map[string]usage.Input{}
	for _, in := range rep.Inputs {
		inputs[in.Name] = in
	}
	if in := inputs["a-1"]; !in.Used || in.Files != 2 || in.Read != 1 || in.ReadBytes != 9 {
		t.Errorf("%+v", in)
	}
	if in := inputs["c-1"]; in.Used || in.Files != 1 || in.Opened != 0 {
		t.Errorf("%+v", in)
	}
	if len(rep.Written) != 1 || rep.Written[0].Bytes != 9 || rep.Partial {
		t.Errorf("%+v", rep)
	}

	if err := <-ended; err != nil {
		t.Fatalf("serialdbg: %v: %s", err, said)
	}
	out, err := exec.Command(serialdbg, "decode", e.path("all.pcapng")).Output()
	must(t, err)
	for _, want := range []string{"resync       GO", "fs/nixstore", "exec         stdout", "inside a", "exec         exit", "agent        #"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the capture lacks %q:\n%.5000s", want, out)
		}
	}
	if strings.Contains(string(out), "!!") && !strings.Contains(string(out), "cut") {
		t.Errorf("something is wrong in the capture:\n%.5000s", out)
	}
}
