package samba

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

// smbd ends by itself, with a client connected: Done and Err tell, and nothing is
// left of it.
func TestKilled(t *testing.T) {
	for name, sig := range map[string]unix.Signal{"KILL": unix.SIGKILL, "TERM": unix.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			s, c := startReal(t, "SMB3_11")
			hold(t, c)
			helpers(t, c)
			if err := s.Err(); err != nil {
				t.Errorf("Err while it runs: %v", err)
			}
			if err := unix.Kill(s.Pid(), sig); err != nil {
				t.Fatal(err)
			}
			select {
			case <-s.Done():
			case <-time.After(patience):
				t.Fatal("Done isn't closed")
			}
			if err := s.Err(); !errors.Is(err, ErrEnded) {
				t.Errorf("Err: %v", err)
			}
			s.Stop()
			nothingLeft(t, c)
		})
	}
}

func TestStop(t *testing.T) {
	s, c := startReal(t, "SMB3_11")
	hold(t, c)
	helpers(t, c)
	begin := time.Now()
	s.Stop()
	if took := time.Since(begin); took > stopTimeout {
		t.Errorf("Stop took %v", took)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}
	select {
	case <-s.Done():
	default:
		t.Error("Done isn't closed after Stop")
	}
	s.Stop() // again is no harm
	nothingLeft(t, c)
	if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.Port)); err != nil {
		t.Errorf("the port is taken: %v", err)
	} else {
		_ = l.Close()
	}
}

// helpers asks for the list of shares, for which smbd starts helpers.
func helpers(t *testing.T, c Config) {
	t.Helper()
	cmd := smbclient(t.Context(), c, "", login, "--list=127.0.0.1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "one") {
		t.Fatalf("%v: %s", err, out)
	}
	if found := processes(t, c); len(found) < 3 {
		t.Errorf("only these processes belong to smbd:\n%s", strings.Join(found, "\n"))
	}
}

// nothingLeft wants no process that has to do with c's directory.
func nothingLeft(t *testing.T, c Config) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := processes(t, c)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("processes are left:\n%s", strings.Join(left, "\n"))
		}
	}
}

// processes lists the processes, but for clients, that name c's directory on
// their command line or in their environment.
func processes(t *testing.T, c Config) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range dirs {
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		client := strings.HasPrefix(string(comm), "smbclient")
		if !client && (bytes.Contains(cmdline, []byte(c.Dir)) || bytes.Contains(environ, []byte("TEST_SMBD="+c.Dir))) {
			found = append(found, fmt.Sprintf("%s %s %s", dir, bytes.TrimSpace(comm), bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func TestStartFails(t *testing.T) {
	needs.Root(t)
	needs.Tool(t, "smbpasswd")
	log := slog.New(slog.DiscardHandler)
	c := Config{Dir: shortDir(t), Port: 1, MinProtocol: "SMB3_11", User: "no-such-user", Password: "x"}
	if _, err := Start(t.Context(), c, log); err == nil || !strings.Contains(err.Error(), "SMB account no-such-user") {
		t.Errorf("an account without a user: %v", err)
	}
	c.Dir, c.User = filepath.Join(c.Dir, "smb.conf"), smbUser // a file
	if _, err := Start(t.Context(), c, log); err == nil {
		t.Error("a directory that is a file")
	}
	c.Dir = shortDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, c, log); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
}

// An smbd that can't listen ends, and says why.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	needs.Root(t)
	needs.Tool(t, "smbd")
	c := Config{
		Dir: shortDir(t), Interfaces: []string{"127.0.0.1"}, Port: l.Addr().(*net.TCPAddr).Port,
		MinProtocol: "SMB3_11", User: smbUser, Password: password,
	}
	s, err := Start(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	select {
	case <-s.Done():
		if err := s.Err(); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "Address already in use") {
			t.Errorf("%v", err)
		}
	case <-time.After(patience):
		t.Fatal("smbd runs without a port")
	}
}

func TestTail(t *testing.T) {
	w := &tail{max: 10}
	for _, s := range []string{"0123456789", "abc", "", "d"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if w.String() != "456789abcd" {
		t.Errorf("%q", w)
	}
	if _, _ = w.Write(bytes.Repeat([]byte("x"), 100)); w.String() != "xxxxxxxxxx" {
		t.Errorf("%q", w)
	}
}
