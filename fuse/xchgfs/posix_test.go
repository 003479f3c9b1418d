package xchgfs_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// notHere are tests of posixtest that want what the share doesn't promise
// (docs/semantics.md), with the reason.
var notHere = map[string]string{
	"XAttr":               "there are no extended attributes",
	"XAttrLarge":          "there are no extended attributes",
	"FcntlFlockLocksFile": "wants a process's own fcntl locks to exclude each other, which no local file system does",
}

// go-fuse's suite of what POSIX wants, on the real mount.
func TestPosix(t *testing.T) {
	host := t.TempDir()
	dir := startChild(t, host, "")
	names := make([]string, 0, len(posixtest.All))
	for name := range posixtest.All {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if why := notHere[name]; why != "" {
				t.Skip(why)
			}
			sub := filepath.Join(dir, name)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			posixtest.All[name](t, sub)
		})
	}
}
