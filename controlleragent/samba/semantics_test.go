package samba

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The attributes that there are without extended ones: read-only is the owner's w
// bit, archive his x bit.
func TestAttributes(t *testing.T) {
	m := startMounted(t, nil)
	from := filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		commands string
		mode     os.FileMode
		attr     string
	}{
		{"put " + from + " f", 0o744, "20"},
		{"setmode f +r", 0o544, "21"},
		{"setmode f -r", 0o744, "20"},
		{"setmode f -a", 0o644, "80"},
		{"setmode f +h", 0o644, "80"}, // not kept
	} {
		run(t, m.Config, shareXchg, step.commands)
		info, err := os.Stat(filepath.Join(m.hostXchg, "f"))
		if err != nil || info.Mode().Perm() != step.mode {
			t.Errorf("after %s the mode is %v instead of %v, %v", step.commands, info.Mode(), step.mode, err)
		}
		if out := run(t, m.Config, shareXchg, "allinfo f"); !regexp.MustCompile(`attributes:.*\(` + step.attr + `\)`).MatchString(out) {
			t.Errorf("after %s the attributes should be %s: %s", step.commands, step.attr, out)
		}
	}
}

// A name keeps the case it was made with, is found in any, and can be given another.
func TestCase(t *testing.T) {
	m := startMounted(t, nil)
	run(t, m.Config, shareXchg, `mkdir CamelCase; mkdir CAMELCASE\Inner`)
	if _, err := os.Stat(filepath.Join(m.hostXchg, "CamelCase", "Inner")); err != nil {
		t.Error(err)
	}
	run(t, m.Config, shareXchg, `rename camelcase CAMELcase; rename camelCASE\INNER CamelCase\inner`)
	if _, err := os.Stat(filepath.Join(m.hostXchg, "CAMELcase", "inner")); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(m.hostXchg); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

// Names that Windows can't have are listed as others that it can, by which the
// files can be read.
func TestImpossibleNames(t *testing.T) {
	names := []string{"plain.txt", "dot.", "space ", "aux", "con.txt", "a:b", "what?", `back\slash`, "star*", "less<more>"}
	m := startMounted(t, func(m *mounted) {
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(m.hostXchg, n), []byte("content of "+n), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
	local := t.TempDir()
	seen := map[string]bool{}
	out := run(t, m.Config, shareXchg, "ls")
	for line := range strings.Lines(out) {
		f := regexp.MustCompile(`^  (\S+) +N +\d+ `).FindStringSubmatch(line)
		if f == nil {
			continue
		}
		to := filepath.Join(local, "to")
		run(t, m.Config, shareXchg, `get "`+f[1]+`" `+to)
		got, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(f[1], `:?\*<>`) || strings.HasSuffix(f[1], ".") {
			t.Errorf("the name %q is listed", f[1])
		}
		seen[strings.TrimPrefix(string(got), "content of ")] = true
	}
	for _, n := range names {
		if !seen[n] {
			t.Errorf("%q can't be read; listed is:\n%s", n, out)
		}
	}
}
