package inspect

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"winvm/hostagent/guest"
	"winvm/transport/needs"
)

// An edition to put into a test's image file.
type edition struct{ name, id, arch, build string }

// makeWIM makes an image file with wimlib.
func makeWIM(t *testing.T, file string, editions ...edition) {
	t.Helper()
	wimlib := needs.Tool(t, "wimlib-imagex")
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, e := range editions {
		verb := "append"
		if i == 0 {
			verb = "capture"
		}
		args := []string{verb, src, file, e.name}
		for _, p := range []string{"ARCH=" + e.arch, "EDITIONID=" + e.id, "VERSION/BUILD=" + e.build} {
			args = append(args, "--image-property", "WINDOWS/"+p)
		}
		if out, err := exec.Command(wimlib, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// makeISO makes an ISO with UDF beside ISO 9660, as Windows' media have it.
func makeISO(t *testing.T, dir string, bios, uefi bool) string {
	t.Helper()
	genisoimage := needs.Tool(t, "genisoimage")
	iso := filepath.Join(t.TempDir(), "x.iso")
	args := []string{"-quiet", "-udf", "-allow-limited-size", "-iso-level", "3", "-o", iso}
	boot := filepath.Join(dir, "boot.img")
	if err := os.WriteFile(boot, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	if bios {
		args = append(args, "-b", "boot.img", "-no-emul-boot", "-c", "boot.cat")
	}
	if bios && uefi {
		args = append(args, "-eltorito-alt-boot")
	}
	if uefi {
		args = append(args, "-efi-boot", "boot.img", "-no-emul-boot", "-c", "boot.cat")
	}
	if out, err := exec.Command(genisoimage, append(args, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return iso
}

func profile(t *testing.T, name string) guest.Profile {
	t.Helper()
	p, err := guest.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func modern(t *testing.T, bios, uefi bool, editions ...edition) *Medium {
	t.Helper()
	needs.Tool(t, "7zz")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sources"), 0o755); err != nil {
		t.Fatal(err)
	}
	makeWIM(t, filepath.Join(dir, "sources", "install.wim"), editions...)
	m, err := Open(t.Context(), makeISO(t, dir, bios, uefi))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestChoose(t *testing.T) {
	eleven := modern(t, true, true,
		edition{"Windows 11 Home", "Core", "9", "22631"}, edition{"Windows 11 Pro", "Professional", "9", "22631"},
		edition{"Windows 11 Pro on ARM", "Professional", "12", "22631"})
	ten := modern(t, true, false, edition{"Windows 10 Pro", "Professional", "0", "19045"})
	server := modern(t, true, true, edition{"Windows Server 2022 SERVERSTANDARD", "ServerStandard", "9", "20348"})
	if len(eleven.Images) != 3 || eleven.Images[2].Arch != "arm64" || !eleven.Boot.BIOS || !eleven.Boot.UEFI || ten.Boot.UEFI {
		t.Errorf("got %+v, %+v", eleven, ten)
	}
	for name, c := range map[string]struct {
		m                      *Medium
		profile, arch, edition string
		index                  int
		is                     error
		says                   string
	}{
		"first choice":      {eleven, "windows-11", "", "", 2, nil, ""},
		"by ID":             {eleven, "windows-11", "", "core", 1, nil, ""},
		"by name":           {eleven, "windows-11", "x86_64", "Windows 11 Home", 1, nil, ""},
		"server":            {server, "windows-server-2022", "", "", 1, nil, ""},
		"no such edition":   {eleven, "windows-11", "", "Enterprise", 0, ErrOther, "no edition Enterprise; "},
		"and what there is": {eleven, "windows-11", "", "Enterprise", 0, ErrOther, "Professional (Windows 11 Pro, x86_64, build 22631)"},
		"other build":       {eleven, "windows-10", "", "", 0, ErrOther, "a client's image of build 10240 to 21999"},
		"a server":          {server, "windows-10", "", "", 0, ErrOther, "ServerStandard"},
		"other server":      {server, "windows-server-2019", "", "", 0, ErrOther, "build 17763 to 17763"},
		"architecture":      {ten, "windows-10", "x86_64", "", 0, ErrOther, "on x86_64 wants"},
		"no such one":       {eleven, "windows-11", "i686", "", 0, nil, "can't be of architecture i686"},
		"BIOS only":         {ten, "windows-11", "", "", 0, ErrNotBootable, "boots under a BIOS only"},
		"XP":                {ten, "windows-xp", "", "", 0, ErrOther, "WIN51IP in its root"},
	} {
		got, err := c.m.Choose(profile(t, c.profile), c.arch, c.edition)
		if c.says == "" {
			if err != nil || got.Index != c.index {
				t.Errorf("%s: got %+v, %v", name, got, err)
			}
			continue
		}
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %+v, %v, want %q", name, got, err, c.says)
		}
	}
}

func old(t *testing.T, files ...string) *Medium {
	t.Helper()
	needs.Tool(t, "7zz")
	dir := t.TempDir()
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Open(t.Context(), makeISO(t, dir, true, false))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestChooseOld(t *testing.T) {
	xp := old(t, "WIN51", "WIN51IP", "I386/TXTSETUP.SIF")
	if got, err := xp.Choose(profile(t, "windows-xp"), "", ""); err != nil || got.Edition != "Professional" || got.Arch != "i686" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := old(t, "WIN51", "WIN51IA", "I386/TXTSETUP.SIF").Choose(profile(t, "windows-2003"), "i686", ""); err != nil || got.Edition != "Enterprise" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := xp.Choose(profile(t, "windows-2003"), "", ""); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), "WIN51IA or WIN51IS") {
		t.Errorf("XP for 2003: got %v", err)
	}
	if _, err := xp.Choose(profile(t, "windows-10"), "", ""); !errors.Is(err, ErrOther) {
		t.Errorf("XP for 10: got %v", err)
	}
	if _, err := old(t, "WIN51IP", "AMD64/TXTSETUP.SIF", "I386/TXTSETUP.SIF").Choose(profile(t, "windows-xp"), "", ""); !errors.Is(err, ErrOther) {
		t.Errorf("64 bits for 32: got %v", err)
	}
	if _, err := old(t, "README").Choose(profile(t, "windows-10"), "", ""); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), "no Windows on it") {
		t.Errorf("another CD: got %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	needs.Tool(t, "7zz")
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	descriptor := make([]byte, 40*sector)
	copy(descriptor[16*sector+1:], "CD001")
	catalogue := append([]byte(nil), descriptor...)
	copy(catalogue[17*sector:], "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(catalogue[17*sector+0x47:], 1<<30)
	for name, c := range map[string]struct {
		path string
		says string
	}{
		"text":         {write("text", []byte("not an ISO")), "no volume descriptor"},
		"zeros":        {write("zeros", make([]byte, 40*sector)), "no volume descriptor"},
		"directory":    {dir, "is not a file"},
		"cut off":      {write("cut", catalogue), "shorter than its boot catalogue says"},
		"only a label": {write("label", descriptor), "7zz finds no file"},
	} {
		if _, err := Open(t.Context(), c.path); !errors.Is(err, ErrNotISO) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: got %v", err)
	}
	// Not bootable.
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	iso := makeISO(t, data, false, false)
	m, err := Open(t.Context(), iso)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Choose(profile(t, "windows-10"), "", ""); !errors.Is(err, ErrNotBootable) {
		t.Errorf("not bootable: got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ended, iso); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got %v", err)
	}
}

func TestOpenWithBadImageFile(t *testing.T) {
	needs.Tool(t, "7zz")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sources"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sources", "install.wim"), []byte("not a WIM"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), makeISO(t, dir, true, true))
	if !errors.Is(err, ErrNotISO) || !strings.Contains(err.Error(), "install.wim") {
		t.Errorf("got %v", err)
	}
}

// wim is a header and a description right behind it.
func wim(description string, change func(h []byte)) string {
	units := utf16.Encode([]rune("\ufeff" + description))
	h := make([]byte, wimHeader)
	copy(h, "MSWIM\x00\x00\x00")
	binary.LittleEndian.PutUint32(h[8:], wimHeader)
	binary.LittleEndian.PutUint64(h[72:], uint64(2*len(units)))
	binary.LittleEndian.PutUint64(h[80:], wimHeader)
	if change != nil {
		change(h)
	}
	out := h
	for _, u := range units {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return string(out)
}

const description = `<WIM><IMAGE INDEX="1"><NAME>A</NAME><WINDOWS><ARCH>9</ARCH><EDITIONID>Core</EDITIONID><VERSION><BUILD>7</BUILD></VERSION></WINDOWS></IMAGE></WIM>`

func TestReadWIM(t *testing.T) {
	got, err := readWIM(strings.NewReader(wim(description, nil)))
	if err != nil || len(got) != 1 || got[0] != (Image{1, "A", "Core", "x86_64", 7}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"empty":        "",
		"other":        strings.Repeat("x", 300),
		"compressed":   wim(description, func(h []byte) { h[79] = 4 }),
		"huge":         wim(description, func(h []byte) { binary.LittleEndian.PutUint64(h[72:], maxWIMXML+2) }),
		"far":          wim(description, func(h []byte) { binary.LittleEndian.PutUint64(h[80:], 1<<62) }),
		"before":       wim(description, func(h []byte) { binary.LittleEndian.PutUint64(h[80:], 1) }),
		"odd":          wim(description, func(h []byte) { h[72]++ }),
		"cut off":      wim(description, nil)[:300],
		"no XML":       wim("no XML", nil),
		"no image":     wim("<WIM></WIM>", nil),
		"nothing said": wim(`<WIM><IMAGE INDEX="1"><NAME>A</NAME></IMAGE></WIM>`, nil),
	} {
		if got, err := readWIM(strings.NewReader(text)); !errors.Is(err, errWIM) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func FuzzReadWIM(f *testing.F) {
	f.Add([]byte(wim(description, nil)))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = readWIM(strings.NewReader(string(b))) })
}

func FuzzCatalogue(f *testing.F) {
	f.Add(make([]byte, sector))
	f.Fuzz(func(_ *testing.T, b []byte) { catalogueBoot(b) })
}
