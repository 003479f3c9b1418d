package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is a pseudo-terminal with hostagent at its other end.
type terminal struct {
	*run
	master *os.File
	slave  *os.File // kept open: its settings outlive hostagent
	seen   *liveBuffer
}

// startShell starts `hostagent shell` at a terminal of 100 columns and 30 lines.
func (e *env) startShell(args ...string) *terminal {
	e.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(e.t, err)
	must(e.t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(e.t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(e.t, err)
	e.t.Cleanup(func() {
		_ = master.Close()
		_ = slave.Close()
	})
	term := &terminal{master: master, slave: slave, seen: newLiveBuffer()}
	term.resize(100, 30)
	term.run = e.startAs(func(c *exec.Cmd) {
		c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		c.Env = append(os.Environ(), "TERM=xterm")
	}, append([]string{"--quiet", "shell", "--store", e.store}, args...)...)
	go func() { // ends when the terminal is closed
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = term.seen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	return term
}

func (x *terminal) resize(cols, rows uint16) {
	_ = unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
}

func (x *terminal) settings() unix.Termios {
	x.e.t.Helper()
	s, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
	must(x.e.t, err)
	return *s
}

// text is what came since the last send, without escape sequences.
func (x *terminal) text() string {
	var b strings.Builder
	s := x.seen.String()
	for i := 0; i < len(s); i++ {
		if s[i] != 0x1b {
			b.WriteByte(s[i])
			continue
		}
		for i++; i < len(s) && (s[i] == '[' || s[i] == '?' || s[i] == ';' || s[i] >= '0' && s[i] <= '9'); i++ {
		}
	}
	return b.String()
}

// send types, and waits until the screen shows want.
func (x *terminal) send(keys, want string) {
	x.e.t.Helper()
	x.seen.mu.Lock()
	x.seen.buf.Reset()
	x.seen.mu.Unlock()
	_, err := x.master.WriteString(keys)
	must(x.e.t, err)
	x.shows(want)
}

func (x *terminal) shows(want string) {
	x.e.t.Helper()
	for end := time.Now().Add(40 * time.Second); !strings.Contains(x.text(), want); time.Sleep(20 * time.Millisecond) {
		select {
		case <-x.done:
			x.e.t.Fatalf("the shell ended, and the screen lacks %q:\n%q", want, x.seen)
		default:
		}
		if time.Now().After(end) {
			x.e.t.Fatalf("the screen lacks %q:\n%q", want, x.seen)
		}
	}
}

// An interactive session: a prompt, an answer, the window's size, Ctrl-C, the exit
// status; and the terminal is as it was.
func TestShell(t *testing.T) {
	e := newEnv(t)
	x := e.startShell()
	before := x.settings()
	x.shows(`Administrator>`)
	if raw := x.settings(); raw.Lflag&unix.ECHO != 0 || raw.Lflag&unix.ISIG != 0 {
		t.Error("the terminal is not raw while the shell runs")
	}
	x.send("echo %OS%\r", "Windows_NT")
	x.send("dir /b S:\\\r", "tool")
	x.send("S:\\tool\\tool.exe screen\r", "100x30")
	// Wine's console keeps the size it was born with; the guest's terminal does not.
	x.resize(133, 44)
	time.Sleep(500 * time.Millisecond)
	x.send(`start /unix /bin/sh -c "cd /run/winvm/unc/192.168.0.2/xchg && stty -F /dev/pts/0 size >s && mv s size"& S:\tool\tool.exe await X:\size 20000`+"\r", "44 133")

	x.send("S:\\tool\\tool.exe lines 1000 200\r", "out 2")
	x.send("\x03", `Administrator>`)
	x.send("echo still %OS%\r", "still Windows_NT")

	_, err := x.master.WriteString("exit 5\r")
	must(t, err)
	x.wait()
	if x.status() != 5 {
		t.Errorf("exit status %d, want 5; the screen: %q", x.status(), x.seen)
	}
	if after := x.settings(); after != before {
		t.Errorf("the terminal's settings were %+v and are %+v", before, after)
	}
}

// Ctrl-C before the command is there ends hostagent: the terminal is made raw no
// earlier.
func TestShellInterruptedEarly(t *testing.T) {
	e := newEnv(t)
	x := e.startShell()
	before := x.settings()
	must(t, syscall.Kill(e.qemu("controller"), syscall.SIGSTOP)) // now it can't get ready
	if s := x.settings(); s.Lflag&unix.ISIG == 0 {
		t.Error("the terminal is raw before the pair is ready")
	}
	_, err := x.master.WriteString("\x03")
	must(t, err)
	x.wait()
	if x.status() != 130 {
		t.Errorf("exit status %d, want 130; the screen: %q", x.status(), x.seen)
	}
	if after := x.settings(); after != before {
		t.Errorf("the terminal's settings were %+v and are %+v", before, after)
	}
}

// hostagent ended by a signal while it has the terminal gives it back, too.
func TestShellTerminated(t *testing.T) {
	e := newEnv(t)
	x := e.startShell()
	before := x.settings()
	x.shows(`Administrator>`)
	must(t, x.cmd.Process.Signal(syscall.SIGTERM))
	x.wait()
	if x.status() != 130 {
		t.Errorf("exit status %d, want 130", x.status())
	}
	if after := x.settings(); after != before {
		t.Errorf("the terminal's settings were %+v and are %+v", before, after)
	}
}

// Without a terminal a shell is a command with standard input.
func TestShellCommand(t *testing.T) {
	e := newEnv(t)
	r := e.startAs(func(c *exec.Cmd) { c.Stdin = strings.NewReader("one\r\ntwo\r\n") },
		"--quiet", "shell", "--store", e.store, "--", toolPath, "cat", "&", "exit", "6")
	r.wait()
	r.wants(6)
	r.says("one\ntwo\n")
}
