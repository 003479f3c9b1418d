package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTimeout(t *testing.T) {
	e := newEnv(t)
	r := e.build("--timeout", "8s", "--out", e.path("o"), "--result", e.path("result"), "--", toolPath, "lines", "100", "300")
	r.wants(124, "the command has run for 8s", "the consoles' logs: ")
	if !strings.HasPrefix(lf(r.stdout.String()), "out 0\n") {
		t.Errorf("the output before the end is lost: %q", r.stdout)
	}
	if r.took > 15*time.Second || exists(e.path("o")) {
		t.Errorf("it took %v; output exists: %v", r.took, exists(e.path("o")))
	}
	if got := readResult(t, e.path("result")); got.Status != 124 || got.ExitCode != nil {
		t.Errorf("result: %+v", got)
	}
	r.namesLogs()
}

// namesLogs checks that the directory of logs that the error names is there.
func (r *run) namesLogs() {
	r.e.t.Helper()
	_, rest, ok := strings.Cut(r.stderr.String(), "the consoles' logs: ")
	dir, _, _ := strings.Cut(rest, "\n")
	if !ok {
		r.e.t.Errorf("no logs are named:\n%s", r.stderr)
		return
	}
	for _, vm := range []string{"controller", "guest"} {
		if _, err := os.Stat(filepath.Join(dir, vm+".console")); err != nil {
			r.e.t.Errorf("the logs that are named: %v", err)
		}
	}
}

// Output resets the clock of --max-silent.
func TestMaxSilent(t *testing.T) {
	e := newEnv(t)
	e.build("--max-silent", "10s", "--", toolPath, "lines", "3", "3000").wants(0)
	r := e.build("--max-silent", "2s", "--", "cmd", "/c", "echo one& S:\\tool\\tool.exe sleep 60000")
	r.wants(124, "the command has been silent for 2s")
	if r.took > 15*time.Second {
		t.Errorf("it took %v", r.took)
	}
}

// Ctrl-C at any moment ends the build soon, with status 130, one line, and nothing
// left, and no output even if the command had made one.
func TestInterrupt(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, after := range []time.Duration{20, 50, 100, 200, 350, 500, 800, 1200, 2500} {
			if sig == syscall.SIGTERM && after != 500 {
				continue
			}
			t.Run(fmt.Sprintf("%v after %v ms", sig, int(after)), func(t *testing.T) {
				e := newEnv(t)
				var r *run
				var sent time.Time
				// A process that was not far enough to take a signal ends by it, and leaves
				// nothing either. Then it gets more time.
				for wait := after * time.Millisecond; ; wait *= 2 {
					r = e.startBuild("--out", e.path("o"), "--result", e.path("result"),
						"--", "cmd", "/c", `echo x >%out%& S:\tool\tool.exe sleep 60000`)
					time.Sleep(wait)
					must(t, r.cmd.Process.Signal(sig))
					sent = time.Now()
					r.wait()
					if r.status() != -1 || wait >= 400*time.Millisecond {
						break
					}
				}
				if d := time.Since(sent); d > 2*time.Second {
					t.Errorf("it took %v to end", d)
				}
				r.wants(130)
				if got := r.stderr.String(); got != "hostagent: interrupted\n" {
					t.Errorf("standard error is %q", got)
				}
				if exists(e.path("o")) {
					t.Error("an interrupted build has an output")
				}
				if got := readResult(t, e.path("result")); got.Status != 130 || got.ExitCode != nil {
					t.Errorf("result: %+v", got)
				}
			})
		}
	}
}

// The same while output comes, while much is written, and when the command is over:
// a build that is ready or not, never half.
func TestInterruptBusy(t *testing.T) {
	for name, c := range map[string]struct {
		command, await string
		after          time.Duration
	}{
		"output":  {toolPath + ` flood 1000000`, "\x00", 100},
		"writing": {`echo started& ` + toolPath + ` fill %out% 500000`, "started", 700},
		"ending":  {`echo started& ` + toolPath + ` fill %out% 20000& echo over`, "over", 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			r := e.startBuild("--out", e.path("o"), "--", "cmd", "/c", c.command)
			r.await(c.await)
			time.Sleep(c.after * time.Millisecond)
			must(t, r.cmd.Process.Signal(syscall.SIGINT))
			sent := time.Now()
			r.wait()
			if d := time.Since(sent); d > 4*time.Second {
				t.Errorf("it took %v to end", d)
			}
			switch {
			case r.status() == 0 && name == "ending":
				if got := readFile(t, e.path("o")); got != string(pattern(20000)) {
					t.Error("the output is not whole")
				}
			case r.status() != 130 || exists(e.path("o")):
				t.Errorf("status %d, output exists: %v; %s", r.status(), exists(e.path("o")), r.stderr)
			}
		})
	}
}

// Builds at the same time on one image don't know of each other.
func TestBuildsAtOnce(t *testing.T) {
	for _, n := range []int{2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			e := newEnv(t)
			writeFile(t, e.path("x", "shared"), "")
			runs := make([]*run, n)
			for i := range runs {
				name := fmt.Sprintf("o%d", i)
				writeFile(t, e.path("store", name+"-in", "x"), name+"\n")
				runs[i] = e.startBuild("--input", "tool", "--input", name+"-in", "--xchg", e.path("x"), "--out", e.path(name),
					"--", "cmd", "/c", `dir /b S:\& type S:\`+name+`-in\x >%out%& echo x >X:\`+name+`& exit `+fmt.Sprint(i%2*5))
			}
			for i, r := range runs {
				select {
				case <-r.done:
				case <-time.After(patience):
					t.Fatalf("build %d still runs: %s", i, r.stderr)
				}
				name := fmt.Sprintf("o%d", i)
				r.wants(i % 2 * 5)
				r.says(name + "-in\ntool\n")
				if i%2 == 0 {
					if got := lf(readFile(t, e.path(name))); got != name+"\n" {
						t.Errorf("output of build %d is %q", i, got)
					}
				} else if exists(e.path(name)) {
					t.Errorf("failed build %d has an output", i)
				}
				if !exists(e.path("x", name)) {
					t.Errorf("build %d left nothing on xchg", i)
				}
			}
			e.checkClean()
			if exists(e.path("x", ".winvm")) {
				t.Error("xchg still has .winvm")
			}
		})
	}
}

// Two builds want the same --out: one gets it, whole, and the other is told.
func TestSameOutAtOnce(t *testing.T) {
	e := newEnv(t)
	var runs [2]*run
	for i := range runs {
		runs[i] = e.startBuild("--out", e.path("o"), "--", "cmd", "/c", fmt.Sprintf(`md %%out%%& echo build%d>%%out%%\who& S:\tool\tool.exe sleep 1500`, i))
	}
	won := -1
	for i, r := range runs {
		<-r.done
		switch {
		case r.status() == 0 && won < 0:
			won = i
		case r.status() != 125 || !strings.Contains(r.stderr.String(), "exist"):
			t.Errorf("build %d: status %d: %s", i, r.status(), r.stderr)
		}
	}
	if got := lf(readFile(t, e.path("o", "who"))); got != fmt.Sprintf("build%d\n", won) {
		t.Errorf("build %d won, and the output is of build %q", won, got)
	}
	e.checkClean()
}
