package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"winvm/hostagent/build"
	"winvm/transport/needs"
)

// imageName is the image that the tests use.
const imageName = "wine"

// patience is how long one run of hostagent may take before the test gives it up.
const patience = 2 * time.Minute

// hostagent is the program under test.
func hostagent(t testing.TB) string {
	t.Helper()
	p := os.Getenv("WINVM_TEST_HOSTAGENT")
	if p == "" {
		p = "../../build/bin/hostagent"
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(abs); err != nil {
		needs.Missing(t, "no hostagent program: %v; `make build` makes it", err)
	}
	return abs
}

// An env is where one test runs hostagent. Everything of it lies below dir.
type env struct {
	t     *testing.T
	dir   string
	state string // --state-dir
	store string // --store; has the store path "tool"

	patience time.Duration
}

// sharedImages is the directory of images that the tests must not change.
func sharedImages(t testing.TB) string {
	t.Helper()
	needs.Tool(t, "qemu-system-x86_64")
	state := needs.Env(t, "WINVM_TEST_STATE_DIR", "the state directory with image wine; `make test` makes one")
	images, err := filepath.Abs(filepath.Join(state, "images"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(images, imageName, "image.json")); err != nil {
		needs.Missing(t, "no image: %v", err)
	}
	return images
}

// newEnv gives the test an empty world, and checks at its end that nothing is left.
func newEnv(t *testing.T) *env {
	t.Helper()
	images := sharedImages(t)
	t.Setenv("WINVM_JOBS", "8") // what runs at once here is meant to
	e := &env{t: t, dir: t.TempDir(), patience: patience}
	e.state, e.store = e.path("state"), e.path("store")
	must(t, os.MkdirAll(e.state, 0o755))
	must(t, os.Symlink(images, filepath.Join(e.state, "images")))
	must(t, os.MkdirAll(filepath.Join(e.store, "tool"), 0o755))
	writeFile(t, filepath.Join(e.store, "tool", "tool.exe"), tool(t))
	t.Cleanup(e.checkClean)
	return e
}

// tool is the program of testdata/tool.c.
func tool(t testing.TB) string { return program(t, "tool.c") }

// program is the Windows program that a file of testdata is the source of.
func program(t testing.TB, source string) string {
	t.Helper()
	cc := needs.Tool(t, "x86_64-w64-mingw32-gcc")
	programs.Lock()
	defer programs.Unlock()
	if exe, ok := programs.made[source]; ok {
		return exe
	}
	exe := filepath.Join(t.TempDir(), "program.exe")
	out, err := exec.Command(cc, "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-o", exe, filepath.Join("testdata", source), "-lshell32").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", source, err, out)
	}
	if programs.made == nil {
		programs.made = map[string]string{}
	}
	programs.made[source] = readFile(t, exe)
	return programs.made[source]
}

// programs are those compiled already, by source.
var programs struct {
	sync.Mutex
	made map[string]string
}

// toolPath is what tool.exe is called in the guest.
const toolPath = `S:\tool\tool.exe`

func (e *env) path(elem ...string) string { return filepath.Join(append([]string{e.dir}, elem...)...) }

// A run is hostagent as a child process.
type run struct {
	e              *env
	cmd            *exec.Cmd
	stdout, stderr *liveBuffer
	begun          time.Time
	done           chan struct{}
	took           time.Duration
	err            error // of Wait
}

// start starts hostagent with these arguments after the global flags.
func (e *env) start(args ...string) *run {
	e.t.Helper()
	return e.startAs(nil, args...)
}

// startAs is start with a change to the command before it starts.
func (e *env) startAs(change func(*exec.Cmd), args ...string) *run {
	e.t.Helper()
	r := &run{e: e, stdout: newLiveBuffer(), stderr: newLiveBuffer(), done: make(chan struct{})}
	r.cmd = exec.Command(hostagent(e.t), append([]string{"--state-dir", e.state}, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = r.stdout, r.stderr
	if change != nil {
		change(r.cmd)
	}
	r.begun = time.Now()
	must(e.t, r.cmd.Start())
	go func() {
		r.err = r.cmd.Wait()
		r.took = time.Since(r.begun)
		close(r.done)
	}()
	e.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
	})
	return r
}

// build runs a build to its end. args follow "build --store DIR".
func (e *env) build(args ...string) *run {
	e.t.Helper()
	r := e.startBuild(args...)
	r.wait()
	return r
}

func (e *env) startBuild(args ...string) *run {
	e.t.Helper()
	return e.start(append([]string{"--quiet", "build", "--store", e.store}, args...)...)
}

// wait waits for the end and checks that nothing is left of the run.
func (r *run) wait() {
	r.e.t.Helper()
	select {
	case <-r.done:
	case <-time.After(r.e.patience):
		r.e.t.Fatalf("hostagent %q still runs after %v\nstderr: %s", r.cmd.Args[1:], r.e.patience, r.stderr)
	}
	r.e.checkClean()
}

// status is the exit status; -1 after a signal.
func (r *run) status() int { return r.cmd.ProcessState.ExitCode() }

// wants checks the exit status, and that standard error has all of these.
func (r *run) wants(status int, stderr ...string) {
	r.e.t.Helper()
	if got := r.status(); got != status {
		r.e.t.Errorf("exit status %d, want %d\nstdout: %.2000s\nstderr: %s", got, status, r.stdout, r.stderr)
	}
	for _, s := range stderr {
		if !strings.Contains(r.stderr.String(), s) {
			r.e.t.Errorf("standard error lacks %q:\n%s", s, r.stderr)
		}
	}
}

// says checks all of standard output, with CRLF taken as LF.
func (r *run) says(want string) {
	r.e.t.Helper()
	if got := lf(r.stdout.String()); got != want {
		r.e.t.Errorf("standard output is %q, want %q\nstderr: %s", got, want, r.stderr)
	}
}

func lf(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// result reads what --result wrote.
func readResult(t testing.TB, path string) build.Result {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	var r build.Result
	must(t, json.Unmarshal(b, &r))
	return r
}

// qemus are the pids of QEMUs that have this env's directory on their command line.
func (e *env) qemus() map[string]int { return processes("qemu", e.dir+"/") }

// processes maps the machine's name (or the pid) to the pid of every process of
// that program with text on its command line.
func processes(program, text string) map[string]int {
	found := map[string]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || !strings.Contains(string(b), text) {
			continue
		}
		args := strings.Split(string(b), "\x00")
		if !strings.Contains(filepath.Base(args[0]), program) {
			continue
		}
		var pid int
		_, _ = fmt.Sscan(filepath.Base(d), &pid)
		name := fmt.Sprint(pid)
		for i, a := range args[:len(args)-1] {
			if a == "-name" {
				name, _, _ = strings.Cut(strings.TrimPrefix(args[i+1], "guest="), ",")
			}
		}
		found[name] = pid
	}
	return found
}

// leftovers lists what a run should not have left.
func (e *env) leftovers() (found []string) {
	for name, pid := range e.qemus() {
		found = append(found, fmt.Sprintf("QEMU of the %s, process %d", name, pid))
	}
	runs, _ := os.ReadDir(filepath.Join(e.state, "run"))
	for _, r := range runs {
		found = append(found, "run directory "+r.Name())
	}
	staged, _ := filepath.Glob(e.path("*", ".winvm*"))
	top, _ := filepath.Glob(e.path(".winvm*"))
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], e.dir+"/") && f[4] != e.path("disk") {
			found = append(found, "mount "+f[4])
		}
	}
	return append(append(found, staged...), top...)
}

