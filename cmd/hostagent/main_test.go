package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

// TestMain makes the test binary hostagent, when a script runs that.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hostagent": main})
}

// TestScripts is what the command line does where no VM is needed.
func TestScripts(t *testing.T) {
	needs.Tool(t, "bash")
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), Setup: setup, Cmds: commands, RequireExplicitExec: true, RequireUniqueNames: true,
	})
}

// TestMount is `hostagent serve` with `controlleragent mount`, two processes on
// one machine, which run the code that runs in a build.
func TestMount(t *testing.T) {
	needs.FUSE(t)
	needs.Root(t)
	bin := t.TempDir()
	build := exec.Command(needs.Tool(t, "go"), "build", "-o", bin, "winvm/cmd/controlleragent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "mount"), Cmds: commands, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Defer(func() {
				for _, dir := range mountsBelow(env.WorkDir) {
					_ = unix.Unmount(dir, unix.MNT_DETACH)
				}
			})
			return setup(env)
		},
	})
}

// setup gives a script directories of its own, a QEMU that has a version and
// nothing else, and helper programs that are files only.
func setup(env *testscript.Env) error {
	for name, dir := range map[string]string{"HOME": "home", "WINVM_STATE_DIR": "state", "WINVM_CACHE_DIR": "cache", "WINVM_LIBEXEC_DIR": "libexec"} {
		env.Setenv(name, filepath.Join(env.WorkDir, dir))
	}
	qemu := filepath.Join(env.WorkDir, "fake-qemu")
	env.Setenv("WINVM_QEMU", qemu)
	if err := os.WriteFile(qemu, []byte("#!/bin/sh\necho 'QEMU emulator version 7.2.22 (fake)'\n"), 0o755); err != nil {
		return err
	}
	libexec := env.Getenv("WINVM_LIBEXEC_DIR")
	if err := os.MkdirAll(libexec, 0o755); err != nil {
		return err
	}
	for _, f := range []string{"controlleragent", "winvm-run.exe"} {
		if err := os.WriteFile(filepath.Join(libexec, f), []byte("x"), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// waitLimit is how long scripts wait for what another process does.
const waitLimit = 20 * time.Second

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"status":     status,
	"eventually": eventually,
	"mounted":    mounted,
	"listening":  listening,
	"fill":       fill,
	"json":       checkJSON,
	"terminate":  terminate,
}

// status N COMMAND [ARG]... runs a command, whose exit status must be N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// [!] eventually COMMAND [ARG]... runs a command until it succeeds (fails).
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] eventually COMMAND [ARG]...")
	}
	waitUntil(ts, strings.Join(args, " "), func() bool { return (ts.Exec(args[0], args[1:]...) == nil) != neg })
}

// [!] mounted DIR waits until something (nothing) is mounted there.
func mounted(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] mounted DIR")
	}
	dir := ts.MkAbs(args[0])
	waitUntil(ts, "mount on "+dir, func() bool {
		for _, m := range mountsBelow(dir) {
			if m == dir {
				return !neg
			}
		}
		return neg
	})
}

// listening SOCKET waits until somebody listens there.
func listening(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listening SOCKET")
	}
	waitUntil(ts, "listener on "+args[0], func() bool {
		conn, err := net.Dial("unix", ts.MkAbs(args[0]))
		return err == nil && conn.Close() == nil
	})
}

func waitUntil(ts *testscript.TestScript, what string, true func() bool) {
	for begin := time.Now(); !true(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > waitLimit {
			ts.Fatalf("%s: waited %v in vain", what, waitLimit)
		}
	}
}

// mountsBelow lists the mount points that are dir or below it, the last mounted
// first.
func mountsBelow(dir string) []string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			out = append([]string{f[4]}, out...)
		}
	}
	return out
}

// fill FILE BYTES makes a file whose bytes are all different at each place.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill FILE BYTES")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// json FILE KEY... checks that each line of a file, or all of it, is JSON, and
// that it has these keys somewhere.
func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: json FILE KEY...")
	}
	text := ts.ReadFile(args[0])
	if !json.Valid([]byte(text)) {
		for line := range strings.Lines(text) {
			if !json.Valid([]byte(line)) {
				ts.Fatalf("not JSON: %s", line)
			}
		}
	}
	for _, key := range args[1:] {
		if !strings.Contains(text, strconv.Quote(key)+":") {
			ts.Fatalf("no key %s in %s", key, text)
		}
	}
}

// terminate WORD sends SIGTERM to the background command that has this argument:
// the kill command knows no SIGTERM.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: terminate WORD")
	}
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args, args[0]) {
			ts.Check(cmd.Process.Signal(unix.SIGTERM))
			return
		}
	}
	ts.Fatalf("no command with the argument %s runs", args[0])
}
