package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The guest sees exactly the inputs, and can't change them.
func TestStoreIsTheInputs(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("store", "a-1", "x"), "inside a\n")
	writeFile(t, e.path("store", "b-1", "y"), "inside b\n")
	writeFile(t, e.path("store", "hidden", "secret"), "not for you\n")
	r := e.build("--input", e.path("store", "a-1"), "--input", "b-1", "--", "cmd", "/c",
		`dir /b S:\& type S:\a-1\x& type S:\B-1\Y& (if exist S:\hidden (echo visible) else echo absent)`+
			`& type S:\hidden\secret& (echo new>S:\a-1\x) & (echo new>S:\a-1\new) & (echo new>S:\new) & (del S:\a-1\x) & (md S:\a-1\d) & (ren S:\a-1 a-2) & exit 0`)
	r.wants(0)
	r.says("a-1\nb-1\ninside a\ninside b\nabsent\n")
	if got := readFile(t, e.path("store", "a-1", "x")); got != "inside a\n" {
		t.Errorf("the guest changed an input to %q", got)
	}
	if entries, _ := os.ReadDir(e.path("store", "a-1")); len(entries) != 1 || exists(e.path("store", "new")) {
		t.Errorf("the guest made files in the store: %v", entries)
	}
}

// With no --input the whole store is there, and the next build with another
// store sees nothing of the last one's through the same image.
func TestWholeStore(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("store", "b-1", "y"), "")
	r := e.build("--", "cmd", "/c", `dir /b S:\`)
	r.wants(0)
	r.says("b-1\ntool\n")
}

// Bad inputs are told before a VM starts.
func TestBadInputs(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("outside", "x"), "")
	writeFile(t, e.path("store", "a-1", "x"), "")
	must(t, unix.Mkfifo(e.path("store", "fifo"), 0o644))
	must(t, os.Symlink("nowhere", e.path("dangling")))
	must(t, os.Symlink(e.path("outside"), e.path("leads-out")))
	for _, c := range []struct {
		name, says string
		args       []string
	}{
		{"outside", "is not in the store directory", []string{"--input", e.path("outside")}},
		{"outside by ..", "is not in the store directory", []string{"--input", e.path("store", "a-1", "..", "..", "outside")}},
		{"the store itself", "is not in the store directory", []string{"--input", e.path("store")}},
		{"a link that leads nowhere", "does not exist", []string{"--input", e.path("dangling")}},
		{"a link that leads outside", "is not in the store directory", []string{"--input", e.path("leads-out")}},
		{"missing", "does not exist", []string{"--input", e.path("store", "no-1")}},
		{"missing below", "does not exist", []string{"--input", e.path("store", "a-1", "nosuch")}},
		{"empty", "does not exist", []string{"--input", ""}},
		{"a FIFO", "neither a directory nor a regular file", []string{"--input", "fifo"}},
		{"no store", "does not exist", []string{"--store", e.path("nostore")}},
		{"the store is a file", "not a directory", []string{"--store", e.path("outside", "x")}},
		{"no xchg", "no such file", []string{"--xchg", e.path("noxchg")}},
		{"xchg is a file", "not a directory", []string{"--xchg", e.path("outside", "x")}},
		{"no env file", "no such file", []string{"--env-file", e.path("noenv")}},
		{"an env entry without a name", "no name", []string{"--env", "=x"}},
		{"negative timeout", "must not be negative", []string{"--timeout", "-1s"}},
		{"no image", "no such image", []string{"--image", "nosuch"}},
		{"no image's name", "not an image name", []string{"--image", "../wine"}},
		{"unknown flag", "nosuchflag", []string{"--nosuchflag"}},
	} {
		r := e.build(append(c.args, "--", "cmd", "/c", "exit 0")...)
		if want := 125; r.status() != want && (c.name != "an env entry without a name" || r.status() != 126) {
			t.Errorf("%s: exit status %d, want %d", c.name, r.status(), want)
		}
		if !strings.Contains(r.stderr.String(), c.says) || strings.Count(r.stderr.String(), "\n") > 3 {
			t.Errorf("%s: standard error lacks %q, or is long: %s", c.name, c.says, r.stderr)
		}
		// What is in the store is looked at while the VMs start.
		if consoles, _ := filepath.Glob(e.path("state", "logs", "*", "*.console")); len(consoles) != 0 && c.name != "a FIFO" {
			t.Errorf("%s: a VM was started: %q", c.name, consoles)
		}
		must(t, os.RemoveAll(e.path("state", "logs")))
	}
}

// What Windows can't have as it is, is a warning, and the build goes on.
func TestWarnings(t *testing.T) {
	e := newEnv(t)
	a := e.path("store", "a-1")
	writeFile(t, a+"/sub/good", "good\n")
	writeFile(t, a+"/sub/what?", "")
	writeFile(t, a+"/sub/aux.c", "")
	writeFile(t, a+"/sub/dot.", "")
	writeFile(t, a+"/sub/Twin", "upper\n")
	writeFile(t, a+"/sub/twin", "lower\n")
	must(t, os.Symlink("nowhere", a+"/sub/dangling"))
	must(t, unix.Mkfifo(a+"/sub/fifo", 0o644))
	r := e.build("--input", a, "--", "cmd", "/c", `type S:\a-1\sub\good& (if exist S:\a-1\sub\fifo echo fifo)& type S:\a-1\sub\dangling & exit 0`)
	r.wants(0,
		`warning: "a-1/sub/what?" has a character`, `warning: "a-1/sub/aux.c" is the name of a device`,
		`warning: "a-1/sub/dot." ends in a dot`, `differs from "a-1/sub/Twin" only in case`,
		`warning: "a-1/sub/fifo" is a FIFO`)
	r.says("good\n")
	if n := strings.Count(r.stderr.String(), "warning:"); n != 5 {
		t.Errorf("%d warnings instead of 5:\n%s", n, r.stderr)
	}
}

// A file of the store that changes under a build fails to be read: never wrong bytes.
func TestStoreFileChanges(t *testing.T) {
	e := newEnv(t)
	file := e.path("store", "a-1", "x")
	writeFile(t, file, "old bytes\n")
	r := e.startBuild("--", "cmd", "/c", `echo ready& S:\tool\tool.exe await X:\never 1500& type S:\a-1\x`)
	r.await("ready")
	writeFile(t, file, "new bytes, and more of them\n")
	r.wait()
	if out := lf(r.stdout.String()); out != "ready\n" && out != "ready\nold bytes\n" {
		t.Errorf("the guest read %q", out)
	}
	if !strings.Contains(r.stderr.String(), "leave the store alone") {
		t.Errorf("nobody was told: %s", r.stderr)
	}
}
