package guest

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCheckDrives(t *testing.T) {
	for name, c := range map[string]struct {
		drives []Drive
		says   string // "" = nothing is wrong
	}{
		"none":          {nil, ""},
		"whole shares":  {[]Drive{{"S", ShareStore, ""}, {"X", ShareXchg, ""}}, ""},
		"lower case":    {[]Drive{{"s", ShareStore, ""}}, ""},
		"first, last":   {[]Drive{{"D", ShareStore, ""}, {"Z", ShareXchg, ""}}, ""},
		"below a share": {[]Drive{{"P", ShareStore, "abc-x+y=1.0_b/lib"}}, ""},
		"share twice":   {[]Drive{{"S", ShareStore, ""}, {"T", ShareStore, ""}}, ""},

		"floppy":             {[]Drive{{"A", ShareStore, ""}}, "reserved"},
		"system's disk":      {[]Drive{{"c", ShareStore, ""}}, "drive C: is reserved"},
		"no letter":          {[]Drive{{"", ShareStore, ""}}, "one letter from D to Z"},
		"colon":              {[]Drive{{"S:", ShareStore, ""}}, "one letter from D to Z"},
		"digit":              {[]Drive{{"1", ShareStore, ""}}, "one letter from D to Z"},
		"bracket":            {[]Drive{{"[", ShareStore, ""}}, "one letter from D to Z"},
		"not ASCII":          {[]Drive{{"Ü", ShareStore, ""}}, "one letter from D to Z"},
		"letter twice":       {[]Drive{{"S", ShareStore, ""}, {"s", ShareXchg, ""}}, "S: is mapped twice"},
		"no such share":      {[]Drive{{"S", "store", ""}}, `no share "store"`},
		"share in capitals":  {[]Drive{{"S", "NIXSTORE", ""}}, "no share"},
		"absolute":           {[]Drive{{"S", ShareStore, "/a"}}, "not a clean path"},
		"up":                 {[]Drive{{"S", ShareStore, "../a"}}, "not a clean path"},
		"up and down":        {[]Drive{{"S", ShareStore, "a/../b"}}, "not a clean path"},
		"dot":                {[]Drive{{"S", ShareStore, "."}}, "not a clean path"},
		"slash at the end":   {[]Drive{{"S", ShareStore, "a/"}}, "not a clean path"},
		"backslash":          {[]Drive{{"S", ShareStore, `a\b`}}, "not a clean path"},
		"blank":              {[]Drive{{"S", ShareStore, "a b"}}, "not a clean path"},
		"command separator":  {[]Drive{{"S", ShareStore, "a&del"}}, "not a clean path"},
		"variable":           {[]Drive{{"S", ShareStore, "%PATH%"}}, "not a clean path"},
		"line break at last": {[]Drive{{"S", ShareStore, "a\n"}}, "not a clean path"},
	} {
		err := CheckDrives(c.drives)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	err := CheckDrives([]Drive{{"A", "x", ".."}, {"S", "y", ""}})
	for _, all := range []string{"A: is reserved", `"x"`, `".."`, `"y"`} {
		if err == nil || !strings.Contains(err.Error(), all) {
			t.Errorf("%v does not mention %s", err, all)
		}
	}
}

func TestMapCommands(t *testing.T) {
	p := Profile{Drives: []Drive{{"s", ShareStore, ""}, {"X", ShareXchg, ""}, {"P", ShareStore, "a-1/bin"}}}
	want := []string{
		`net use S: \\192.168.0.2\nixstore PASS /user:winvm /persistent:no`,
		`net use X: \\192.168.0.2\xchg PASS /user:winvm /persistent:no`,
		`net use P: \\192.168.0.2\nixstore\a-1\bin PASS /user:winvm /persistent:no`,
	}
	if got := p.MapCommands("winvm", "PASS"); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestPaths(t *testing.T) {
	// The drive of a part of the share isn't the share's.
	p := Profile{Drives: []Drive{{"P", ShareStore, "a"}, {"s", ShareStore, ""}, {"X", ShareXchg, ""}}}
	for got, want := range map[string]string{
		p.StorePath("a-1/b"):    `S:\a-1\b`,
		p.StorePath(""):         `S:\`,
		p.XchgPath(".winvm/42"): `X:\.winvm\42`,
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if l, ok := (Profile{}).DriveOf(ShareStore); ok {
		t.Errorf("a profile without drives has the store at %q", l)
	}
}

func TestEveryProfile(t *testing.T) {
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil {
			t.Error(err)
			continue
		}
		m := p.Machine
		switch {
		case p.Name != name, p.Summary == "", p.RunnerPath == "", p.SSH.User == "", p.SSH.Port == 0:
			t.Errorf("%s: something is empty: %+v", name, p)
		case m.MinMemory > m.MemoryMiB, m.CPUs < 1, m.CPUs > m.MaxCPUs, m.BootLimitS < 1:
			t.Errorf("%s: machine %+v", name, m)
		case m.CPUModel["tcg"] == "", m.CPUModel["kvm"] == "":
			t.Errorf("%s: no CPU model for an accelerator: %v", name, m.CPUModel)
		}
	}
	if !slices.Contains(Names(), "wine") || !slices.IsSorted(Names()) {
		t.Errorf("names %v", Names())
	}
}

func TestFindUnknown(t *testing.T) {
	_, err := Find("windows-95")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "windows-95") || !strings.Contains(err.Error(), "wine") {
		t.Errorf("got %v, want ErrUnknown that names it and those there are", err)
	}
}

func TestValidateNeedsBothShares(t *testing.T) {
	p, err := Find("wine")
	if err != nil {
		t.Fatal(err)
	}
	p.Drives = []Drive{{"S", ShareStore, "x"}, {"X", ShareXchg, ""}}
	p.ExitBits = 16
	err = p.Validate()
	for _, part := range []string{"guest profile wine", "no drive maps the whole of share nixstore", "16 bits"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q in it", err, part)
		}
	}
	if strings.Contains(err.Error(), "share xchg") {
		t.Errorf("xchg is mapped: %v", err)
	}
}
