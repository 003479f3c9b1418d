package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"winvm/hostagent"
	"winvm/hostagent/build"
	"winvm/hostagent/control"
)

func TestReadEnvFile(t *testing.T) {
	long := "LONG=" + strings.Repeat("x", 200_000) // longer than bufio.Scanner's own limit
	path := filepath.Join(t.TempDir(), "env")
	for text, want := range map[string][]string{
		"":                            nil,
		"A=1\nB=2\n":                  {"A=1", "B=2"},
		"A=1\r\nB=2":                  {"A=1", "B=2"},
		"# no\n\n  \nA=b = c#d\n":     {"A=b = c#d"},
		"EMPTY=\n":                    {"EMPTY="},
		long + "\nA=1":                {long, "A=1"},
		"A=1\x00B=two\nlines\x00":     {"A=1", "B=two\nlines"},
		"A=1\x00B=2":                  {"A=1", "B=2"},
		"# is a name here=1\x00B=2\n": {"# is a name here=1", "B=2\n"},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readEnvFile(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("%.60q: got %.60q, %v; want %.60q", text, got, err, want)
		}
	}
}

func TestBuildStatus(t *testing.T) {
	code := func(n uint32) *uint32 { return &n }
	for name, c := range map[string]struct {
		result build.Result
		err    error
		status int    // 0 = no error at all
		says   string // "" = nothing
	}{
		"success":          {build.Result{ExitCode: code(0)}, nil, 0, ""},
		"failure":          {build.Result{ExitCode: code(7), Status: 7}, nil, 7, ""},
		"largest":          {build.Result{ExitCode: code(255), Status: 255}, nil, 255, ""},
		"too large":        {build.Result{ExitCode: code(300), Status: 1}, nil, 1, "exited with 300 (0x0000012c), which becomes 1"},
		"access violation": {build.Result{ExitCode: code(0xc0000005), Status: 1}, nil, 1, "3221225477 (0xc0000005)"},
		"timed out":        {build.Result{}, &build.Error{Status: build.StatusTimeout, Err: errors.New("too long")}, 124, "too long"},
		"our own fault":    {build.Result{}, errors.New("no disk"), 125, "no disk"},
		"interrupted":      {build.Result{}, &build.Error{Status: build.StatusSignal, Err: build.ErrInterrupted}, 130, "interrupted"},
	} {
		var stderr bytes.Buffer
		ctx := cli.NewContext(newApp(nil, &stderr, &stderr), nil, nil)
		err := buildStatus(ctx, c.result, c.err)
		if c.status == 0 {
			if err != nil {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		var s *statusError
		if !errors.As(err, &s) || s.status != c.status || (s.err == nil) != (c.says == "") || s.err != nil && !strings.Contains(s.err.Error(), c.says) {
			t.Errorf("%s: got %#v, want status %d that says %q", name, err, c.status, c.says)
		}
	}
	var stderr bytes.Buffer
	_ = buildStatus(cli.NewContext(newApp(nil, &stderr, &stderr), nil, nil), build.Result{Kept: "/kept/x"}, nil)
	if !strings.Contains(stderr.String(), "kept in /kept/x") {
		t.Errorf("said %q", &stderr)
	}
}

// Interrupted before there is anything to do, it says so and ends with 130.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	got := run(ctx, []string{"hostagent", "--state-dir", dir, "--cache-dir", dir, "--libexec-dir", dir, "doctor"}, nil, &stdout, &stderr)
	if got != build.StatusSignal || stderr.String() != "hostagent: interrupted\n" || stdout.Len() > 0 {
		t.Errorf("status %d, stdout %q, stderr %q", got, &stdout, &stderr)
	}
}

func TestRunWritesWhereItIsTold(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"hostagent", "--version"}, nil, &stdout, &stderr); got != 0 || stdout.String() != fmt.Sprintf("hostagent version %s\n", version) {
		t.Errorf("status %d, stdout %q, stderr %q", got, &stdout, &stderr)
	}
}

func TestProcessAge(t *testing.T) {
	age, err := processAge()
	if err != nil || age < 0 || age > time.Hour {
		t.Errorf("got %v, %v", age, err)
	}
	if s := processStart(); s.After(time.Now()) || time.Since(s) < age {
		t.Errorf("started %v ago, but is %v old", time.Since(s), age)
	}
}

// What a run says of itself stays in its column, whatever it is.
func TestPsLine(t *testing.T) {
	now := time.Now()
	r := hostagent.Run{Status: control.Status{
		ID: "20260101-000000-abcdef", Image: "wi\tne", Command: []string{"cmd", "/c", "a\nb\x1b[31m" + strings.Repeat("é", 100)},
		Stage: "command", Started: now.Add(-1500 * time.Millisecond), Pid: 1, QEMU: map[string]int{"guest": 3, "controller": 2, "x": 9}, PSS: 300 << 20,
	}}
	line := psLine(r, now)
	fields := strings.Split(line, "\t")
	if len(fields) != 7 || strings.ContainsAny(line, "\n\x1b") || !utf8.ValidString(line) || len(fields[6]) > 70 {
		t.Errorf("got %q", line)
	}
	if got := strings.Join(fields[1:6], "|"); got != "wi ne|command|1.5s|300 MiB|1,2,3" {
		t.Errorf("got %q", got)
	}
	r.Problem = "does not\nanswer"
	if line := psLine(r, now); len(strings.Split(line, "\t")) != 7 || !strings.Contains(line, "(does not answer)") {
		t.Errorf("got %q", line)
	}
}

func TestKeeperEnvironment(t *testing.T) {
	for _, bad := range []string{"", "x", "2", "-1", "999999"} {
		t.Setenv(keeperEnv, bad)
		if k, _, err := asKeeper(t.Context()); err == nil || k != nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if k, ctx, err := asKeeper(t.Context()); err != nil || k != nil || ctx.Err() != nil {
		t.Errorf("without: %v, %v", k, err)
	}
}
