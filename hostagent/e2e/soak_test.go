package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

// The soak tests do the same thing many times. `make soak` runs them for long, and
// writes what came of it to the file $WINVM_SOAK_OUT; in `make test` they are short.

// soakNumber is a number from the environment.
func soakNumber(t *testing.T, name string, normally int) int {
	t.Helper()
	value, ok := os.LookupEnv(name)
	if !ok {
		return normally
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: want a number", name, value)
	}
	return n
}

// A soakReport is what a soak test has seen.
type soakReport struct {
	Revives   int `json:"revives"`
	UnderLoad int `json:"under_load"` // of these
	FourAtOne int `json:"four_at_once"`
	Kills     int `json:"suspends_killed,omitempty"`
	OldState  int `json:"old_state_after,omitempty"` // after how many kills the old state counted
	NewState  int `json:"new_state_after,omitempty"`

	Hangs      int      `json:"hangs"`
	WrongBytes int      `json:"wrong_bytes"`
	Failures   int      `json:"failures"` // others
	Leftovers  int      `json:"leftovers"`
	Problems   []string `json:"problems,omitempty"`

	Seconds []float64          `json:"-"`
	Took    map[string]float64 `json:"seconds"`               // of one revive alone: min, median, p90, p99, max, and of all
	Clock   map[string]float64 `json:"guest_clock,omitempty"` // seconds after the guest's boot: min, max
	Machine string             `json:"machine"`
	Begun   time.Time          `json:"begun"`
}

// over reports whether the test's time is up: $WINVM_SOAK_SECONDS, if that is set.
func (r *soakReport) over(t *testing.T) bool {
	t.Helper()
	limit := soakNumber(t, "WINVM_SOAK_SECONDS", 0)
	return limit > 0 && time.Since(r.Begun) > time.Duration(limit)*time.Second
}

// maxProblems is at how many problems a soak test gives up.
const maxProblems = 20

func (r *soakReport) problem(t *testing.T, count *int, format string, args ...any) {
	t.Helper()
	*count++
	text := fmt.Sprintf(format, args...)
	r.Problems = append(r.Problems, text)
	t.Error(text)
	if len(r.Problems) >= maxProblems {
		t.Fatal("that is enough")
	}
}

// finish works out the figures and writes them where they are wanted.
func (r *soakReport) finish(t *testing.T, name string) {
	t.Helper()
	r.Machine = fmt.Sprintf("%d CPUs, %s", runtime.NumCPU(), accelOf(t))
	r.Took = map[string]float64{"all": round(time.Since(r.Begun).Seconds())}
	if s := slices.Sorted(slices.Values(r.Seconds)); len(s) > 0 {
		for what, q := range map[string]float64{"min": 0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1} {
			r.Took[what] = round(s[int(q*float64(len(s)-1))])
		}
	}
	b, err := json.MarshalIndent(r, "", "  ")
	must(t, err)
	t.Logf("%s", b)
	if out := os.Getenv("WINVM_SOAK_OUT"); out != "" {
		must(t, os.MkdirAll(out, 0o755))
		must(t, os.WriteFile(filepath.Join(out, name+".json"), append(b, '\n'), 0o644))
	}
}

func round(s float64) float64 { return float64(int(s*1000+0.5)) / 1000 }

func accelOf(t *testing.T) string {
	t.Helper()
	var m struct{ State struct{ Accel, QEMU string } }
	must(t, json.Unmarshal([]byte(readFile(t, filepath.Join(sharedImages(t), imageName, "image.json"))), &m))
	return m.State.Accel + ", QEMU " + m.State.QEMU
}

// A soakRun is one revive with its inputs.
type soakRun struct {
	*run
	name string
	load bool
	n    int
}

