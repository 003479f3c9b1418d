package job

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"gcc", "-o", "x.exe", "x.c"}, `gcc -o x.exe x.c`},
		{[]string{`C:\Program Files\a.exe`, "x"}, `"C:\Program Files\a.exe" x`},
		{[]string{"p", ""}, `p ""`},
		{[]string{"p", "a b"}, `p "a b"`},
		{[]string{"p", `a"b`}, `p "a\"b"`},
		{[]string{"p", `a b\`}, `p "a b\\"`},
		{[]string{"p", `a\b\`}, `p a\b\`},
		{[]string{"p", `\\host\share\`}, `p \\host\share\`},
		{[]string{"p", `\"`}, `p "\\\""`},
		{[]string{"p", "a\nb"}, "p \"a\nb\""},
		{[]string{"p", "%PATH%", "^&|<>"}, "p %PATH% ^&|<>"},
		{[]string{"p", "/c", "a b"}, `p /c "a b"`},

		// After cmd's /c or /k comes a line, not arguments.
		{[]string{"cmd", "/c", `echo "a b" > x`}, `cmd /c echo "a b" > x`},
		{[]string{"cmd", "/c", "echo", "a b", `"`}, `cmd /c echo a b "`},
		{[]string{"CMD.EXE", "/d", "/s", "/C", `"x y"`}, `CMD.EXE /d /s /C "x y"`},
		{[]string{`C:\windows\system32\cmd.exe`, "/K", "a  b"}, `C:\windows\system32\cmd.exe /K a  b`},
		{[]string{"C:/windows/cmd", "/c", "a  b"}, `C:/windows/cmd /c a  b`},
		{[]string{`C:\my tools\cmd.exe`, "a b", "/c", "c d"}, `"C:\my tools\cmd.exe" "a b" /c c d`},
		{[]string{"cmd", "a b"}, `cmd "a b"`},
		{[]string{"mycmd", "/c", "a b"}, `mycmd /c "a b"`},
	} {
		got, err := CommandLine(c.args)
		if err != nil || got != c.want {
			t.Errorf("%q: got %s, %v; want %s", c.args, got, err, c.want)
		}
	}
}

func TestCommandLineRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"nothing":        {nil, "no command"},
		"empty name":     {[]string{"", "x"}, "no command"},
		"quoted name":    {[]string{`a"b`}, "quotation mark"},
		"too long":       {[]string{"p", strings.Repeat("x", MaxCommandLine-2)}, "32768 characters"},
		"too long, wide": {[]string{"p", strings.Repeat("\U0001f600", MaxCommandLine/2)}, "put arguments into a file"},
	} {
		if _, err := CommandLine(c.args); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want ErrInvalid that says %q", name, err, c.says)
		}
	}
	// With its NUL byte this is exactly what CreateProcess takes.
	if _, err := CommandLine([]string{"p", strings.Repeat("x", MaxCommandLine-3)}); err != nil {
		t.Error(err)
	}
}

func TestEncodeGolden(t *testing.T) {
	j := Job{
		Dir:  `S:\src dir`,
		Args: []string{"gosh", "-c", `echo "$out" é`},
		Env:  []string{`out=S:\out`, "EMPTY=", "GONE", "A=b=c\nd"},
	}
	got, err := j.Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "job.golden")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(got) != string(want) {
		t.Errorf("got %q, want %q (%v)", got, want, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		job  Job
		says string
	}{
		"no command":           {Job{}, "no command"},
		"NUL in an argument":   {Job{Args: []string{"p", "a\x00b"}}, "NUL"},
		"NUL in the directory": {Job{Args: []string{"p"}, Dir: "a\x00"}, "NUL"},
		"NUL in a variable":    {Job{Args: []string{"p"}, Env: []string{"A=\x00"}}, "NUL"},
		"not UTF-8":            {Job{Args: []string{"p", "\xff"}}, "not UTF-8"},
		"variable, no name":    {Job{Args: []string{"p"}, Env: []string{"=x"}}, "no name"},
		"empty variable":       {Job{Args: []string{"p"}, Env: []string{""}}, "no name"},
		"too much":             {Job{Args: []string{"p"}, Env: []string{"A=" + strings.Repeat("x", MaxJob)}}, "at most 8388608"},
	} {
		if _, err := c.job.Encode(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want ErrInvalid that says %q", name, err, c.says)
		}
	}
}
