package e2e_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

// The command's streams arrive apart, and while it runs.
func TestOutputIsLiveAndApart(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild("--", toolPath, "lines", "3", "1500")
	r.await("out 0\n")
	first := time.Now()
	r.await("out 1\n")
	if strings.Contains(r.stdout.String(), "out 2") {
		t.Errorf("the lines came together")
	}
	r.wait()
	if d := time.Since(first); d < 2*time.Second {
		t.Errorf("the first line came only %v before the end of a command that goes on for 3 s", d)
	}
	r.wants(0)
	r.says("out 0\nout 1\nout 2\n")
	if got := lf(r.stderr.String()); got != "err 0\nerr 1\nerr 2\n" {
		t.Errorf("standard error is %q", got)
	}
}

// Output is not text: 4 MiB arrive byte by byte as they were written.
func TestBinaryOutput(t *testing.T) {
	e := newEnv(t)
	r := e.build("--", toolPath, "flood", "4096")
	r.wants(0)
	if got := []byte(r.stdout.String()); !bytes.Equal(got, pattern(4096)) {
		t.Errorf("standard output: %d bytes that are not the ones written", len(got))
	}
}

// pattern is what tool.exe writes.
func pattern(kib int) []byte {
	b := make([]byte, kib<<10)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	return b
}

// A reader that goes away ends the build, and nothing is left.
func TestOutputReaderGone(t *testing.T) {
	e := newEnv(t)
	read, write, err := os.Pipe()
	must(t, err)
	r := e.startAs(func(c *exec.Cmd) { c.Stdout = write },
		"--quiet", "build", "--store", e.store, "--out", e.path("o"), "--", toolPath, "lines", "40", "200")
	must(t, write.Close())
	buf := make([]byte, 6)
	if _, err := read.Read(buf); err != nil || string(buf) != "out 0\n" {
		t.Fatalf("first line: %q, %v", buf, err)
	}
	must(t, read.Close())
	r.wait()
	if r.status() == 0 || exists(e.path("o")) {
		t.Errorf("status %d, output exists: %v", r.status(), exists(e.path("o")))
	}
	if r.took > 6*time.Second {
		t.Errorf("it took %v", r.took)
	}
}

// $out can be a directory or a file, and is where --out says when the command has
// succeeded.
func TestOutDirectory(t *testing.T) {
	e := newEnv(t)
	r := e.build("--out", e.path("result-1"), "--result", e.path("result"), "--",
		"cmd", "/c", `echo %out%& md %out%\bin %out%\empty& copy S:\tool\tool.exe %out%\bin >nul& echo text>%out%\readme.txt`)
	r.wants(0)
	r.says("S:\\result-1\n")
	if got := readFile(t, e.path("result-1", "bin", "tool.exe")); got != tool(t) {
		t.Errorf("tool.exe came back with %d bytes", len(got))
	}
	if got := readFile(t, e.path("result-1", "readme.txt")); lf(got) != "text\n" {
		t.Errorf("readme.txt is %q", got)
	}
	if st, err := os.Stat(e.path("result-1", "empty")); err != nil || !st.IsDir() {
		t.Errorf("the empty directory: %v", err)
	}
	if got := readResult(t, e.path("result")).Out; got != e.path("result-1") {
		t.Errorf("the result names %q", got)
	}
}

func TestOutFile(t *testing.T) {
	e := newEnv(t)
	e.build("--out", e.path("one.bin"), "--", "cmd", "/c", `S:\tool\tool.exe fill %out% 100`).wants(0)
	if got := readFile(t, e.path("one.bin")); got != string(pattern(100)) {
		t.Errorf("the file has %d bytes that are not the ones written", len(got))
	}
}

