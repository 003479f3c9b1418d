package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tree makes n files in directories of 25, of sizes around those of source files,
// and returns them by path.
func tree(t *testing.T, dir string, n int) map[string]string {
	t.Helper()
	r := rand.New(rand.NewSource(1))
	files := map[string]string{}
	for i := range n {
		b := make([]byte, r.Intn(1<<uint(4+i%11)))
		_, _ = r.Read(b)
		p := fmt.Sprintf("dir %d/sub/file-%d.txt", i/25, i)
		files[p] = string(b)
		writeFile(t, filepath.Join(dir, p), files[p])
	}
	return files
}

func compareTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	n := 0
	must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		want, ok := files[rel]
		if got := readFile(t, p); !ok || got != want {
			t.Errorf("%s: %d bytes, want %d (known: %v)", rel, len(got), len(want), ok)
		}
		n++
		return nil
	}))
	if n != len(files) {
		t.Errorf("%d files came back of %d", n, len(files))
	}
}

// A tree goes to the guest's own disk and back, by a Windows program. It takes about
// 0.2 s a file under emulation, so there are few; $WINVM_TEST_FILES is how many.
func TestCopyTree(t *testing.T) {
	e := newEnv(t)
	n := 100
	if s := os.Getenv("WINVM_TEST_FILES"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		must(t, err)
	}
	e.patience = patience + time.Duration(n)*time.Second
	files := tree(t, e.path("x", "from"), n)
	e.build("--xchg", e.path("x"), "--", "cmd", "/c",
		`xcopy X:\from C:\tree\ /s /e /q /y >nul && xcopy C:\tree X:\to\ /s /e /q /y >nul`).wants(0)
	compareTree(t, e.path("x", "to"), files)
}

// A large file, on all ways: from the store, from and to xchg, to the output.
func TestCopyLargeFile(t *testing.T) {
	const size = 64 << 20
	e := newEnv(t)
	content := make([]byte, size)
	_, _ = rand.New(rand.NewSource(2)).Read(content)
	writeFile(t, e.path("store", "big-1", "file"), string(content))
	writeFile(t, e.path("x", "from"), string(content))
	e.build("--xchg", e.path("x"), "--out", e.path("o"), "--result", e.path("r"), "--", "cmd", "/c",
		`copy /b X:\from X:\to >nul && copy /b S:\big-1\file %out% >nul`).wants(0)
	// 64 MiB four times, in requests of 1 MiB at most.
	if n := readResult(t, e.path("r")).Lane; n < 4*size>>20 {
		t.Errorf("%d requests went through shared memory", n)
	}
	for _, p := range []string{e.path("x", "to"), e.path("o")} {
		if got, err := os.ReadFile(p); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes that are not the ones copied, %v", p, len(got), err)
		}
	}
}

// Without shared memory a build is as right.
func TestNoLane(t *testing.T) {
	e := newEnv(t)
	content := make([]byte, 3<<20+17)
	_, _ = rand.New(rand.NewSource(3)).Read(content)
	writeFile(t, e.path("x", "from"), string(content))
	e.build("--no-lane", "--xchg", e.path("x"), "--result", e.path("r"), "--", "cmd", "/c", `copy /b X:\from X:\to >nul`).wants(0)
	if got := readFile(t, e.path("x", "to")); got != string(content) {
		t.Errorf("%d bytes that are not the ones copied", len(got))
	}
	if n := readResult(t, e.path("r")).Lane; n != 0 {
		t.Errorf("%d requests went through shared memory", n)
	}
}

// Names of every kind that Windows can have survive both ways.
func TestNames(t *testing.T) {
	names := []string{
		"with some spaces.txt", "ünïcode-日本語-€.txt", "emoji-\U0001F600.txt", "UPPER.lower", "a&b^c%d!(e).txt", "semi;comma,=.txt",
		".hidden", "two..dots.x", "tilde~1.txt", strings.Repeat("long-", 40) + ".txt",
	}
	e := newEnv(t)
	want := map[string]string{}
	for _, n := range names {
		want["sub dir/"+n] = "content of " + n
		writeFile(t, e.path("x", "from", "sub dir", n), "content of "+n)
		writeFile(t, e.path("store", "names-1", "sub dir", n), "content of "+n)
	}
	e.build("--xchg", e.path("x"), "--", "cmd", "/c",
		`xcopy X:\from C:\names\ /s /e /q /y >nul && xcopy C:\names X:\to\ /s /e /q /y >nul && xcopy S:\names-1 X:\store\ /s /e /q /y >nul`).wants(0)
	compareTree(t, e.path("x", "to"), want)
	compareTree(t, e.path("x", "store"), want)
}

// What the host puts into xchg while the command runs is seen soon, and the other
// way round: a file that a program has closed is on the host before the command ends.
func TestXchgIsLive(t *testing.T) {
	e := newEnv(t)
	must(t, os.Mkdir(e.path("x"), 0o755))
	r := e.startBuild("--xchg", e.path("x"), "--", "cmd", "/c",
		`dir X:\ >nul& echo from the guest>X:\made& echo waiting& S:\tool\tool.exe await X:\signal 20000& S:\tool\tool.exe await X:\go 20000`)
	r.await("waiting")
	within(t, 2*time.Second, "the guest's file is on the host", func() bool {
		b, err := os.ReadFile(e.path("x", "made"))
		return err == nil && lf(string(b)) == "from the guest\n"
	})
	time.Sleep(time.Second) // the guest has asked for the file by now, and remembers that it wasn't there
	writeFile(t, e.path("x", "new"), "from the host\n")
	must(t, os.Rename(e.path("x", "new"), e.path("x", "signal")))
	written := time.Now()
	r.await("from the host")
	if d := time.Since(written); d > 2*time.Second {
		t.Errorf("the guest saw the file only after %v", d)
	}
	writeFile(t, e.path("x", "go"), "go\n")
	r.wait()
	r.wants(0)
}

// Changing and removing work through the share as on any drive.
func TestXchgChanges(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("x", "doomed"), "x")
	writeFile(t, e.path("x", "a", "old name"), "content\n")
	writeFile(t, e.path("x", "log"), "one\n")
	must(t, os.Chmod(e.path("x", "log"), 0o600))
	r := e.build("--xchg", e.path("x"), "--", "cmd", "/c",
		`del X:\doomed& ren "X:\a\old name" "new name"& move X:\a X:\b >nul& echo two>>X:\log& md X:\d1\d2& rd X:\d1\d2& type X:\LOG& dir /b X:\`)
	r.wants(0)
	if got := lf(readFile(t, e.path("x", "b", "new name"))); got != "content\n" {
		t.Errorf("the renamed file has %q", got)
	}
	if got := lf(readFile(t, e.path("x", "log"))); got != "one\ntwo\n" {
		t.Errorf("the log has %q", got)
	}
	if exists(e.path("x", "doomed")) || exists(e.path("x", "a")) || exists(e.path("x", "d1", "d2")) || !exists(e.path("x", "d1")) {
		t.Error("removing, moving or making directories did not arrive")
	}
	if out := lf(r.stdout.String()); !strings.HasPrefix(out, "one\ntwo\n") || strings.Contains(out, "doomed") {
		t.Errorf("the guest sees %q", out)
	}
}
