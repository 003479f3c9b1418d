package samba

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// large is how many files the directory has in which names are looked for.
const large = 10_000

// listings tells how often a directory was read, by whomever, since the last call.
type listings struct {
	t    *testing.T
	file *os.File
}

func watchListings(t *testing.T, dir string) *listings {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	l := &listings{t, os.NewFile(uintptr(fd), "inotify")}
	t.Cleanup(func() { _ = l.file.Close() })
	// getdents(2) is IN_ACCESS of the directory itself, without a name.
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_ACCESS|unix.IN_ONLYDIR); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *listings) count() (n int) {
	l.t.Helper()
	buf := make([]byte, 64<<10)
	for {
		got, err := unix.Read(int(l.file.Fd()), buf)
		if err == unix.EAGAIN {
			return n
		}
		if err != nil {
			l.t.Fatal(err)
		}
		for at := 0; at < got; {
			// struct inotify_event: wd, mask, cookie, len; each four bytes.
			mask := uint32(buf[at+4]) | uint32(buf[at+5])<<8 | uint32(buf[at+6])<<16 | uint32(buf[at+7])<<24
			size := int(buf[at+12]) | int(buf[at+13])<<8
			if mask&unix.IN_ISDIR != 0 && size == 0 {
				n++
			}
			at += unix.SizeofInotifyEvent + size
		}
	}
}

// A search for a DLL or a program asks for many names that don't exist, and for
// some in another case. However large the directory is, nobody lists it for that.
func TestMissListsNothing(t *testing.T) {
	fill := func(dir string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range large {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("Library-%d.dll", i)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := startMounted(t, func(m *mounted) {
		fill(filepath.Join(m.hostStore, "a-1", "bin"))
		fill(filepath.Join(m.hostOut, "out", "bin"))
		fill(filepath.Join(m.hostXchg, "bin"))
	})
	for name, at := range map[string]struct{ share, dir string }{
		"nixstore": {shareStore, "a-1/bin"},
		"outputs":  {shareStore, "out/bin"},
		"xchg":     {shareXchg, "bin"},
	} {
		t.Run(name, func(t *testing.T) {
			l := watchListings(t, filepath.Join(m.path(at.share), at.dir))
			probe := func(file string, found bool) {
				t.Helper()
				out, _ := smbclient(t.Context(), m.Config, at.share, login, "--command",
					`allinfo "`+strings.ReplaceAll(at.dir, "/", `\`)+`\`+file+`"`).CombinedOutput()
				if strings.Contains(string(out), "NT_STATUS_OBJECT_NAME_NOT_FOUND") == found || strings.Contains(string(out), "create_time") != found {
					t.Errorf("%s: found should be %v: %s", file, found, out)
				}
			}
			for i := range 3 {
				probe(fmt.Sprintf("nosuch-%d.dll", i), false)
				probe(fmt.Sprintf("LIBRARY-%d.DLL", i), true)
			}
			probe("Library-7.dll", true)
			if n := l.count(); n != 0 {
				t.Errorf("the directory was read %d times for single names", n)
			}
			run(t, m.Config, at.share, `cd "`+strings.ReplaceAll(at.dir, "/", `\`)+`"; ls library-77.*`)
			if l.count() == 0 {
				t.Error("a listing wasn't seen: this test sees nothing")
			}
		})
	}
}
