package nixstore

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

func TestClosurePlain(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	write(t, filepath.Join(store, "tool", "bin", "x"), "x")
	write(t, filepath.Join(store, "file"), "x")
	write(t, filepath.Join(store, ".hidden"), "x")
	write(t, filepath.Join(dir, "outside", "x"), "x")
	link := func(to, at string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, at)); err != nil {
			t.Fatal(err)
		}
	}
	link(store, "alias")
	link(filepath.Join(store, "tool"), "result")
	link(filepath.Join(dir, "outside"), "store/link")
	link(filepath.Join(dir, "outside"), "away")
	if err := unix.Mkfifo(filepath.Join(store, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	abs := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, filepath.Join(store, n))
		}
		return out
	}
	good := []struct{ in, want []string }{
		{nil, abs(".hidden", "file", "link", "tool")},
		{[]string{"tool"}, abs("tool")},
		{[]string{"tool", "file", "tool"}, abs("file", "tool")},
		{abs("tool/bin/x"), abs("tool")},
		{abs("tool/../file"), abs("file")},
		{abs("tool/"), abs("tool")},
		{abs("link"), abs("link")},
		{[]string{filepath.Join(dir, "alias", "tool")}, abs("tool")},
		{[]string{filepath.Join(dir, "result")}, abs("tool")},
	}
	for _, c := range good {
		got, err := Closure(t.Context(), store, c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v; want %v", c.in, got, err, c.want)
		}
	}
	bad := []struct {
		in   string
		want error
	}{
		{"none", ErrNoSuchInput},
		{"", ErrNoSuchInput},
		{abs("none")[0], ErrNoSuchInput},
		{abs("tool/bin/none")[0], ErrNoSuchInput},
		{"/etc/passwd", ErrOutsideStore},
		{"/nonexistent/x", ErrNoSuchInput},
		{abs("../outside")[0], ErrOutsideStore},
		{"..", ErrOutsideStore},
		{"a/b", ErrOutsideStore},
		{store, ErrOutsideStore},
		{store + "-not", ErrNoSuchInput},
		{filepath.Join(dir, "away"), ErrOutsideStore},
	}
	for _, c := range bad {
		if got, err := Closure(t.Context(), store, []string{c.in}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.in) {
			t.Errorf("%q: %v, %v; want %v", c.in, got, err, c.want)
		}
	}
	if _, err := Closure(t.Context(), filepath.Join(dir, "nowhere"), nil); !errors.Is(err, ErrNoSuchInput) {
		t.Errorf("no store directory: %v", err)
	}
}

// newNixStore makes a real Nix store in a directory of its own; nix runs nix-store on
// it.
func newNixStore(t *testing.T) (root, dir string, nix func(args ...string) string) {
	t.Helper()
	needs.Tool(t, "nix-store")
	root = t.TempDir()
	dir = filepath.Join(root, "nix", "store")
	t.Setenv("NIX_CONF_DIR", root+"/conf")
	t.Setenv("NIX_CONFIG", "build-users-group =")
	t.Setenv("NIX_REMOTE", "")
	t.Setenv("HOME", root)
	return root, dir, func(args ...string) string {
		t.Helper()
		cmd := exec.Command("nix-store", args...)
		cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+dir, "NIX_STATE_DIR="+stateDir(dir), "NIX_LOG_DIR="+root+"/log")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("nix-store %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
}

func TestClosureNix(t *testing.T) {
	root, dir, nix := newNixStore(t)
	src := filepath.Join(root, "lone")
	write(t, src, "alone")
	lone := nix("--add", src)
	// A derivation refers to its source: `--requisites` of it is both.
	needs.Tool(t, "nix-instantiate")
	expr := filepath.Join(root, "x.nix")
	write(t, expr, `derivation { name = "x"; system = "none"; builder = "/bin/sh"; src = ./lone; }`)
	cmd := exec.Command("nix-instantiate", expr)
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+dir, "NIX_STATE_DIR="+stateDir(dir), "NIX_LOG_DIR="+root+"/log")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nix-instantiate: %v", err)
	}
	drv := strings.TrimSpace(string(out))

	got, err := Closure(t.Context(), dir, []string{drv})
	want := []string{lone, drv}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("closure %v, %v; want %v", got, err, want)
	}
	// Lock files, links and strays don't belong to the whole store.
	write(t, filepath.Join(dir, "stray"), "x")
	write(t, lone+".lock", "x")
	got, err = Closure(t.Context(), dir, nil)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("whole store %v, %v; want %v", got, err, want)
	}
	if _, err := Closure(t.Context(), dir, []string{"stray"}); !errors.Is(err, ErrNotValid) {
		t.Errorf("a stray: %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "p", "x"), "x")
	if err := os.Chmod(filepath.Join(dir, "p"), 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(filepath.Join(dir, "p"), 0o755) }()
	asNobody(t)
	if _, err := Closure(t.Context(), dir, []string{filepath.Join(dir, "p", "x")}); !errors.Is(err, ErrUnreadable) {
		t.Errorf("closure: %v", err)
	}
}

// asNobody takes root's way past file modes from this goroutine, if it is root.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread()
	_, _ = unix.SetfsuidRetUid(65534)
	t.Cleanup(func() {
		_, _ = unix.SetfsuidRetUid(0)
		runtime.UnlockOSThread()
	})
}
