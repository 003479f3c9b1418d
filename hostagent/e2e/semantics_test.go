package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// linuxNames are names of files on the host: one that Windows can have, and such as
// it can't, which come to the guest with names that it can.
var linuxNames = []string{"plain.txt", "trailing dot.", "trailing space ", "aux", "con.txt", "a:b", "what?", `back\slash`, "star*", "less<more>"}

// What Windows programs rely on holds on xchg: testdata/share.c.
func TestWindowsSemantics(t *testing.T) {
	e := newEnv(t)
	writeFile(t, filepath.Join(e.store, "share", "share.exe"), program(t, "share.c"))
	for _, n := range linuxNames {
		writeFile(t, e.path("x", "linux", n), "from linux")
	}
	must(t, os.Mkdir(e.path("x", "dir"), 0o755))
	r := e.build("--xchg", e.path("x"), "--", `S:\share\share.exe`, `X:\dir`, `X:\linux`)
	r.wants(0)
	r.says(fmt.Sprintf("%d files from linux\n", len(linuxNames)))
	at := func(name string) string { return e.path("x", "dir", name) }
	// Case is kept as the guest made it, and what is a hole there is one here.
	for _, f := range []string{"CamelCase.Txt", "missing too", "Dir", "huge", "stamp"} {
		if !exists(at(f)) {
			t.Errorf("the host has no %s", f)
		}
	}
	// The read-only attribute is the owner's w bit, the archive attribute his x bit.
	for f, mode := range map[string]os.FileMode{"guarded": 0o544, "CamelCase.Txt": 0o744} {
		if info, err := os.Stat(at(f)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v instead of %v, %v", f, info.Mode(), mode, err)
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat(at("huge"), &st))
	if st.Size != 3<<30 || st.Blocks*512 > 64<<20 {
		t.Errorf("the file with a hole has %d bytes on %d of disk", st.Size, st.Blocks*512)
	}
}

// What a Windows program makes bears the guest's clock, however soon after it the command
// ends.
func TestGuestsClock(t *testing.T) {
	e := newEnv(t)
	must(t, os.Mkdir(e.path("x"), 0o755))
	e.build("--xchg", e.path("x"), "--", "cmd", "/c", `for /l %i in (1,1,40) do @echo x>X:\f%i`).wants(0)
	for i := range 40 {
		info, err := os.Stat(e.path("x", fmt.Sprintf("f%d", i+1)))
		must(t, err)
		if info.ModTime().Sub(guestEpoch) > time.Hour {
			t.Errorf("%s is of %v", info.Name(), info.ModTime())
		}
	}
}
