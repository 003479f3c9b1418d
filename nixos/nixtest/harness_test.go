package nixtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"winvm/transport/needs"
)

func TestMain(m *testing.M) {
	if binds, ok := os.LookupEnv(enterEnv); ok {
		fmt.Fprintln(os.Stderr, "nixtest:", enter(binds, os.Args[1:])) // it returns errors alone
		os.Exit(1)
	}
	status := m.Run()
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(status)
}

// A world is a Nix store, and what the derivations are made with.
type world struct {
	dir       string
	image     string // exported: not in the store
	hostagent string // store path
	qemu      string // store path
	chroot    bool   // Nix can't make a sandbox here without help
}

var (
	shared     world
	sharedOnce sync.Once
	sharedErr  error
)

// imageInSandbox is where the sandbox has the image.
const imageInSandbox = "/winvm-image"

const patience = 4 * time.Minute

// newWorld is the world that all tests share: what they build has other names.
func newWorld(t *testing.T) *world {
	t.Helper()
	needs.Root(t)
	for _, tool := range []string{"nix-build", "nix-daemon", "qemu-system-x86_64"} {
		needs.Tool(t, tool)
	}
	state := needs.Env(t, "WINVM_TEST_STATE_DIR", "the state directory with image wine; `make test` makes one")
	if _, err := os.Stat("../../build/bin/hostagent"); err != nil {
		needs.Missing(t, "no hostagent program: %v; `make build` makes it", err)
	}
	sharedOnce.Do(func() { sharedErr = shared.make(state) })
	if sharedErr != nil {
		t.Fatal(sharedErr)
	}
	return &shared
}

func (w *world) make(state string) (err error) {
	if w.dir, err = os.MkdirTemp("", "nixtest"); err != nil {
		return err
	}
	w.image = filepath.Join(w.dir, "image")
	w.chroot = !userNamespaces()
	agent, err := filepath.Abs("../../build/bin/hostagent")
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(w.dir, "tmp"), 0o755); err != nil {
		return err
	}
	// Build users pass through it.
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command(agent, "--state-dir", state, "image", "export", "wine", w.image).CombinedOutput(); err != nil {
		return fmt.Errorf("image export: %w: %s", err, out)
	}
	conf := "build-users-group =\nsubstitute = false\nsandbox = true\nsandbox-fallback = false\nsystem-features = windows-vm\n" +
		"experimental-features = nix-command flakes\nextra-sandbox-paths = /usr /lib /lib64 /bin " + imageInSandbox + "=" + w.image + "\n"
	if err := writeAll(map[string]string{filepath.Join(w.dir, "conf", "nix.conf"): conf}); err != nil {
		return err
	}
	pkg, qemu := filepath.Join(w.dir, "hostagent"), filepath.Join(w.dir, "qemu")
	for _, script := range []string{
		"mkdir -p " + pkg + "/bin " + pkg + "/libexec " + qemu + "/bin",
		"cp " + agent + " " + pkg + "/bin/ && cp -r ../../build/libexec/winvm " + pkg + "/libexec/",
		"ln -s /usr/bin/qemu-system-x86_64 " + qemu + "/bin/",
	} {
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", script, err, out)
		}
	}
	for dir, path := range map[string]*string{pkg: &w.hostagent, qemu: &w.qemu} {
		r := w.command(nil, "nix-store", "--add", dir)
		out, err := r.Output()
		if err != nil {
			return fmt.Errorf("nix-store --add: %w", err)
		}
		*path = strings.TrimSpace(string(out))
	}
	return nil
}

