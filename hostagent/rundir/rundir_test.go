package rundir

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

// helperState, if it is set, makes the test binary a run that never ends.
const helperState, helperOut = "RUNDIR_TEST_STATE", "RUNDIR_TEST_OUT"

func TestMain(m *testing.M) {
	if state := os.Getenv(helperState); state != "" {
		if err := runForEver(state, os.Getenv(helperOut)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// runForEver is what a build does to its directory, up to the point at which it
// is killed.
func runForEver(state, out string) error {
	d, err := New(state)
	if err != nil {
		return err
	}
	beside, err := d.Beside(out)
	if err != nil {
		return err
	}
	for _, f := range []string{d.Path("console.log"), filepath.Join(d.LogDir(), "x"), filepath.Join(beside, "half-written")} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			return err
		}
	}
	fmt.Println(d.Path("."), beside)
	time.Sleep(time.Hour) // until it is killed
	return nil
}

// startRun starts another process with a run directory, and returns that and the
// directory beside out.
func startRun(t *testing.T, state, out string) (cmd *exec.Cmd, dir, beside string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperState+"="+state, helperOut+"="+out)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	line, err := bufio.NewReader(pipe).ReadString('\n')
	if _, err := fmt.Sscan(line, &dir, &beside); err != nil || dir == "error" {
		t.Fatalf("helper said %q: %v", line, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, dir, beside
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func mustNew(t *testing.T, state string) *Dir {
	t.Helper()
	d, err := New(state)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out
}

func TestSweep(t *testing.T) {
	state, outs := t.TempDir(), t.TempDir()
	out := filepath.Join(outs, "result")
	dead, deadDir, deadBeside := startRun(t, state, out)
	_, liveDir, liveBeside := startRun(t, state, out)
	if err := os.WriteFile(out, nil, 0o600); err != nil { // not the run's
		t.Fatal(err)
	}
	kill(dead)

	d := mustNew(t, state)
	defer func() { _ = d.Remove() }()
	for _, p := range []string{deadDir, deadBeside} {
		if exists(t, p) {
			t.Errorf("%s of a killed run is still there", p)
		}
	}
	for _, p := range []string{liveDir, filepath.Join(liveBeside, "half-written"), out, d.Path("lock")} {
		if !exists(t, p) {
			t.Errorf("%s is gone", p)
		}
	}
}

func TestSweepOfUnfinished(t *testing.T) {
	state := t.TempDir()
	runs := filepath.Join(state, "run")
	old := time.Now().Add(-2 * newLimit)
	for name, modified := range map[string]time.Time{
		"no-lock-young": time.Now(), "no-lock-old": old,
		newPrefix + "young": time.Now(), newPrefix + "old": old,
	} {
		dir := filepath.Join(runs, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		// A lock that isn't held yet, as in the middle of New.
		if strings.HasPrefix(name, newPrefix) {
			if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	sweep(runs)
	if got := strings.Join(names(t, runs), " "); got != newPrefix+"young no-lock-young" {
		t.Errorf("there are %s", got)
	}
}

// What lies in a run's directory may be damaged; it must not make New remove
// something that isn't winvm's.
func TestSweepBelievesOnlyBeside(t *testing.T) {
	state, outs := t.TempDir(), t.TempDir()
	precious := filepath.Join(outs, "precious")
	mine := filepath.Join(outs, besidePrefix+"x")
	for _, d := range []string{filepath.Join(state, "run", "dead"), precious, mine} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list := strings.Join([]string{precious, outs, "/", "", "relative/" + besidePrefix + "y", mine}, "\n") + "\n"
	for name, text := range map[string]string{"lock": "", "beside": list} {
		if err := os.WriteFile(filepath.Join(state, "run", "dead", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sweep(filepath.Join(state, "run"))
	if !exists(t, precious) || exists(t, mine) || exists(t, filepath.Join(state, "run", "dead")) {
		t.Errorf("left: %v and %v", names(t, outs), names(t, filepath.Join(state, "run")))
	}
}

func TestManyAtOnce(t *testing.T) {
	state := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				d, err := New(state)
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(d.Path("file"), nil, 0o600); err != nil {
					t.Errorf("another one's sweep took the directory: %v", err)
				}
				if err := d.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left := names(t, filepath.Join(state, "run")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRemove(t *testing.T) {
	state, outs := t.TempDir(), t.TempDir()
	d := mustNew(t, state)
	beside, err := d.Beside(filepath.Join(outs, "result"))
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(beside) != outs || !exists(t, beside) {
		t.Errorf("%s is not a directory beside the output", beside)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := append(names(t, outs), names(t, filepath.Join(state, "run"))...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBesideRefuses(t *testing.T) {
	d := mustNew(t, t.TempDir())
	defer func() { _ = d.Remove() }()
	if _, err := d.Beside(filepath.Join(t.TempDir(), "no-such-dir", "out")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no parent: got %v", err)
	}
	if _, err := d.Beside("/tmp/a\nb/out"); err == nil {
		t.Error("a line break in the path was taken")
	}
}

func TestKeep(t *testing.T) {
	state := t.TempDir()
	d := mustNew(t, state)
	if err := os.WriteFile(d.Path("evidence"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	beside, err := d.Beside(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(beside, "half"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kept := d.Keep()
	if !exists(t, filepath.Join(kept, "beside-0", "half")) || exists(t, beside) {
		t.Error("what was beside another path was not kept with the rest")
	}
	if kept != filepath.Join(state, "kept", d.ID) {
		t.Errorf("kept in %s", kept)
	}
	other := mustNew(t, state) // its sweep must leave it alone
	defer func() { _ = other.Remove() }()
	if !exists(t, filepath.Join(kept, "evidence")) {
		t.Error("what was kept is gone")
	}
	if left := names(t, filepath.Join(state, "run")); len(left) != 1 || left[0] != other.ID {
		t.Errorf("runs: %v", left)
	}
}

func TestKeepLogs(t *testing.T) {
	state := t.TempDir()
	logs := filepath.Join(state, "logs")
	for i := range keepLogs + 3 {
		for _, kind := range []string{"failed", "other"} {
			dir := filepath.Join(logs, fmt.Sprintf("200001%02d-000000-%s", i+1, kind))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if kind == "failed" {
				must(t, os.WriteFile(filepath.Join(dir, failedMark), nil, 0o600))
			}
		}
	}
	count := func(kind string) (n int) {
		for _, name := range names(t, logs) {
			if strings.HasSuffix(name, kind) {
				n++
			}
		}
		return n
	}
	d := mustNew(t, state)
	must(t, os.WriteFile(filepath.Join(d.LogDir(), "console.log"), []byte("hello"), 0o600))
	dir := d.KeepLogs()
	if again := d.KeepLogs(); again != dir || d.LogDir() != dir || d.EndLogs() != dir {
		t.Errorf("logs in %s, then %s, %s", dir, again, d.LogDir())
	}
	must(t, d.Remove())
	if b, err := os.ReadFile(filepath.Join(dir, "console.log")); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	if f, o := count("failed"), count("other"); f != keepLogs-1 || o != keepLogs || !exists(t, filepath.Join(dir, failedMark)) {
		t.Errorf("%d of failed runs and one, and %d others: %v", f, o, names(t, logs))
	}

	// One that did not fail takes no failed one's place.
	d = mustNew(t, state)
	must(t, os.WriteFile(filepath.Join(d.LogDir(), "console.log"), []byte("hello"), 0o600))
	dir = d.EndLogs()
	must(t, d.Remove())
	if f, o := count("failed"), count("other"); f != keepLogs-1 || o != keepLogs-1 || exists(t, filepath.Join(dir, failedMark)) {
		t.Errorf("%d of failed runs and one, and %d others and one", f, o)
	}
	// One without logs leaves none.
	d = mustNew(t, state)
	if got := d.EndLogs(); got != "" || exists(t, filepath.Join(logs, d.ID)) {
		t.Errorf("logs of nothing in %q", got)
	}
	must(t, d.Remove())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An ordinary user can't remove what is in a directory without write permission,
// and Windows programs leave such directories (attribute read-only).
func TestRemoveReadOnlyTree(t *testing.T) {
	state := t.TempDir()
	t.Run("as an ordinary user", func(t *testing.T) { // has a thread to spoil
		if os.Geteuid() == 0 {
			asOrdinaryUser(t, state)
		}
		removeReadOnlyTree(t, state)
	})
}

func removeReadOnlyTree(t *testing.T, state string) {
	d := mustNew(t, state)
	beside, err := d.Beside(filepath.Join(state, "out"))
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range []string{d.Path("xchg"), beside} {
		deep := filepath.Join(top, "a", "b")
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(deep, "file"), nil, 0o444); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(deep, 0o555), os.Chmod(filepath.Dir(deep), 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(top); err == nil {
			t.Fatal("this test shows nothing: the tree could be removed as it is")
		}
	}
	if err := d.Remove(); err != nil {
		t.Error(err)
	}
	if exists(t, beside) || exists(t, d.Path(".")) {
		t.Error("the tree is still there")
	}
}

// asOrdinaryUser takes root's power over files from this test's thread, which
// ends with the test: setfsuid(2) drops CAP_DAC_OVERRIDE from the effective set.
func asOrdinaryUser(t *testing.T, dir string) {
	t.Helper()
	const nobody = 65534
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		needs.Missing(t, "chown: %v", err)
	}
	runtime.LockOSThread()
	if err := errors.Join(unix.Setfsgid(nobody), unix.Setfsuid(nobody)); err != nil {
		t.Fatal(err)
	}
}
