package e2e_test

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"winvm/hostagent/build"
)

// ps is what `hostagent ps` knows.
type ps struct {
	ID, Image, Stage, Dir, Problem string
	Command                        []string
	Pid                            int
	QEMU                           map[string]int
	PSS                            int64 `json:"pss_bytes"`
	Until                          *time.Time
}

func (e *env) ps() (runs []ps) {
	e.t.Helper()
	r := e.start("--json", "ps")
	<-r.done
	r.wants(0)
	must(e.t, json.Unmarshal([]byte(r.stdout.String()), &runs))
	return runs
}

// quick runs a command of hostagent that starts no VM.
func (e *env) quick(args ...string) *run {
	e.t.Helper()
	r := e.start(args...)
	<-r.done
	return r
}

// A build that runs can be listed, looked at and ended by others, and leaves its
// logs.
func TestPsKillLogs(t *testing.T) {
	e := newEnv(t)
	if runs := e.ps(); len(runs) != 0 {
		t.Errorf("nothing runs, and there is %+v", runs)
	}
	r := e.startBuild(append([]string{"--out", e.path("o"), "--result", e.path("result")}, longCommand...)...)
	r.await("started")
	runs := e.ps()
	if len(runs) != 1 {
		t.Fatalf("got %+v", runs)
	}
	p := runs[0]
	if p.Stage != "command" || p.Image != imageName || p.Command[0] != "cmd" || p.Pid != r.cmd.Process.Pid || p.QEMU["guest"] != e.qemu("guest") ||
		p.PSS < 50<<20 || p.PSS > 2<<30 || p.Problem != "" || p.Until != nil {
		t.Errorf("got %+v", p)
	}
	table := e.quick("ps").stdout.String()
	if !strings.Contains(table, p.ID) || !strings.Contains(table, " MiB ") {
		t.Errorf("the table is %q", table)
	}
	short := p.ID[len(p.ID)-6:]
	e.quick("screenshot", short, "-o", e.path("screen.png")).wants(0)
	if shot, err := png.DecodeConfig(strings.NewReader(readFile(t, e.path("screen.png")))); err != nil || shot.Width < 320 {
		t.Errorf("screenshot: %+v, %v", shot, err)
	}
	e.quick("screenshot", short, "-o", e.path("screen.png")).wants(125, "exists")
	e.quick("shell", "--attach", short).wants(125, "is not kept")
	logs := e.start("logs", short, "--vm", "controller", "-f")
	logs.await("session begins")

	e.quick("kill", short).wants(0)
	// It has ended when kill has, and nothing is left.
	e.checkClean()
	r.wait()
	r.wants(130, "ended by `hostagent kill`")
	if exists(e.path("o")) {
		t.Error("a build that was ended has an output")
	}
	<-logs.done
	logs.wants(0)
	if got := e.quick("logs", p.ID, "--vm=controller").stdout.String(); got == "" || got != logs.stdout.String() {
		t.Errorf("followed, the log is %q, and afterwards %q", logs.stdout, got)
	}
	e.quick("kill", p.ID).wants(125, "no such run", "hostagent ps")
	if res := readResult(t, e.path("result")); res.Status != 130 || res.ID != p.ID {
		t.Errorf("result %+v", res)
	}
	e.trace(filepath.Join(e.state, "logs", p.ID, "timeline.json"), "revive", "command")
}

// trace checks a Chrome trace.
func (e *env) trace(path string, names ...string) {
	e.t.Helper()
	var f struct {
		TraceEvents []struct {
			Name, Ph string
			Ts, Dur  float64
			Pid, Tid int
		}
	}
	must(e.t, json.Unmarshal([]byte(readFile(e.t, path)), &f))
	for _, name := range names {
		found := false
		for _, ev := range f.TraceEvents {
			found = found || ev.Name == name && ev.Ph == "X" && ev.Dur > 0 && ev.Pid > 0 && ev.Tid > 0
		}
		if !found {
			e.t.Errorf("%s has no span %q", path, name)
		}
	}
}

// A host agent that stands still doesn't hold up those who ask.
func TestPsOfAHungRun(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild(longCommand...)
	r.await("started")
	must(t, r.cmd.Process.Signal(syscall.SIGSTOP))
	begun := time.Now()
	runs := e.ps()
	if took := time.Since(begun); took > 4*time.Second || len(runs) != 1 || runs[0].Problem == "" || runs[0].ID == "" {
		t.Errorf("after %v: %+v", took, runs)
	}
	must(t, r.cmd.Process.Signal(syscall.SIGCONT))
	e.quick("kill", runs[0].ID).wants(0)
	r.wait()
	r.wants(130)
}

