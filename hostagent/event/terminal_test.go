package event

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pty opens a pseudo terminal of 40 columns.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 10, Col: 40}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// told is what a stage that is too long and a warning look like on w, read from r.
func told(t *testing.T, r, w *os.File) string {
	t.Helper()
	rep := NewReporter(Text(w, false))
	rep.Stage("revive", "a\nb %s", strings.Repeat("ä", 60))
	rep.Tell(KindWarning, "full")
	b := make([]byte, 4096)
	n, err := r.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(string(b[:n]), "full") {
		m, err := r.Read(b[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	return string(b[:n])
}

func TestTerminal(t *testing.T) {
	for _, c := range []struct {
		noColour, term string
		colours        bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", c.noColour)
		t.Setenv("TERM", c.term)
		master, slave := pty(t)
		got := told(t, master, slave)
		if strings.Contains(got, "\x1b[") != c.colours {
			t.Errorf("%+v: %q", c, got)
		}
		plain := strings.NewReplacer("\x1b[2m", "", "\x1b[33m", "", "\x1b[0m", "").Replace(got)
		line, _, _ := strings.Cut(plain, "\r\n")
		if n := len([]rune(line)); n != 40 || !strings.HasSuffix(line, "ä...") || !strings.Contains(line, "revive: a b ä") {
			t.Errorf("%+v: %d columns: %q", c, n, line)
		}
	}
}

func TestPipeIsPlain(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if got := told(t, r, w); strings.Contains(got, "\x1b") || !strings.Contains(got, strings.Repeat("ä", 60)) {
		t.Errorf("%q", got)
	}
}
