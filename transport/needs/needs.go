// Package needs lets a test say what it needs of the machine.
//
// On a developer's machine a test whose needs are not met is skipped, with the
// reason. With CI=true in the environment it fails instead: there a skipped test
// would look like a passed one.
package needs

import (
	"os"
	"os/exec"
	"testing"
)

// CI reports whether the tests run where everything has to be there.
func CI() bool { return os.Getenv("CI") == "true" }

// Missing ends the test: skipped on a laptop, failed under CI.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if CI() {
		t.Fatalf("needed under CI: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Root ends the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "must run as root")
	}
}

// FUSE ends the test unless /dev/fuse can be opened.
func FUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		Missing(t, "no usable /dev/fuse: %v", err)
		return
	}
	_ = f.Close()
}

// Tool ends the test unless name is found on PATH; it returns the path.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed: %v", name, err)
	}
	return path
}

// Env ends the test unless the environment variable is set; it returns its value.
func Env(t testing.TB, name, hint string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		Missing(t, "%s is not set: %s", name, hint)
	}
	return v
}
