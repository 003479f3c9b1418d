package e2e_test

import (
	"encoding/hex"
	"strings"
	"testing"
)

// decodeEnv turns the lines of `tool env` back into values.
func decodeEnv(t *testing.T, stdout string) (out []string) {
	t.Helper()
	for line := range strings.Lines(lf(stdout)) {
		line = strings.TrimSuffix(line, "\n")
		digits, ok := strings.CutPrefix(line, "hex:")
		if !ok {
			out = append(out, line)
			continue
		}
		b, err := hex.DecodeString(digits)
		must(t, err)
		out = append(out, "="+string(b))
	}
	return out
}

func wantValues(t *testing.T, r *run, want []string) {
	t.Helper()
	got := decodeEnv(t, r.stdout.String())
	if len(got) != len(want) {
		t.Fatalf("%d values instead of %d: %.500q", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("value %d is %.200q, want %.200q", i, got[i], want[i])
		}
	}
}

// No value is changed by any shell on the way, and none is too long.
func TestEnv(t *testing.T) {
	e := newEnv(t)
	long := strings.Repeat("0123456789abcdef", 20<<10/16)
	values := []string{
		"with some spaces", `100% %PATH% ^& | <>`, `"quoted" 'and' \"escaped\" trailing\`, "ünïcode €uro 日本 \U0001F600",
		"one,two,,three", "two\nlines\r\nand\ttabs", long, "a=b=c", " leading and trailing ",
	}
	args := []string{"--env", "OS", "--env", "EMPTY="}
	verb := []string{toolPath, "env", "OS", "EMPTY"}
	want := []string{"unset", "="}
	for i, v := range values {
		name := "V_" + string(rune('A'+i))
		args = append(args, "--env", name+"="+v)
		verb = append(verb, name)
		want = append(want, "="+v)
	}
	r := e.build(append(append(args, "--"), verb...)...)
	r.wants(0)
	wantValues(t, r, want)
}

// Arguments arrive as they were given.
func TestArguments(t *testing.T) {
	e := newEnv(t)
	args := []string{"plain", "", "with space", `back\slash\`, `"quoted"`, `\\"`, "100%PATH%", "^caret&|<>", "ünï 日本\U0001F600", "line\nbreak", "*"}
	r := e.build(append([]string{"--", toolPath, "args"}, args...)...)
	r.wants(0)
	var got []string
	for line := range strings.Lines(r.stdout.String()) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		must(t, err)
		got = append(got, string(b))
	}
	if strings.Join(got, "\x00") != strings.Join(args, "\x00") {
		t.Errorf("the arguments %q arrived as %q", args, got)
	}
}

// A file of lines, --env after it wins; and one as /proc/PID/environ.
func TestEnvFile(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("lines"), "# a comment\nONE=first\n\nTWO=a b=c\nTHREE=from the file\n")
	r := e.build("--env-file", e.path("lines"), "--env", "THREE=from the flag", "--", toolPath, "env", "ONE", "TWO", "THREE")
	r.wants(0)
	wantValues(t, r, []string{"=first", "=a b=c", "=from the flag"})

	writeFile(t, e.path("nul"), "ONE=first\nsecond\x00# TWO=x\x00")
	r = e.build("--env-file", e.path("nul"), "--", toolPath, "env", "ONE", "# TWO")
	r.wants(0)
	wantValues(t, r, []string{"=first\nsecond", "=x"})

	writeFile(t, e.path("bad"), "ONE=1\nnot an entry\n")
	e.build("--env-file", e.path("bad"), "--", "cmd", "/c", "exit 0").wants(125, "line 2")
}

// --cwd and what the command finds by itself.
func TestCwd(t *testing.T) {
	e := newEnv(t)
	writeFile(t, e.path("x", "some dir", "here.bat"), "@echo %cd% %~1\r\n@exit /b 4\r\n")
	r := e.build("--xchg", e.path("x"), "--cwd", `X:\some dir`, "--", "here.bat", "an argument")
	r.wants(4)
	r.says("X:\\some dir an argument\n")
}
