package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"winvm/transport/needs"
)

// faultyLibexec is the directory of what images are made of, with a controller
// agent that can be told to kill its smbd (cmd/controlleragent/faults.go).
func (e *env) faultyLibexec() string {
	e.t.Helper()
	gotool := needs.Tool(e.t, "go")
	dir := e.path("libexec")
	must(e.t, os.Mkdir(dir, 0o755))
	c := exec.CommandContext(e.t.Context(), gotool, "build", "-tags", "winvm_faults", "-buildvcs=false", "-ldflags", "-s -w",
		"-o", filepath.Join(dir, "controlleragent"), "../../cmd/controlleragent")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		e.t.Fatalf("%v: %s", err, out)
	}
	from := filepath.Join(filepath.Dir(hostagent(e.t)), "../libexec/winvm/winvm-run.exe")
	writeFile(e.t, filepath.Join(dir, "winvm-run.exe"), readFile(e.t, from))
	return dir
}

// smbd that dies under a command is told at once; the image is as it was.
func TestSMBDDies(t *testing.T) {
	e := newEnv(t)
	e.ownImage()
	t.Setenv("WINVM_LIBEXEC_DIR", e.faultyLibexec())
	r := e.start("suspend", imageName)
	r.wait()
	r.wants(0)

	r = e.startBuild("--out", e.path("o"), "--", "cmd", "/c", `echo started& echo now >"X:\kill smbd"& S:\tool\tool.exe sleep 60000`)
	r.await("started")
	seen := time.Now()
	r.wait()
	r.wants(125, "the SMB server in the controller VM ended: smbd ended", "killed")
	r.namesLogs()
	if d := time.Since(seen); d > 10*time.Second || exists(e.path("o")) {
		t.Errorf("it took %v from the command's start; output exists: %v", d, exists(e.path("o")))
	}
	e.works()
}
