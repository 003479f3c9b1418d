package nixtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const source = `src = builtins.toFile "source.txt" "from the store\n"; in `

// Several outputs, a reference to an input, an executable, a symbolic link that postVM
// makes, what Nix makes of modes and times; and the same again.
func TestOutputs(t *testing.T) {
	w := newWorld(t)
	expr := `let ` + source + `w.runInWindowsVM { inherit image; preVM = "echo before > note"; postVM = "ln -s file $out/link"; }
	  (drv "outputs" "md %out% & copy ${w.windowsPath src} %out%\\file & type X:\\note > %out%\\note & echo %src% > %dev%" { outputs = [ "out" "dev" ]; inherit src; })`
	out := w.build(t, expr+".all").made()
	if len(out) != 2 {
		t.Fatalf("made %q", out)
	}
	if got := w.read(t, out[0]+"/file"); got != "from the store\n" {
		t.Errorf("the copy is %q", got)
	}
	if got := w.read(t, out[0]+"/note"); got != "before\n" {
		t.Errorf("preVM's file is %q", got)
	}
	if to, err := os.Readlink(w.real(out[0] + "/link")); err != nil || to != "file" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	st, err := os.Stat(w.real(out[0] + "/file"))
	must(t, err)
	if st.Mode() != 0o555 || st.ModTime().Unix() != 1 {
		t.Errorf("mode %v, time %v", st.Mode(), st.ModTime())
	}
	refs, err := w.command(nil, "nix-store", "--query", "--references", out[1]).Output()
	must(t, err)
	if got := string(refs); !strings.HasSuffix(got, "-source.txt\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("references are %q", got)
	}
	w.build(t, expr+".all", "--check").made()
}

// Without this the other tests would show nothing: what is built sees no more than it is
// given, and can't do without the sandbox.
func TestSandbox(t *testing.T) {
	w := newWorld(t)
	out := w.build(t, `derivation { name = "sandbox"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "/bin/ls / /nix/store /root > $out; /usr/bin/id -u >> $out" ]; }`).made()[0]
	got := w.read(t, out)
	if strings.Contains(got, "root") || strings.Contains(got, "-hostagent") || !strings.Contains(got, "winvm-image") || !strings.HasSuffix(got, "\n1000\n") {
		t.Errorf("in the sandbox there are %q", got)
	}
}

func TestFailure(t *testing.T) {
	w := newWorld(t)
	w.build(t, `cmd "failure" "echo some words & exit 7" { }`).fails("some words", "exit code 7")
}

