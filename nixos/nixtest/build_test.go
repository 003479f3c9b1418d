package nixtest

import (
	"os"
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
	expr := `let ` + source + `(w.runInWindowsVM { inherit image; preVM = "echo before > note"; postVM = "/bin/ln -s file $out/link"; }
	  (drv "outputs" "md %out% & copy ${w.windowsPath src} %out%\\file & type X:\\note > %out%\\note & echo %src% > %dev%" { outputs = [ "out" "dev" ]; inherit src; }))`
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

func TestFailure(t *testing.T) {
	w := newWorld(t)
	w.build(t, `cmd "failure" "echo some words & exit 7" { }`).fails("some words", "exit code 7")
}

// What the derivation sets arrives: long, with line breaks, in a file.
func TestEnvironment(t *testing.T) {
	w := newWorld(t)
	expr := `let long = builtins.concatStringsSep "\n" (builtins.genList (n: "line ${toString n}") 3000); in
	  cmd "environment" "md %out% & set > %out%\\set & copy %textPath% %out%\\text" { inherit long; text = "a\nb"; passAsFile = [ "text" ]; }`
	out := w.build(t, expr).made()[0]
	set := w.read(t, out+"/set")
	var lines []string
	for n := range 3000 {
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
	out := w.throughDaemon(t, `cmd "daemon" "echo by a build user > %out%" { }`).made()[0]
	if got := w.read(t, out); got != "by a build user \n" {
		t.Errorf("the output is %q", got)
	}
}

func TestBadOutcomes(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, expr string
		says       []string
	}{
		{"builder", `w.runInWindowsVM { inherit image; } (drv "no-builder" "" { builder = "gone.exe"; })`, []string{"command not found in the guest: gone.exe"}},
		{"output", `cmd "no-output" "echo x > %out%" { outputs = [ "out" "doc" ]; }`, []string{"left no output", "$doc"}},
		{"kind", `cmd "kind" "md %out%" { outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "0000000000000000000000000000000000000000000000000000"; }`, []string{"should be a non-executable regular file"}},
		// 100 characters of three bytes: Windows can have that name, Linux can't.
		{"name", `cmd "name" "md %out% & echo x > %out%\\%long% || exit 9" { long = builtins.concatStringsSep "" (builtins.genList (n: "€") 100); }`, []string{"exit code 9"}},
	} {
		t.Run(c.name, func(t *testing.T) { w.build(t, c.expr).fails(c.says...) })
	}
}
