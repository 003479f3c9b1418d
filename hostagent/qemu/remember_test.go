package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A binary is asked once, and again when it has changed or when what was remembered
// can't be read.
func TestRememberedVersion(t *testing.T) {
	dir := t.TempDir()
	binary, file, asked := filepath.Join(dir, "qemu"), filepath.Join(dir, "cache", "version.json"), filepath.Join(dir, "asked")
	install := func(version string) {
		t.Helper()
		script := fmt.Sprintf("#!/bin/sh\necho x >>%s\necho 'QEMU emulator version %s'\n", asked, version)
		_ = os.Remove(binary)
		if err := os.WriteFile(binary, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	times := 0
	expect := func(what, version string, asks int) {
		t.Helper()
		got, err := RememberedVersion(t.Context(), binary, file)
		if err != nil || got != version {
			t.Errorf("%s: %q, %v; want %q", what, got, err, version)
		}
		data, _ := os.ReadFile(asked)
		if n := len(data)/2 - times; n != asks {
			t.Errorf("%s: asked %d times, want %d", what, n, asks)
		}
		times = len(data) / 2
	}
	install("8.1.2")
	expect("first", "8.1.2", 1)
	expect("again", "8.1.2", 0)
	install("9.0.0")
	expect("upgraded", "9.0.0", 1)
	expect("again", "9.0.0", 0)
	for _, content := range []string{"", "{", `{"version":"1"}`, string(make([]byte, maxRemembered+1))} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		expect(fmt.Sprintf("%.20q in the file", content), "9.0.0", 1)
	}
	install("5.2.0")
	if v, err := RememberedVersion(t.Context(), binary, file); err == nil {
		t.Errorf("one that is too old is %q", v)
	}
	times++
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}

	// A place that can't be written is no error.
	install("9.1.0")
	file = filepath.Join(binary, "file")
	expect("no place", "9.1.0", 1)
	binary = filepath.Join(dir, "none")
	if _, err := RememberedVersion(t.Context(), binary, file); err == nil {
		t.Error("no binary, no error")
	}
}
