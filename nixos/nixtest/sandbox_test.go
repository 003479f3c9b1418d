package nixtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Without this the other tests would show nothing: what is built sees no more than it is
// given, and can't do without the sandbox.
func TestSandbox(t *testing.T) {
	w := newWorld(t)
	out := w.build(t, `derivation { name = "sandbox"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "/bin/ls / /nix/store /root > $out; /usr/bin/id -u >> $out" ]; }`).made()[0]
	got := w.read(t, out)
	if strings.Contains(got, "root") || strings.Contains(got, "-hostagent") || !strings.Contains(got, "winvm-image") || !strings.HasSuffix(got, "\n1000\n") {
		t.Errorf("in the sandbox there are %q", got)
	}
}

// throughDaemon builds an expression for a user who may nothing, by a daemon that has a
// build user.
func (w *world) throughDaemon(t *testing.T, expr string) *run {
	t.Helper()
	dir, err := os.MkdirTemp(w.dir, "daemon")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	socket, home := filepath.Join(dir, "socket"), filepath.Join(dir, "home")
	var binds []string
	for file, line := range map[string]string{
		"group":  "winvmbuild:x:39999:winvmbuild1\n",
		"passwd": "winvmbuild1:x:39999:39999::/:/bin/false\n",
	} {
		old, err := os.ReadFile("/etc/" + file)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, file), append(old, line...), 0o644))
		binds = append(binds, filepath.Join(dir, file)+":/etc/"+file)
	}
	must(t, os.Mkdir(home, 0o755))
	must(t, os.Chown(home, 65534, 65534))
	daemon := w.command(binds, "nix-daemon", "--option", "build-users-group", "winvmbuild")
	// Locks of build users are in a state directory that is not the store's.
	daemon.Env = append(daemon.Env, "NIX_DAEMON_SOCKET_PATH="+socket, "NIX_STATE_DIR="+filepath.Join(dir, "state"))
	must(t, daemon.Start())
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	r := w.startAs(t, func(c *exec.Cmd) {
		c.Path, c.Args, c.Err = mustLook(t, "nix-build"), []string{"nix-build", "--no-out-link", "-E", w.prelude() + expr}, nil
		c.Env = append(os.Environ(), "NIX_CONF_DIR="+filepath.Join(w.dir, "conf"), "NIX_REMOTE=daemon", "NIX_DAEMON_SOCKET_PATH="+socket, "HOME="+home, "TMPDIR="+home)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		c.Dir = home
	}, "nix-build")
	r.wait()
	w.checkClean(t)
	return r
}

func TestDaemonSandbox(t *testing.T) {
	w := newWorld(t)
	out := w.throughDaemon(t, `derivation { name = "by-whom"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "/bin/cat /proc/self/uid_map > $out" ]; }`).made()[0]
	if got := strings.Join(strings.Fields(w.read(t, out)), " "); got != "1000 39999 1" {
		t.Errorf("built with the user map %q, want the build user's", got)
	}
	w.throughDaemon(t, `w.runInWindowsVM { image = "/nowhere"; } (drv "no-image-daemon" "" { })`).fails("no such image")
}

func mustLook(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	must(t, err)
	return p
}