func (e *env) checkClean() {
	e.t.Helper()
	for _, l := range e.leftovers() {
		e.t.Errorf("left behind: %s", l)
	}
}

// A liveBuffer takes a child's output and lets a test wait for a part of it.
type liveBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	grown chan struct{}
}

func newLiveBuffer() *liveBuffer { return &liveBuffer{grown: make(chan struct{})} }

func (b *liveBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p)
	close(b.grown)
	b.grown = make(chan struct{})
	return len(p), nil
}

func (b *liveBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await waits until the output contains text.
func (b *liveBuffer) await(ctx context.Context, text string) error {
	for {
		b.mu.Lock()
		grown, found := b.grown, bytes.Contains(b.buf.Bytes(), []byte(text))
		b.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return fmt.Errorf("%q did not come (%w); there is %q", text, context.Cause(ctx), b)
		}
	}
}

// await waits until standard output has text, and fails the test if the program
// ends or too much time passes before.
func (r *run) await(text string) {
	r.e.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, errors.New("time is up"))
	defer cancel()
	go func() {
		select {
		case <-r.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := r.stdout.await(ctx, text); err != nil {
		r.e.t.Fatalf("standard output: %v\nstderr: %s", err, r.stderr)
	}
}

// within waits for a condition.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(f)
	must(t, err)
	return string(b)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