// A failed build's pair is kept, paused: a shell in it sees what the build left; when
// it is ended, what --keep-failed leaves without it is there.
func TestKeepFailedPair(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild("--out", e.path("o"), "--keep-failed", "--result", e.path("result"), "--",
		"cmd", "/c", `echo x>X:\note& echo y>%out%& echo z>C:\inside& exit 3`)
	<-r.done
	r.wants(3, "is kept in", "its VMs are paused until ", "hostagent shell --attach")
	res := readResult(t, e.path("result"))
	if res.Status != 3 || res.Kept == "" || res.Until == nil || time.Until(*res.Until) < 50*time.Minute {
		t.Fatalf("result %+v", res)
	}
	runs := e.ps()
	if len(runs) != 1 || runs[0].ID != res.ID || runs[0].Stage != "kept, paused" || runs[0].Dir != res.Kept || runs[0].Until == nil {
		t.Fatalf("got %+v", runs)
	}
	keeper := runs[0].Pid
	t.Cleanup(func() { _ = syscall.Kill(keeper, syscall.SIGKILL) }) // if something here fails
	before := cpuTicks(t, runs[0].QEMU["guest"])
	// The parts of the guest that no share shows.
	for range 2 {
		s := e.quick("--quiet", "shell", "--attach", res.ID[len(res.ID)-6:], "--", `type C:\inside& type X:\note& echo more>>X:\note& exit 7`)
		s.wants(7)
		if got := lf(s.stdout.String()); !strings.HasPrefix(got, "z\nx\n") {
			t.Errorf("the shell shows %q", got)
		}
	}
	if got := lf(readFile(t, filepath.Join(res.Xchg, "note"))); got != "x\nmore\nmore\n" {
		t.Errorf("xchg's note is %q", got)
	}
	// The shell may have ended a moment before the pair is paused.
	within(t, 10*time.Second, "paused after the shells", func() bool {
		runs = e.ps()
		return len(runs) == 1 && runs[0].Stage == "kept, paused"
	})
	after := cpuTicks(t, runs[0].QEMU["guest"])
	time.Sleep(300 * time.Millisecond)
	if still := cpuTicks(t, runs[0].QEMU["guest"]); still > after+2 || after == before {
		t.Errorf("CPU time of a paused guest: %d, then %d, then %d", before, after, still)
	}
	e.quick("screenshot", res.ID, "-o", e.path("screen.png")).wants(0)
	// Another build sweeps; what is kept and lives stays.
	other := e.start("--quiet", "build", "--store", e.store, "--", "cmd", "/c", "exit 0")
	<-other.done
	other.wants(0)

	e.quick("kill", res.ID).wants(0)
	within(t, 2*time.Second, "the keeper ends", func() bool { return !alive(keeper) })
	e.checkClean()
	for file, want := range map[string]string{"xchg/note": "x\nmore\nmore\n", "beside-0/o": "y\n"} {
		if got := readFile(t, filepath.Join(res.Kept, file)); lf(got) != want {
			t.Errorf("the kept %s is %q", file, got)
		}
	}
	if len(e.ps()) != 0 {
		t.Error("it is still listed")
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// cpuTicks is the CPU time of a process.
func cpuTicks(t *testing.T, pid int) int {
	t.Helper()
	text := readFile(t, filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	user, err := strconv.Atoi(fields[11])
	must(t, err)
	system, err := strconv.Atoi(fields[12])
	must(t, err)
	return user + system
}

// A keeper doesn't outlive its time, nor a hostagent that was killed, nor a pair that
// has died; and what succeeds, or is interrupted, keeps nothing.
func TestKeepersEnd(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild("--keep-failed", "--keep-for", "2s", "--", "cmd", "/c", "exit 3")
	<-r.done
	r.wants(3, "are paused until")
	within(t, 10*time.Second, "its time is over", func() bool { return len(e.leftovers()) == 0 })

	r = e.startBuild("--keep-failed", "--", "cmd", "/c", "exit 3")
	<-r.done
	must(t, syscall.Kill(e.qemu("guest"), syscall.SIGKILL))
	within(t, 10*time.Second, "its pair is dead", func() bool { return len(e.leftovers()) == 0 })

	r = e.startBuild(append([]string{"--keep-failed"}, longCommand...)...)
	r.await("started")
	must(t, r.cmd.Process.Kill())
	<-r.done
	within(t, 10*time.Second, "hostagent was killed", func() bool { return len(e.leftovers()) == 0 && len(e.ps()) == 0 })

	r = e.startBuild(append([]string{"--keep-failed", "--result", e.path("result")}, longCommand...)...)
	r.await("started")
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wait()
	r.wants(130, "hostagent: interrupted")
	if res := readResult(t, e.path("result")); res.Until != nil {
		t.Errorf("interrupted, and its pair is kept: %+v", res)
	}
	r = e.build("--keep-failed", "--", "cmd", "/c", "echo fine")
	r.wants(0)
	r.says("fine\n")
	if strings.Contains(r.stderr.String(), "kept") {
		t.Errorf("it said %s", r.stderr)
	}
}

// Two builds of the same inputs, with another one in between, are the same; --check
// sees it, and sees what differs.
func TestCheck(t *testing.T) {
	e := newEnv(t)
	writeFile(t, filepath.Join(e.store, "src", "build.bat"),
		"md %out%\\d\r\ncopy /y S:\\src\\build.bat %out%\\d >nul\r\nS:\\tool\\tool.exe fill %out%\\big 300\r\necho text>%out%\\text\r\n")
	r := e.build("--check", "--out", e.path("a"), "--result", e.path("result"), "--", "cmd", "/c", `S:\src\build.bat`)
	r.wants(0)
	if res := readResult(t, e.path("result")); res.Out != e.path("a") || len(res.Differences) != 0 {
		t.Errorf("result %+v", res)
	}
	e.build("--", "cmd", "/c", `echo 1>X:\x& S:\tool\tool.exe fill C:\junk 1000`).wants(0)
	e.build("--out", e.path("c"), "--", "cmd", "/c", `S:\src\build.bat`).wants(0)
	for _, f := range []string{"d/build.bat", "big", "text"} {
		if a, c := readFile(t, e.path("a", f)), readFile(t, e.path("c", f)); a != c || a == "" {
			t.Errorf("%s differs", f)
		}
	}

	must(t, os.Mkdir(e.path("x"), 0o755))
	r = e.build("--check", "--out", e.path("d"), "--xchg", e.path("x"), "--result", e.path("result"), "--", "cmd", "/c",
		`md %out%& echo same>%out%\same& if exist X:\again (echo twice>%out%\f& echo n>%out%\new) else (echo two>%out%\f& echo x>X:\again)`)
	r.wants(123, "two builds differ, in 2 places", `"f": content differs from byte 2 on (5 bytes then 7 bytes)`, `"new": only the second build made it`)
	res := readResult(t, e.path("result"))
	if res.Status != 123 || len(res.Differences) != 2 || *res.Differences[0].Offset != 2 || res.Differences[1].Kind != "added" {
		t.Errorf("result %+v", res)
	}
	if got := lf(readFile(t, e.path("d", "f"))); got != "two\n" {
		t.Errorf("--out is not the first one's: %q", got)
	}
	e.build("--check", "--out", e.path("f"), "--xchg", e.path("x"), "--", "cmd", "/c", `echo x>%out%& if exist X:\fail (exit 9) else (echo x>X:\fail)`).
		wants(123, "the second build's command exited with 9")
	e.build("--check", "--", "cmd", "/c", "exit 0").wants(125, "--check compares outputs: it needs --out")
}

// The timeline as a file is what viewers load.
func TestTimelineFile(t *testing.T) {
	e := newEnv(t)
	e.build("--timeline-file", e.path("trace.json"), "--", "cmd", "/c", "exit 4").wants(4)
	e.trace(e.path("trace.json"), "prepare", "revive", "channel", "command", "teardown")
	found, _ := filepath.Glob(filepath.Join(e.state, "logs", "*", build.TraceName))
	if len(found) != 1 {
		t.Fatalf("kept with the logs: %v", found)
	}
	if a, b := readFile(t, found[0]), readFile(t, e.path("trace.json")); !bytes.Equal([]byte(a), []byte(b)) {
		t.Error("the run's own is another")
	}
}
