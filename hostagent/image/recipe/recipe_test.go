package recipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

// tiny is a recipe that makes everything at once. Each of its runs appends a line
// to the file RUNS.
const tiny = `set -e
echo "building from $(cat "$(dirname "$0")/data/in")" >&2
echo run >>"$RUNS"
cd "$1"
[ -z "$(ls -A)" ] && [ -d "$TMPDIR" ]
for f in vmlinuz initrd root.squashfs packages.txt; do echo "$f" >"$f"; done
`

// recipes is a set with one recipe, "fake".
func recipes(script string) set {
	return set{fstest.MapFS{
		"fake/build.sh":  {Data: []byte(script)},
		"fake/data/in":   {Data: []byte("input")},
		"fake/README.md": {Data: []byte("text")},
	}}
}

type test struct {
	t     *testing.T
	cache string
	runs  string
}

func newTest(t *testing.T) *test {
	t.Helper()
	needs.Tool(t, "bash")
	dir := t.TempDir()
	c := &test{t: t, cache: filepath.Join(dir, "cache"), runs: filepath.Join(dir, "runs")}
	t.Setenv("RUNS", c.runs)
	return c
}

func (c *test) get(ctx context.Context, s set, rebuild bool, tell func(string)) (Artefact, error) {
	return s.get(ctx, "fake", c.cache, rebuild, tell, slog.New(slog.DiscardHandler))
}

// wantRuns checks how often build.sh ran until now.
func (c *test) wantRuns(n int) {
	c.t.Helper()
	b, err := os.ReadFile(c.runs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Fatal(err)
	}
	if got := bytes.Count(b, []byte("\n")); got != n {
		c.t.Errorf("built %d times, want %d", got, n)
	}
}

// wantKept checks that the cache has artefacts and locks, and nothing else.
func (c *test) wantKept(n int) {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.cache, "recipes"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "."):
			c.t.Errorf("left in the cache: %s", e.Name())
		case !strings.HasSuffix(e.Name(), ".lock"):
			n--
		}
	}
	if n != 0 {
		c.t.Errorf("%d artefacts fewer than wanted: %v", n, entries)
	}
}

func TestGetKeepsWhatWasMade(t *testing.T) {
	c := newTest(t)
	var told []string
	tell := func(line string) { told = append(told, line) }
	a, err := c.get(t.Context(), recipes(tiny), false, tell)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(a.Path(Root)); err != nil || string(b) != "root.squashfs\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if !slices.Equal(told, []string{"building from input"}) {
		t.Errorf("told %q", told)
	}
	again, err := c.get(t.Context(), recipes(tiny), false, tell)
	if err != nil || again != a {
		t.Errorf("got %v, %v; want %v", again, err, a)
	}
	c.wantRuns(1)
	if again, err = c.get(t.Context(), recipes(tiny), true, nil); err != nil || again != a {
		t.Errorf("rebuilt: got %v, %v; want %v", again, err, a)
	}
	c.wantRuns(2)
	c.wantKept(1)
}

