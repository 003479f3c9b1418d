package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"winvm/transport/needs"
)

// TestMain makes the test binary serialdbg, when a script runs that.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"serialdbg": main}) }

// TestScripts runs serialdbg beside a real `hostagent serve`, with serialdbg itself as
// what is at the other end.
func TestScripts(t *testing.T) { scripts(t, "script") }

// TestWireshark runs our dissector in tshark.
func TestWireshark(t *testing.T) {
	needs.Tool(t, "tshark")
	scripts(t, "wireshark")
}

func scripts(t *testing.T, dir string) {
	t.Helper()
	bin := t.TempDir()
	build := exec.Command(needs.Tool(t, "go"), "build", "-o", bin, "winvm/cmd/hostagent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", dir), RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			for _, dir := range []string{"STATE", "CACHE"} {
				env.Setenv("WINVM_"+dir+"_DIR", filepath.Join(env.WorkDir, strings.ToLower(dir)))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"listening": listening, "mute": mute, "otheruser": otherUser, "terminate": terminate, "truncate": truncate, "patch": patch,
			"listening-file": awaitFile, "echoing": echoing,
		},
	})
}

// listening SOCKET waits until somebody listens there.
func listening(ts *testscript.TestScript, _ bool, args []string) {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", ts.MkAbs(args[0])); err == nil {
			_ = conn.Close()
			return
		} else if time.Since(begin) > 20*time.Second {
			ts.Fatalf("%v", err)
		}
	}
}

// listening-file SOCKET waits until the socket is there: who listens takes one connection.
func awaitFile(ts *testscript.TestScript, _ bool, args []string) {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		} else if time.Since(begin) > 20*time.Second {
			ts.Fatalf("%v", err)
		}
	}
}

// echoing SOCKET listens, answers a line with itself in brackets, and hangs up.
func echoing(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		_, _ = io.WriteString(conn, "["+strings.TrimSpace(line)+"]\n")
	}()
}

// mute SOCKET listens, and never says anything.
func mute(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
}

// otheruser COMMAND [ARG]... runs serialdbg as nobody; it must fail.
func otherUser(ts *testscript.TestScript, _ bool, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	dir, err := os.MkdirTemp("", "serialdbg-other") // where nobody may go
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	b, err := os.ReadFile(self)
	ts.Check(err)
	program := filepath.Join(dir, "serialdbg")
	ts.Check(os.WriteFile(program, b, 0o755))
	for p := ts.MkAbs("."); p != "/" && strings.HasPrefix(p, os.TempDir()); p = filepath.Dir(p) {
		if st, err := os.Stat(p); err == nil && p != os.TempDir() {
			ts.Check(os.Chmod(p, st.Mode().Perm()|0o055))
		}
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil {
		ts.Fatalf("it has worked: %s", out)
	}
	ts.Check(os.WriteFile(ts.MkAbs("other.out"), out, 0o644))
}

// terminate WORD ends the background command that has this argument.
func terminate(ts *testscript.TestScript, _ bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args, args[0]) {
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
			return
		}
	}
	ts.Fatalf("no command with the argument %s runs", args[0])
}

// truncate FILE takes its last 7 bytes away.
func truncate(ts *testscript.TestScript, _ bool, args []string) {
	b := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b[:len(b)-7]), 0o644))
}

// patch FILE OLD NEW replaces the first OLD.
func patch(ts *testscript.TestScript, _ bool, args []string) {
	b := strings.Replace(ts.ReadFile(args[0]), args[1], args[2], 1)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b), 0o644))
}

// The other user's case needs a socket that only root has.
func TestOtherUser(t *testing.T) {
	needs.Root(t)
	testscript.Run(t, testscript.Params{
		Files: []string{filepath.Join("testdata", "root", "otheruser.txtar")}, RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"otheruser": otherUser, "mute": mute},
	})
}
