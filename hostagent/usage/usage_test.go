package usage_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"winvm/hostagent/manifest"
	"winvm/hostagent/usage"
	"winvm/transport/agentrpc"
)

func inputs(t *testing.T) (dir string, list []*manifest.Manifest) {
	t.Helper()
	dir = t.TempDir()
	for path, text := range map[string]string{
		"a-tool/bin/x.exe": "12345", "a-tool/doc/readme": "not read", "b-lib/lib/y.dll": "123", "c-unused/file": "x", "d-file": "1234567",
		"e-listed/file": "x",
	} {
		p := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a-tool", "b-lib", "c-unused", "d-file", "e-listed"} {
		m, err := manifest.Scan(t.Context(), filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return dir, list
}

func TestReport(t *testing.T) {
	dir, list := inputs(t)
	r := usage.New(dir, list, []agentrpc.TouchedFile{
		{Path: "."},
		{Path: "a-tool"},
		{Path: "a-tool/bin", Read: true},
		{Path: "a-tool/bin/x.exe", Read: true},
		{Path: "a-tool/doc/readme"},
		{Path: "b-lib/lib/y.dll"},
		{Path: "c-unused"},
		{Path: "d-file", Read: true},
		{Path: "e-listed", Read: true},
		{Path: "out/result", Read: true},
		{Path: "a-tool/none", Read: true},
		{Path: "d-file/none"},
		{Path: "../../etc/passwd", Read: true},
	}, false)
	want := []usage.Input{
		{Name: "a-tool", Used: true, Files: 2, Bytes: 13, Opened: 2, Read: 1, ReadBytes: 5},
		{Name: "b-lib", Used: true, Files: 1, Bytes: 3, Opened: 1},
		{Name: "c-unused", Files: 1, Bytes: 1},
		{Name: "d-file", Used: true, Files: 1, Bytes: 7, Opened: 1, Read: 1, ReadBytes: 7},
		{Name: "e-listed", Used: true, Files: 1, Bytes: 1},
	}
	if !reflect.DeepEqual(r.Inputs, want) {
		t.Errorf("%+v", r.Inputs)
	}
	if len(r.Files) != 4 {
		t.Errorf("%+v", r.Files)
	}
	trimmed := strings.ReplaceAll(strings.Join(r.Trimmed(), " "), dir+"/", "")
	if trimmed != "a-tool b-lib d-file e-listed" {
		t.Errorf("trimmed: %s", trimmed)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := r.AddWritten(out); err != nil || len(r.Written) != 0 {
		t.Errorf("no output: %v, %v", r.Written, err)
	}
	if err := os.MkdirAll(filepath.Join(out, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "sub", "f"), []byte("12"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.AddWritten(out); err != nil || !reflect.DeepEqual(r.Written, []usage.File{{Path: "out/sub/f", Bytes: 2}}) {
		t.Errorf("%+v, %v", r.Written, err)
	}
	to := filepath.Join(t.TempDir(), "new", "report")
	if err := r.Write(to); err != nil {
		t.Fatal(err)
	}
	var again usage.Report
	b, err := os.ReadFile(filepath.Join(to, "report.json"))
	if err == nil {
		err = json.Unmarshal(b, &again)
	}
	if err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("%v: %s", err, b)
	}
	text, err := os.ReadFile(filepath.Join(to, "report.txt"))
	if err != nil || !strings.Contains(string(text), "c-unused (not used)") || !strings.Contains(string(text), "1 of 5 inputs were not used; 1 files of 2 bytes were written") {
		t.Errorf("%v: %s", err, text)
	}
}

// Where not everything was noted, no input is called superfluous.
func TestPartial(t *testing.T) {
	dir, list := inputs(t)
	r := usage.New(dir, list, nil, true)
	if len(r.Trimmed()) != len(list) {
		t.Errorf("%q", r.Trimmed())
	}
}