func TestGetRebuildsWhatIsNotWhole(t *testing.T) {
	c := newTest(t)
	for _, damage := range []func(string) error{
		os.Remove,
		func(p string) error { return os.Truncate(p, 0) },
	} {
		for _, f := range products {
			a, err := c.get(t.Context(), recipes(tiny), true, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(a.Path(f)); err != nil {
				t.Fatal(err)
			}
			if a, err = c.get(t.Context(), recipes(tiny), false, nil); err != nil || !a.complete() {
				t.Errorf("%s: got %v, %v", f, a, err)
			}
		}
	}
	c.wantRuns(2 * 2 * len(products))
}

func TestDigest(t *testing.T) {
	base, err := recipes(tiny).digest("fake")
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(m fstest.MapFS)) string {
		s := recipes(tiny)
		f(s.files.(fstest.MapFS))
		d, err := s.digest("fake")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, f := range map[string]func(m fstest.MapFS){
		"script":          func(m fstest.MapFS) { m["fake/build.sh"].Data = []byte("exit 1") },
		"other file":      func(m fstest.MapFS) { m["fake/data/in"].Data = []byte("inpus") },
		"new, empty file": func(m fstest.MapFS) { m["fake/new"] = &fstest.MapFile{} },
		"file gone":       func(m fstest.MapFS) { delete(m, "fake/data/in") },
		"file renamed": func(m fstest.MapFS) {
			m["fake/data/im"] = m["fake/data/in"]
			delete(m, "fake/data/in")
		},
		"bytes moved to the next file": func(m fstest.MapFS) {
			m["fake/a"], m["fake/b"] = &fstest.MapFile{Data: []byte("1fake/b 1\n2")}, &fstest.MapFile{}
		},
	} {
		if change(f) == base {
			t.Errorf("%s: the digest is the same", name)
		}
	}
	for name, f := range map[string]func(m fstest.MapFS){
		"README":         func(m fstest.MapFS) { m["fake/README.md"].Data = nil },
		"another recipe": func(m fstest.MapFS) { m["other/build.sh"] = &fstest.MapFile{} },
	} {
		if change(f) != base {
			t.Errorf("%s: the digest is another", name)
		}
	}
}

func TestGetAfterAChange(t *testing.T) {
	c := newTest(t)
	a, err := c.get(t.Context(), recipes(tiny), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.get(t.Context(), recipes(tiny+"# changed\n"), false, nil)
	if err != nil || a.Dir == b.Dir || a.Digest == b.Digest {
		t.Errorf("got %v and %v, %v", a, b, err)
	}
	c.wantRuns(2)
	c.wantKept(2) // the old binary goes on with the old one
}

func TestGetOfNoRecipe(t *testing.T) {
	for _, name := range []string{"windows-95", "", "..", "/etc"} {
		if _, err := Get(t.Context(), name, t.TempDir(), false, nil, slog.New(slog.DiscardHandler)); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestGetFails(t *testing.T) {
	c := newTest(t)
	for name, test := range map[string]struct {
		script string
		says   []string
		not    string
	}{
		"last lines":      {"for i in $(seq 1 50); do echo \"line $i\"; done; echo why >&2; exit 3", []string{"fake", "exit status 3", "line 40\n", "why"}, "line 20\n"},
		"unfinished line": {"printf 'no line break'; exit 1", []string{"no line break"}, ""},
		"killed":          {"kill -9 $$", []string{"killed"}, ""},
		"a file missing":  {tiny + "rm initrd", []string{"did not make all of", "initrd"}, ""},
		"an empty file":   {tiny + ": >vmlinuz", []string{"did not make all of"}, ""},
	} {
		_, err := c.get(t.Context(), recipes(test.script), false, nil)
		if !errors.Is(err, ErrBuild) {
			t.Errorf("%s: got %v, want ErrBuild", name, err)
			continue
		}
		for _, s := range test.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not say %q", name, err, s)
			}
		}
		if test.not != "" && strings.Contains(err.Error(), test.not) {
			t.Errorf("%s: %q says %q", name, err, test.not)
		}
	}
	c.wantKept(0)
}

// A rebuild that fails leaves what there was.
func TestFailedRebuildKeepsTheOld(t *testing.T) {
	c := newTest(t)
	script := `[ -z "$FAIL" ] || exit 1` + "\n" + tiny
	a, err := c.get(t.Context(), recipes(script), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAIL", "1")
	if _, err := c.get(t.Context(), recipes(script), true, nil); !errors.Is(err, ErrBuild) {
		t.Errorf("got %v", err)
	}
	if b, err := c.get(t.Context(), recipes(script), false, nil); err != nil || a != b || !b.complete() {
		t.Errorf("got %v, %v", b, err)
	}
	c.wantKept(1)
}

// Cancelling tells the script, which can clean up, and ends what it started.
func TestCancel(t *testing.T) {
	c := newTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	script := `trap 'echo told >"$RUNS.term"; exit 1' TERM
sh -c 'trap "" TERM; echo $$ >"$RUNS.pid"; read -r x' <>"$RUNS.fifo" >/dev/null 2>&1 &
while [ ! -s "$RUNS.pid" ]; do sleep 0.01; done
echo ready
wait
`
	if err := unix.Mkfifo(c.runs+".fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.get(ctx, recipes(script), false, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrBuild) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	if b, err := os.ReadFile(c.runs + ".term"); string(b) != "told\n" {
		t.Errorf("the script was not sent SIGTERM: %q, %v", b, err)
	}
	var pid int
	b, err := os.ReadFile(c.runs + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	waitGone(t, pid)
	c.wantKept(0)
	if _, err := c.get(ctx, recipes(tiny), false, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("already cancelled: got %v", err)
	}
}

// waitGone waits until no process of that id lives; it is killed already.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 100 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d still lives", pid)
}

func TestTwoAtOnceBuildOnce(t *testing.T) {
	c := newTest(t)
	script := "sleep 0.2\n" + tiny
	var wg sync.WaitGroup
	var mu sync.Mutex // guards waited
	waited := 0
	for range 3 {
		wg.Go(func() {
			_, err := c.get(t.Context(), recipes(script), false, func(line string) {
				if strings.Contains(line, "waiting") {
					mu.Lock()
					waited++
					mu.Unlock()
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c.wantRuns(1)
	c.wantKept(1)
	if waited != 2 {
		t.Errorf("%d were told that they wait, want 2", waited)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	c := newTest(t)
	digest, err := recipes(tiny).digest("fake")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.cache, "recipes", "fake-"+digest+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := c.get(ctx, recipes(tiny), false, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c.wantRuns(0)
}

func TestScratchOfAKilledProcess(t *testing.T) {
	c := newTest(t)
	a, err := c.get(t.Context(), recipes(tiny), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := filepath.Dir(a.Dir)
	mine, others := filepath.Join(all, "."+filepath.Base(a.Dir)+"-123"), filepath.Join(all, ".fake-0000-123")
	for _, d := range []string{mine, others} {
		if err := os.MkdirAll(filepath.Join(d, "out"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.get(t.Context(), recipes(tiny), true, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scratch directory of a killed process is still there: %v", err)
	}
	if _, err := os.Stat(others); err != nil {
		t.Errorf("that of another recipe, which may be at work, is gone: %v", err)
	}
}

func TestCopyTo(t *testing.T) {
	c := newTest(t)
	a, err := c.get(t.Context(), recipes(tiny), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy")
	if err := a.CopyTo(Initrd, to); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(to); err != nil || string(b) != "initrd\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if err := a.CopyTo(Initrd, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another file: %v", err)
	}
	if err := a.CopyTo("nothing", to+"2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}

func TestLineWriter(t *testing.T) {
	var told []string
	w := &lineWriter{tell: func(s string) { told = append(told, s) }}
	for _, p := range []string{"one\ntw", "o\r\n\n  \n", "three", "\n", strings.Repeat("x", 5000), "end"} {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if want := []string{"one", "two", "three", strings.Repeat("x", 5000)}; !slices.Equal(told, want) {
		t.Errorf("told %.100q", told)
	}
	if got := w.last(); !strings.HasSuffix(got, "x\nend") {
		t.Errorf("last %.100q", got)
	}
}

// Every recipe that is embedded says what it needs, and has a build.sh.
func TestEmbedded(t *testing.T) {
	names := Names()
	for _, n := range []string{"controller", "wine"} {
		if !slices.Contains(names, n) {
			t.Errorf("no recipe %s in %v", n, names)
		}
	}
	for _, n := range names {
		tools, err := Tools(n)
		if err != nil {
			t.Error(err)
		}
		if !slices.Contains(tools, Tool{"mksquashfs", "squashfs-tools"}) {
			t.Errorf("%s: mksquashfs is not among %v", n, tools)
		}
		if d, err := Digest(n); err != nil || len(d) != 32 {
			t.Errorf("%s: digest %q, %v", n, d, err)
		}
	}
}

func TestToolsRefuses(t *testing.T) {
	for script, says := range map[string]string{
		"set -e\n":             "does not list its tools",
		"tools='cpio'\n":       "not of the form",
		"tools='=cpio'\n":      "not of the form",
		"echo tools='a=b'\n":   "does not list",
		"tools='a=b\n c'\nx\n": `"c" is not`,
	} {
		if got, err := recipes(script).tools("fake"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, %v; want %q", script, got, err, says)
		}
	}
	if _, err := Tools("windows-95"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	got, err := recipes("#!/bin/sh\ntools='a=b\nc:d-e'\n").tools("fake")
	if err != nil || !slices.Equal(got, []Tool{{"a", "b"}, {"c", "d-e"}}) {
		t.Errorf("got %v, %v", got, err)
	}
}