// A file that the guest still has open when the command ends is whole, too.
func TestOutIsAtomic(t *testing.T) {
	e := newEnv(t)
	r := e.startBuild("--out", e.path("o"), "--", "cmd", "/c", `md %out%& echo 1 >%out%\a& echo made& S:\tool\tool.exe sleep 1500& echo 2 >%out%\b`)
	r.await("made")
	for running := true; running; {
		select {
		case <-r.done:
			running = false
		default:
			if exists(e.path("o")) && !exists(e.path("o", "b")) {
				t.Fatal("the output was there before it was whole")
			}
		}
	}
	r.wait()
	r.wants(0)
	if !exists(e.path("o", "a")) || !exists(e.path("o", "b")) {
		t.Error("the output is not whole")
	}
}

func TestNoOutOnFailure(t *testing.T) {
	e := newEnv(t)
	r := e.build("--out", e.path("o"), "--", "cmd", "/c", `echo x >%out%& exit 3`)
	r.wants(3)
	if exists(e.path("o")) {
		t.Error("a failed build has an output")
	}
}

func TestSuccessWithoutOutput(t *testing.T) {
	e := newEnv(t)
	e.build("--out", e.path("o"), "--result", e.path("result"), "--", "cmd", "/c", "exit 0").
		wants(125, "left no output", `S:\o`)
	if got := readResult(t, e.path("result")); got.Status != 125 || got.Error == "" {
		t.Errorf("result: %+v", got)
	}
}

func TestKeepFailed(t *testing.T) {
	e := newEnv(t)
	r := e.build("--out", e.path("o"), "--keep-failed", "--keep-for", "0", "--result", e.path("result"), "--", "cmd", "/c", `echo x>X:\note& echo y>%out%& exit 3`)
	r.wants(3, "is kept in")
	kept := readResult(t, e.path("result")).Kept
	for file, want := range map[string]string{"xchg/note": "x\n", "beside-0/o": "y\n"} {
		if got := readFile(t, filepath.Join(kept, file)); lf(got) != want {
			t.Errorf("the kept %s is %q", file, got)
		}
	}
	if exists(e.path("o")) {
		t.Error("a failed build has an output")
	}
}

// --out that can't be is told before anything starts.
func TestOutRefused(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("there"), "precious")
	must(t, os.Symlink("nowhere", e.path("dangling")))
	for out, says := range map[string]string{
		e.path("there"):        "exists already",
		e.path("dangling"):     "exists already",
		e.path("no", "parent"): "there is no directory",
		e.path("con.txt"):      "device",
		e.path("a:b"):          "character",
		e.path("tool"):         "",
	} {
		r := e.build("--out", out, "--", "cmd", "/c", "exit 0")
		if says == "" {
			says = `the store has "tool" already`
		}
		r.wants(125, says)
	}
	if got := readFile(t, e.path("there")); got != "precious" {
		t.Errorf("what was there is now %q", got)
	}
}

// tmpfs mounts a small file system at dir.
func (e *env) tmpfs(size string) string {
	e.t.Helper()
	needs.Root(e.t)
	dir := e.path("disk")
	must(e.t, os.Mkdir(dir, 0o755))
	must(e.t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	e.t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			e.t.Errorf("unmount: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// A full disk fails the build, whether the command cares for its errors or not.
func TestDiskFull(t *testing.T) {
	for _, verb := range []string{"fill", "fill-careless"} {
		t.Run(verb, func(t *testing.T) {
			e := newEnv(t)
			disk := e.tmpfs("4m")
			r := e.build("--out", filepath.Join(disk, "o"), "--", "cmd", "/c", `S:\tool\tool.exe `+verb+` %out% 16384`)
			if verb == "fill-careless" {
				r.wants(125, "no space left")
			} else if r.status() == 0 {
				t.Errorf("the build succeeded")
			}
			if entries, _ := os.ReadDir(disk); len(entries) != 0 {
				t.Errorf("left on the disk: %v", entries)
			}
		})
	}
}

// The same for what goes to xchg: everything written counts.
func TestXchgDiskFull(t *testing.T) {
	e := newEnv(t)
	disk := e.tmpfs("4m")
	e.build("--xchg", disk, "--", "cmd", "/c", `S:\tool\tool.exe fill-careless X:\big 16384`).wants(125, "no space left")
}
