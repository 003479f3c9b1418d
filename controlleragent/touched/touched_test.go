package touched_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"winvm/controlleragent/touched"
	"winvm/transport/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mountDir is a mount of its own with a few files.
func mountDir(t *testing.T) string {
	t.Helper()
	needs.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("touched", dir, "tmpfs", 0, ""); err != nil {
		needs.Missing(t, "no tmpfs here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, f := range []string{"read", "opened", "untouched", "sub/read", "ours"} {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Other processes' opens and reads are noted, ours are not.
func TestWatch(t *testing.T) {
	dir := mountDir(t)
	w, err := touched.Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(dir, "ours")); err != nil {
		t.Fatal(err)
	}
	script := `cat read sub/read >/dev/null; exec 3<opened; ls sub >/dev/null; cat none 2>/dev/null; true`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	list, partial := w.Files()
	if err := w.Close(); err != nil || partial {
		t.Errorf("partial %v, %v", partial, err)
	}
	got := map[string]touched.File{}
	for _, f := range list {
		got[f.Path] = f
	}
	for path, want := range map[string]touched.File{
		"read": {Path: "read", Read: true}, "sub/read": {Path: "sub/read", Read: true},
		"opened": {Path: "opened"}, "sub": {Path: "sub", Read: true},
	} {
		if got[path] != want {
			t.Errorf("%s: %+v, want %+v", path, got[path], want)
		}
	}
	for _, path := range []string{"untouched", "ours", "none"} {
		if f, ok := got[path]; ok {
			t.Errorf("%+v", f)
		}
	}
}

func TestNoMount(t *testing.T) {
	needs.Root(t)
	if w, err := touched.Start(filepath.Join(t.TempDir(), "none")); err == nil {
		_ = w.Close()
		t.Error("what doesn't exist is watched")
	}
}