func writeAll(files map[string]string) error {
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command is a program of Nix's, on the world's store. binds are for enter.
func (w *world) command(binds []string, args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NIX_CONF_DIR="+filepath.Join(w.dir, "conf"), "NIX_REMOTE=local?root="+filepath.Join(w.dir, "root"), "HOME="+w.dir,
		"TMPDIR="+filepath.Join(w.dir, "tmp")) // a Nix that is killed leaves its builds' directories there
	if w.chroot || binds != nil {
		cmd.Path, cmd.Args, cmd.Err = "/proc/self/exe", append([]string{"nixtest"}, args...), nil
		cmd.Env = append(cmd.Env, enterEnv+"="+strings.Join(binds, " "))
	}
	return cmd
}

// real is where a store path is.
func (w *world) real(path string) string { return filepath.Join(w.dir, "root", path) }

// prelude is what the expressions of the tests can use: w is lib.nix, and cmd a derivation
// that runs a line in the guest.
func (w *world) prelude() string {
	lib, _ := filepath.Abs("../lib.nix")
	return fmt.Sprintf(`let
  w = import %s { hostagent = builtins.storePath "%s"; qemu = builtins.storePath "%s"; system = "x86_64-linux"; shell = "/bin/sh"; };
  image = "%s";
  drv = name: line: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "cmd.exe"; args = [ "/d" "/c" line ]; } // more);
  cmd = name: line: more: w.runInWindowsVM { inherit image; } (drv name line more);
in `, lib, w.hostagent, w.qemu, imageInSandbox)
}

// A run is a nix-build.
type run struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	err            error
	done           chan struct{}
}

// start starts nix-build for an expression.
func (w *world) start(t *testing.T, expr string, args ...string) *run {
	t.Helper()
	return w.startAs(t, nil, append([]string{"nix-build", "--no-out-link", "-E", w.prelude() + expr}, args...)...)
}

func (w *world) startAs(t *testing.T, change func(*exec.Cmd), args ...string) *run {
	t.Helper()
	r := &run{t: t, cmd: w.command(nil, args...), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	// Of what a killed one leaves none holds up Wait.
	r.cmd.WaitDelay = 10 * time.Second
	if change != nil {
		change(r.cmd)
	}
	must(t, r.cmd.Start())
	go func() { r.err = r.cmd.Wait(); close(r.done) }()
	t.Cleanup(func() { _ = r.cmd.Process.Kill(); <-r.done })
	return r
}

func (w *world) build(t *testing.T, expr string, args ...string) *run {
	t.Helper()
	r := w.start(t, expr, args...)
	r.wait()
	w.checkClean(t)
	return r
}

func (r *run) wait() {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatalf("nix-build still runs after %v", patience)
	}
}

// made are the outputs of a build that must have succeeded.
func (r *run) made() []string {
	r.t.Helper()
	if r.err != nil {
		r.t.Fatalf("nix-build: %v\n%s", r.err, r.stderr.String())
	}
	return strings.Fields(r.stdout.String())
}

// fails checks that the build failed and that its log has all of these.
func (r *run) fails(says ...string) {
	r.t.Helper()
	if r.err == nil {
		r.t.Errorf("it was built: %s", r.stdout.String())
	}
	for _, s := range says {
		if !strings.Contains(r.stderr.String(), s) {
			r.t.Errorf("the log lacks %q:\n%s", s, r.stderr.String())
		}
	}
}

// vms are the processes in the sandboxes of the world.
func (w *world) vms() (pids []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, _ := os.ReadFile(filepath.Join(d, "mountinfo")) // of one that has ended there is none
		if bytes.Contains(b, []byte(w.dir)) && bytes.Contains(b, []byte(".drv.chroot / ")) {
			pids = append(pids, filepath.Base(d))
		}
	}
	return pids
}

// checkClean fails if a process of a build lives a moment after it.
func (w *world) checkClean(t *testing.T) {
	t.Helper()
	for range 100 {
		if len(w.vms()) == 0 {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	for _, pid := range w.vms() {
		b, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		t.Errorf("left: process %s %.200q", pid, b)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read is a file's text, with CRLF taken as LF.
func (w *world) read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(w.real(path))
	must(t, err)
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}
