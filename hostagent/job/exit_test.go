package job

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseExit(t *testing.T) {
	for text, want := range map[string]Exit{
		"winvm-exit 1\nstage=done\ncode=0\nerror=0\n":            {Stage: StageDone},
		"winvm-exit 1\nstage=done\ncode=300\nerror=0\n":          {Stage: StageDone, Code: 300},
		"winvm-exit 1\nstage=done\ncode=4294967295\nerror=0\n":   {Stage: StageDone, Code: 0xffffffff},
		"winvm-exit 1\r\nstage=spawn\r\ncode=127\r\nerror=2\r\n": {Stage: StageSpawn, Code: 127, Error: 2},
		"winvm-exit 1\nstage=cwd\ncode=125\nerror=267\n":         {Stage: StageCwd, Code: 125, Error: 267},
		"winvm-exit 1\nstage=job\ncode=125\nerror=13\n":          {Stage: StageJob, Code: 125, Error: 13},
		"winvm-exit 1\nstage=done\ncode=3221225477\nerror=0\n":   {Stage: StageDone, Code: 0xc0000005},
	} {
		if got, err := ParseExit([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseExitRefuses(t *testing.T) {
	for _, text := range []string{
		"",
		"winvm-exit 1",
		"winvm-exit 2\nstage=done\ncode=0\nerror=0\n",
		"winvm-exit 1\nstage=done\ncode=0\n",
		"winvm-exit 1\nstage=spawn\ncode=127\nerror=12",
		"winvm-exit 1\nstage=done\ncode=0\nerror=0\n\n",
		"winvm-exit 1\nstage=done\ncode=0\nerror=0\nmore=1\n",
		"winvm-exit 1\ncode=0\nstage=done\nerror=0\n",
		"winvm-exit 1\nstage=\ncode=0\nerror=0\n",
		"winvm-exit 1\nstage=finished\ncode=0\nerror=0\n",
		"winvm-exit 1\nstage=done\ncode=\nerror=0\n",
		"winvm-exit 1\nstage=done\ncode=-1\nerror=0\n",
		"winvm-exit 1\nstage=done\ncode=4294967296\nerror=0\n",
		"winvm-exit 1\nstage=done\ncode=0x0\nerror=0\n",
		"winvm-exit 1\nstage=done\ncode= 0\nerror=0\n",
		"winvm-exit 1\nstage=done\ncode=0\nerror=none\n",
		"winvm-exit 1\nstage=done\ncode=0\nerror=0\n\x00",
		strings.Repeat("\x00", 44),
		"winvm-exit 1\nstage=done\ncode=0\nerror=" + strings.Repeat("0", MaxExit),
	} {
		if e, err := ParseExit([]byte(text)); !errors.Is(err, ErrExitFile) {
			t.Errorf("%.80q: got %+v, %v; want ErrExitFile", text, e, err)
		}
	}
}

func FuzzParseExit(f *testing.F) {
	f.Add([]byte("winvm-exit 1\nstage=done\ncode=0\nerror=0\n"))
	f.Add([]byte("winvm-exit 1\r\nstage=spawn\r\ncode=127\r\nerror=2\r\n"))
	f.Add([]byte("winvm-exit 1\nstage=done\ncode=4294967295\nerror="))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseExit(b)
		if err != nil {
			if !errors.Is(err, ErrExitFile) || e != (Exit{}) {
				t.Fatalf("got %+v, %v", e, err)
			}
			return
		}
		again, err := ParseExit(fmt.Appendf(nil, "winvm-exit 1\nstage=%s\ncode=%d\nerror=%d\n", e.Stage, e.Code, e.Error))
		if err != nil || again != e {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

func TestAgrees(t *testing.T) {
	minusOne := ^uint32(0)
	for _, c := range []struct {
		code, status uint32
		bits         int
		want         bool
	}{
		{0, 0, 8, true},
		{7, 7, 8, true},
		{255, 255, 8, true},
		{300, 44, 8, true},
		{300, 300, 8, true},
		{minusOne, 255, 8, true},
		{256, 1, 8, true}, // Wine's answer to codes that would read as success
		{0x80000000, 1, 8, true},
		{0xc0000005, 5, 8, true}, // access violation
		{0xc0000005, 139, 8, true},
		{0xe0434352, 0x52, 8, true}, // .NET's exception

		{0, 1, 8, false},
		{1, 0, 8, false},
		{7, 8, 8, false},
		{300, 43, 8, false},
		{256, 0, 8, false},
		{256, 2, 8, false},
		{minusOne, 1, 8, false}, // no NTSTATUS
		{minusOne, 0, 8, false},
		{0xc0000005, 0, 8, false}, // a crash is no success
		{0xc0000005, 256, 8, false},

		{0, 0, 32, true},
		{300, 300, 32, true},
		{minusOne, minusOne, 32, true},
		{0xc0000005, 0xc0000005, 32, true},
		{300, 44, 32, false},
		{minusOne, 255, 32, false},
		{0xc0000005, 5, 32, false},
	} {
		if got := (Exit{Stage: StageDone, Code: c.code}).Agrees(c.status, c.bits); got != c.want {
			t.Errorf("code %#x, SSH status %d, %d bits: got %v", c.code, c.status, c.bits, got)
		}
	}
}

func TestNotFound(t *testing.T) {
	for e, want := range map[Exit]bool{
		{Stage: StageSpawn, Code: 127, Error: 2}: true,
		{Stage: StageSpawn, Code: 127, Error: 3}: true,
		{Stage: StageSpawn, Code: 126, Error: 5}: false,
		{Stage: StageCwd, Code: 125, Error: 3}:   false,
		{Stage: StageDone, Code: 127}:            false,
	} {
		if e.NotFound() != want {
			t.Errorf("%+v: got %v", e, !want)
		}
	}
}