// What the derivation sets arrives: long, with line breaks, in a file.
func TestEnvironment(t *testing.T) {
	w := newWorld(t)
	expr := `let long = builtins.concatStringsSep "\n" (builtins.genList (n: "line ${toString n}") 8000); in
	  cmd "environment" "md %out% & set > %out%\\set & copy %textPath% %out%\\text" { inherit long; text = "a\nb"; passAsFile = [ "text" ]; }`
	out := w.build(t, expr).made()[0]
	set := w.read(t, out+"/set")
	var lines []string
	for n := range 8000 {
		lines = append(lines, "line "+strconv.Itoa(n))
	}
	if !strings.Contains(set, "long="+strings.Join(lines, "\n")+"\n") {
		t.Error("the long variable is not whole")
	}
	for _, bad := range []string{"\nHOME=/", "\nwinvm", "homeless", "path-not-set", "NIX_LOG_FD", "winvm-closure", "\nTMPDIR="} {
		if strings.Contains(set, bad) {
			t.Errorf("the guest has %q", bad)
		}
	}
	for _, want := range []string{"passAsFile=text\n", "NIX_BUILD_CORES=1\n", "builder=cmd.exe\n", `NIX_BUILD_TOP=X:\` + "\n"} {
		if !strings.Contains(set, want) {
			t.Errorf("the guest lacks %q", want)
		}
	}
	if got := w.read(t, out+"/text"); got != "a\nb" {
		t.Errorf("the file of passAsFile is %q", got)
	}
}

func TestStructuredAttrs(t *testing.T) {
	w := newWorld(t)
	out := w.build(t, `let `+source+`(cmd "structured" "md %out% & md %bin% & copy X:\\.attrs.json %bin%\\a & type ${w.windowsPath src} > %out%\\file"
	  { __structuredAttrs = true; outputs = [ "out" "bin" ]; deep = { list = [ 1 2 ]; }; }).all`).made()
	if got := w.read(t, out[0]+"/file"); got != "from the store\n" {
		t.Errorf("the file is %q", got)
	}
	if got := w.read(t, out[1]+"/a"); !strings.Contains(got, `"deep":{"list":[1,2]}`) {
		t.Errorf("the attributes are %q", got)
	}
}

// What the sandbox shows the host agent is not what the guest sees.
func TestUndeclared(t *testing.T) {
	w := newWorld(t)
	out := w.build(t, `let `+source+`cmd "undeclared" "dir /b S:\\ > %out%" { inherit src; }`).made()[0]
	for line := range strings.Lines(w.read(t, out)) {
		if !strings.Contains(line, "-source.txt") && !strings.Contains(line, "-undeclared") {
			t.Errorf("the guest sees %q", line)
		}
	}
	w.build(t, `cmd "undeclared-path" "type S:\\${baseNameOf (builtins.unsafeDiscardStringContext w.windowsPath (builtins.storePath "`+w.qemu+`"))}\\bin\\qemu-system-x86_64 > %out%" { }`).fails()
}

func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t)
	out := w.build(t, `map (n: cmd "at-once-${n}" "echo ${n} > %out%" { }) [ "a" "b" ]`, "-j2").made()
	if len(out) != 2 || w.read(t, out[0]) != "a \n" || w.read(t, out[1]) != "b \n" {
		t.Errorf("made %q", out)
	}
}

func TestTimeout(t *testing.T) {
	w := newWorld(t)
	w.build(t, `cmd "timeout" `+forever+` { }`, "--timeout", "6").fails("timed out after 6 seconds")
	w.build(t, `cmd "silent" `+forever+` { }`, "--max-silent-time", "6").fails("timed out after 6 seconds of silence")
}

// forever is a command that says "now" and doesn't end.
const forever = `"echo now & for /l %i in (1,0,2) do @rem"`

// Who kills nix-build leaves no VM.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	r := w.start(t, `cmd "killed" `+forever+` { }`)
	for range 600 {
		if len(w.vms()) >= 3 { // host agent, two QEMUs
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	if len(w.vms()) < 3 {
		t.Fatalf("no VM in 30 s: %s", r.stderr.String())
	}
	must(t, r.cmd.Process.Signal(syscall.SIGKILL))
	<-r.done
	w.checkClean(t)
}

// The daemon builds as a build user, for a user who may nothing.
func TestDaemon(t *testing.T) {
	w := newWorld(t)
	socket := filepath.Join(w.dir, "daemon", "socket")
	group, passwd := filepath.Join(w.dir, "group"), filepath.Join(w.dir, "passwd")
	old, err := os.ReadFile("/etc/group")
	must(t, err)
	oldPasswd, err := os.ReadFile("/etc/passwd")
	must(t, err)
	must(t, writeAll(map[string]string{
		group:                               string(old) + "winvmbuild:x:39999:winvmbuild1\n",
		passwd:                              string(oldPasswd) + "winvmbuild1:x:39999:39999::/:/bin/false\n",
		filepath.Join(w.dir, "daemon", "x"): "",
	}))
	daemon := w.command([]string{group + ":/etc/group", passwd + ":/etc/passwd"}, "nix-daemon", "--option", "build-users-group", "winvmbuild")
	daemon.Env = append(daemon.Env, "NIX_DAEMON_SOCKET_PATH="+socket)
	var log strings.Builder
	daemon.Stderr = &log
	must(t, daemon.Start())
	defer func() { _ = daemon.Process.Kill(); _ = daemon.Wait() }()
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	home, err := os.MkdirTemp(w.dir, "home")
	must(t, err)
	must(t, os.Chown(home, 65534, 65534))
	r := w.startAs(t, func(c *exec.Cmd) {
		c.Env = append(os.Environ(), "NIX_CONF_DIR="+filepath.Join(w.dir, "conf"), "NIX_REMOTE=daemon", "NIX_DAEMON_SOCKET_PATH="+socket, "HOME="+home)
		c.Path, c.Args, c.Err = mustLook(t, "nix-build"), []string{"nix-build", "--no-out-link", "-E", w.prelude() + `cmd "daemon" "echo by a build user > %out%" { }`}, nil
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		c.Dir = home
	})
	r.wait()
	if r.err != nil {
		t.Fatalf("nix-build: %v\n%s\ndaemon: %s", r.err, r.stderr.String(), log.String())
	}
	if got := w.read(t, r.made()[0]); got != "by a build user \n" {
		t.Errorf("the output is %q", got)
	}
	w.checkClean(t)
}

func mustLook(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	must(t, err)
	return p
}
