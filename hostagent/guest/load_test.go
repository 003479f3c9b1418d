package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func source(t *testing.T, name string) string {
	t.Helper()
	b, err := Source(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWineProfile(t *testing.T) {
	p, err := Find("wine")
	if err != nil {
		t.Fatal(err)
	}
	if p.Recipe != "wine" || p.Setup != nil || p.Settle.Duration != 2500*time.Millisecond || p.RunnerPath != `C:\winvm\winvm-run.exe` ||
		p.InstallRunner[1] != `copy /y X:\winvm-run.exe C:\winvm\winvm-run.exe` || p.WarmUp[0] != "@echo off" || len(p.WarmUp) != 4 {
		t.Errorf("got %+v", p)
	}
}

// Every error names the file, the line and the field.
func TestParseRefuses(t *testing.T) {
	base := source(t, "windows-11")
	for name, test := range map[string]struct {
		old, new string
		says     []string // "LINE" is the line of the change
	}{
		"unknown field":     {"  disk_gib: 64", "  disk_gb: 64", []string{"x.yaml:LINE:", `unknown field "disk_gb"`}},
		"wrong type":        {"  cpus: 2", "  cpus: two", []string{"x.yaml:LINE:", "two"}},
		"twice":             {"  cpus: 2", "  cpus: 2\n  cpus: 3", []string{"x.yaml:", `"cpus" already defined`}},
		"no YAML":           {"  cpus: 2", "  cpus: [2", []string{"x.yaml:"}},
		"too many CPUs":     {"  cpus: 2", "  cpus: 200", []string{"x.yaml:LINE: machine.cpus: 200: want 1 to 16"}},
		"memory":            {"  min_memory_mib: 4096", "  min_memory_mib: 8192", []string{"x.yaml:LINE: machine.min_memory_mib: 8192"}},
		"firmware":          {"  firmware: uefi", "  firmware: coreboot", []string{`x.yaml:LINE: machine.firmware: "coreboot": want one of bios, uefi`}},
		"IDE and UEFI":      {"  disk: ahci", "  disk: ide", []string{"x.yaml:LINE: machine.disk: ide"}},
		"NIC":               {"  nic: e1000e", "  nic: ne2k", []string{"x.yaml:LINE: machine.nic"}},
		"answer":            {"  answer: autounattend.xml", "  answer: unattend.txt", []string{"x.yaml:LINE: setup.answer"}},
		"architecture":      {"[x86_64]", "[arm64]", []string{`x.yaml:LINE: setup.architectures[0]: "arm64"`}},
		"edition":           {"    - Core\n", "    - Co re\n", []string{`x.yaml:LINE: setup.editions[4]: "Co re"`}},
		"disk":              {"  disk_gib: 64", "  disk_gib: 20", []string{"x.yaml:LINE: setup.disk_gib: 20: want 52"}},
		"limit":             {"    copying: 3h", "    copying: 90h", []string{"x.yaml:LINE: setup.limits.copying: 90h"}},
		"limit left out":    {"    copying: 3h\n", "", []string{"setup.limits.copying: 0s"}},
		"duration":          {"    copying: 3h", "    copying: soon", []string{"x.yaml:LINE:", "soon"}},
		"SMB":               {"SMB3_11", "SMB4", []string{`x.yaml:LINE: smb.min_protocol: "SMB4"`}},
		"reserved letter":   {"letter: S", "letter: C", []string{"x.yaml:48: drives: drive C: is reserved"}},
		"letter twice":      {"letter: S", "letter: x", []string{"drive X: is mapped twice"}},
		"unknown share":     {"share: nixstore", "share: store", []string{`no share "store"`}},
		"exit code":         {"exit_bits: 32", "exit_bits: 16", []string{"x.yaml:LINE: exit_bits: exit codes of 16 bits"}},
		"two lines":         {"  - exit 0", `  - "exit 0\ndel"`, []string{"x.yaml:LINE: warm_up[3]"}},
		"runner elsewhere":  {`runner_path: C:\winvm\winvm-run.exe`, `runner_path: D:\x.exe`, []string{"x.yaml:LINE: runner_path"}},
		"user":              {"user: Administrator", `user: "a b"`, []string{"x.yaml:LINE: ssh.user"}},
		"name":              {"name: windows-11", "name: Windows 11", []string{"x.yaml:LINE: name:"}},
		"recipe and setup":  {"name: windows-11", "name: windows-11\nrecipe: wine", []string{"either a recipe or a setup"}},
		"kernel's line":     {"  disk: ahci", "  disk: ahci\n  kernel_append: quiet", []string{"machine.kernel_append"}},
		"video memory":      {"vga_mem_mib: 16", "vga_mem_mib: 15", []string{"x.yaml:LINE: machine.vga_mem_mib: 15"}},
		"settles for hours": {"settle: 12s", "settle: 12h", []string{"x.yaml:LINE: settle: 12h"}},
	} {
		if !strings.Contains(base, test.old) {
			t.Errorf("%s: the profile has no %q", name, test.old)
			continue
		}
		at := strings.Index(base, test.old)
		line := 1 + strings.Count(base[:at], "\n")
		_, err := Parse("x.yaml", []byte(strings.Replace(base, test.old, test.new, 1)))
		for _, says := range test.says {
			want := strings.ReplaceAll(says, "LINE", strconv.Itoa(line))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
	}
}

func TestParseTellsAll(t *testing.T) {
	base := source(t, "windows-xp")
	base = strings.NewReplacer("  cpus: 1", "  cpus: 0", "exit_bits: 8", "exit_bits: 9", "kind: xp", "kind: client").Replace(base)
	_, err := Parse("x.yaml", []byte(base))
	for _, part := range []string{"machine.cpus", "exit_bits", "setup.kind"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %s in it", err, part)
		}
	}
}

func TestReadFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	text := strings.Replace(source(t, "windows-10"), "name: windows-10", "name: mine", 1)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p, b, err := ReadFile(file)
	if err != nil || p.Name != "mine" || string(b) != text {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, _, err := ReadFile(file + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: got %v", err)
	}
	if _, _, err := ReadFile(t.TempDir()); err == nil {
		t.Error("a directory is a profile")
	}
	if err := os.WriteFile(file, make([]byte, maxProfile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadFile(file); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too large: got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, n := range Names() {
		b, _ := Source(n)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Parse("x", b); err == nil && p.Validate() != nil {
			t.Errorf("Parse takes what Validate refuses: %v", p.Validate())
		}
	})
}