// soakFiles are what a run under file load copies through the guest: some hundreds of
// kilobytes in small files, and a large one.
func soakFiles(load bool, seed uint64) map[string][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	files := map[string][]byte{"data": random(1 + r.IntN(100_000))}
	if load {
		for i := range 20 {
			files[fmt.Sprintf("d%d/f%d", i%3, i)] = random(r.IntN(20_000))
		}
		files["large"] = random(2<<20 + r.IntN(4096))
	}
	return files
}

// guestEpoch is where the guest's clock began when it was booted. What Windows programs
// make on a share bears the guest's clock.
var guestEpoch = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)

// startSoak starts one revive. Its command copies all of its input to its output, and
// makes a file whose time is the guest's clock.
func (e *env) startSoak(n int, load bool) *soakRun {
	e.t.Helper()
	s := &soakRun{name: fmt.Sprintf("n%d", n), load: load, n: n}
	for f, b := range soakFiles(load, uint64(n)) {
		writeFile(e.t, filepath.Join(e.store, s.name, filepath.FromSlash(f)), string(b))
	}
	command := `md %out%& echo x>%out%\clock& copy /b /y S:\` + s.name + `\data %out% >nul`
	if load {
		command = `md %out%& echo x>%out%\clock& xcopy /e /q /y S:\` + s.name + ` %out% >nul`
	}
	s.run = e.startBuild("--input", s.name, "--out", e.path("out-"+s.name), "--", "cmd", "/c", command)
	return s
}

// check waits for the end of a revive and looks at what came of it.
func (e *env) checkSoak(r *soakReport, s *soakRun) {
	e.t.Helper()
	r.Revives++
	if s.load {
		r.UnderLoad++
	}
	select {
	case <-s.done:
	case <-time.After(patience):
		r.problem(e.t, &r.Hangs, "revive %d still runs after %v: %s", s.n, patience, s.stderr)
		_ = s.cmd.Process.Kill()
		<-s.done
		return
	}
	if s.status() != 0 {
		r.problem(e.t, &r.Failures, "revive %d: status %d: %s", s.n, s.status(), s.stderr)
		return
	}
	clock, err := os.Stat(e.path("out-"+s.name, "clock"))
	if err != nil {
		r.problem(e.t, &r.Failures, "revive %d: %v", s.n, err)
		return
	}
	at := clock.ModTime().Sub(guestEpoch).Seconds()
	if r.Clock == nil {
		r.Clock = map[string]float64{"min": at, "max": at}
	}
	r.Clock["min"], r.Clock["max"] = min(r.Clock["min"], at), max(r.Clock["max"], at)
	for f, want := range soakFiles(s.load, uint64(s.n)) {
		if got, err := os.ReadFile(e.path("out-"+s.name, f)); err != nil || !bytes.Equal(got, want) {
			r.problem(e.t, &r.WrongBytes, "revive %d: %s is not what was given (%d bytes, want %d; %v)", s.n, f, len(got), len(want), err)
		}
	}
	must(e.t, os.RemoveAll(e.path("out-"+s.name)))
	must(e.t, os.RemoveAll(filepath.Join(e.store, s.name)))
}

// Many revives in a row, a fifth of them under file load, a tenth with four at once:
// no hang, no wrong byte, nothing left, and the guest's clock is the same in all.
func TestSoak(t *testing.T) {
	revives := soakNumber(t, "WINVM_SOAK_REVIVES", 6)
	e := newEnv(t)
	r := &soakReport{Begun: time.Now()}
	defer r.finish(t, "revives")
	four := max(revives/40, 1) // batches
	for n, left := 0, revives; left > 0 && !r.over(t); {
		batch := 1
		if four > 0 && left >= 4 && rand.IntN(left/4+1) < four {
			batch, four = 4, four-1
		}
		var runs []*soakRun
		for range batch {
			runs = append(runs, e.startSoak(n, n%5 == 2))
			n++
		}
		for _, s := range runs {
			e.checkSoak(r, s)
			if batch == 1 {
				r.Seconds = append(r.Seconds, s.took.Seconds())
			} else {
				r.FourAtOne++
			}
		}
		for _, l := range e.leftovers() {
			r.problem(t, &r.Leftovers, "after revive %d there is left: %s", n-1, l)
		}
		left -= batch
	}
	// All guests wake up at one moment of their time, less than ten minutes after their
	// boot, and tell a time close to it.
	if r.Clock["min"] <= 0 || r.Clock["min"] > 600 || r.Clock["max"]-r.Clock["min"] > 60 {
		r.problem(t, &r.Failures, "the guests' clocks: %v", r.Clock)
	}
	e.start("image", "verify", imageName).mustEndWell()
}

func (r *run) mustEndWell() {
	r.e.t.Helper()
	r.wait()
	r.wants(0)
}

// Suspends killed with SIGKILL at random moments, half of them while the states are
// written: afterwards a build works, from the old state or from the new one.
func TestSoakSuspendKilled(t *testing.T) {
	kills := soakNumber(t, "WINVM_SOAK_SUSPENDS", 1)
	e := newEnv(t)
	i := e.ownImage()
	r := &soakReport{Begun: time.Now()}
	defer r.finish(t, "suspends")
	length := 25 * time.Second // of a suspend; known better after the first that ends
	for n := range kills {
		if r.over(t) {
			break
		}
		before := i.current()
		s := e.start("suspend", imageName)
		if n%2 == 1 {
			awaitStderr(s, "saving both VMs")
			wait(s, time.Duration(rand.IntN(2500))*time.Millisecond)
		} else {
			wait(s, time.Duration(rand.Int64N(int64(length))))
		}
		_ = s.cmd.Process.Kill()
		<-s.done
		if s.status() == 0 {
			length = s.took
		}
		r.Kills++
		within(t, 5*time.Second, "its QEMUs end", func() bool { return len(e.qemus()) == 0 })
		if i.current() == before {
			r.OldState++
		} else {
			r.NewState++
		}
		b := e.startBuild("--", "cmd", "/c", `type S:\tool\tool.exe >nul&& echo works`)
		select {
		case <-b.done:
		case <-time.After(patience):
			r.problem(t, &r.Hangs, "after kill %d the build hangs", n)
			continue
		}
		r.Revives++
		r.Seconds = append(r.Seconds, b.took.Seconds())
		if b.status() != 0 || lf(b.stdout.String()) != "works\n" {
			r.problem(t, &r.Failures, "after kill %d: status %d, %q: %s", n, b.status(), b.stdout, b.stderr)
		}
		for _, l := range e.leftovers() {
			r.problem(t, &r.Leftovers, "after kill %d there is left: %s", n, l)
		}
	}
	if e.quick("gc").wants(0); len(i.states()) != 1 {
		t.Errorf("after a gc there are %v", i.states())
	}
}

// current is the directory of the state that counts.
func (i *ownImage) current() string {
	i.e.t.Helper()
	var m struct{ State struct{ Dir string } }
	must(i.e.t, json.Unmarshal([]byte(readFile(i.e.t, filepath.Join(i.dir, "image.json"))), &m))
	return m.State.Dir
}

// wait waits for a time, or for the program's end.
func wait(r *run, d time.Duration) {
	select {
	case <-r.done:
	case <-time.After(d):
	}
}

// A guest that fills its own disk gets an error, and the build its exit code; one that
// spins gets its timeout. The host has what it had.
func TestGuestLimits(t *testing.T) {
	e := newEnv(t)
	r := e.build("--timeout", "90s", "--", "cmd", "/c", `S:\tool\tool.exe fill C:\big 8000000`)
	r.wants(91, "tool: write: error")
	t.Logf("a full disk: %v", r.took)

	before := time.Now()
	r = e.build("--timeout", "5s", "--", "cmd", "/c", `for /l %i in (1,0,2) do @rem`)
	r.wants(124, "the command has run for 5s")
	if took := time.Since(before); took > 15*time.Second {
		t.Errorf("a guest that spins: %v", took)
	}
	e.works()
}
