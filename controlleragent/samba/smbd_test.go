package samba

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

const (
	smbUser  = "daemon" // a system account that no machine is without
	password = "correct horse"
	patience = 60 * time.Second
)

// startReal runs an smbd on a port of its own, with the shares "one" and "two".
func startReal(t *testing.T, minProtocol string) (*Server, Config) {
	t.Helper()
	needs.Root(t) // smbd becomes the account's user
	var shares []Share
	for _, name := range []string{"one", "two"} {
		dir := filepath.Join(shortDir(t), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		chown(t, dir)
		shares = append(shares, Share{Name: name, Path: dir})
	}
	return startShares(t, minProtocol, shares)
}

// startShares is startReal with other shares.
func startShares(t *testing.T, minProtocol string, shares []Share) (*Server, Config) {
	t.Helper()
	for _, tool := range []string{"smbd", "smbpasswd", "smbclient", "smbstatus"} {
		needs.Tool(t, tool)
	}
	c := Config{
		Dir: shortDir(t), Interfaces: []string{"127.0.0.1"}, Port: freePort(t),
		MinProtocol: minProtocol, User: smbUser, Password: password, Shares: shares,
	}
	t.Setenv("TEST_SMBD", c.Dir) // by which its helpers are known
	s, err := Start(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("smbd said:\n%s", s.out)
		}
	})
	eventually(t, "smbd doesn't listen", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.Port))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return s, c
}

func chown(t *testing.T, path string) {
	t.Helper()
	u, err := user.Lookup(smbUser)
	if err != nil {
		needs.Missing(t, "%v", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// smbclient makes the command that runs commands on a share.
func smbclient(ctx context.Context, c Config, share, login string, args ...string) *exec.Cmd {
	args = append([]string{
		"//127.0.0.1/" + share, "--port", strconv.Itoa(c.Port), "--configfile=/dev/null",
		"--user", login, "--option=client min protocol=NT1",
	}, args...)
	cmd := exec.CommandContext(ctx, "smbclient", args...)
	cmd.Env = append(os.Environ(), "HOME=/nonexistent", "LC_ALL=C.UTF-8")
	return cmd
}

const login = smbUser + "%" + password

// run runs smbclient and wants it to succeed.
func run(t *testing.T, c Config, share, commands string, args ...string) string {
	t.Helper()
	out, err := smbclient(t.Context(), c, share, login, append(args, "--command", commands)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "NT_STATUS_") {
		t.Fatalf("%s: %v: %s", commands, err, out)
	}
	return string(out)
}

func TestPutGet(t *testing.T) {
	_, c := startReal(t, "SMB3_11")
	data := make([]byte, 3<<20+1)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	local := t.TempDir()
	from, to := filepath.Join(local, "from"), filepath.Join(local, "to")
	if err := os.WriteFile(from, data, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, share := range c.Shares {
		run(t, c, share.Name, fmt.Sprintf(`mkdir "Sub Dir"; put %s "Sub Dir\File.bin"; get "sub dir\FILE.BIN" %s`, from, to), "--client-protection=sign")
		for _, path := range []string{to, filepath.Join(share.Path, "Sub Dir", "File.bin")} {
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d of %d bytes, %v", path, len(got), len(data), err)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(share.Path, "Sub Dir", "File.bin"), &st); err != nil || st.Uid == 0 {
			t.Errorf("the file belongs to %d, %v", st.Uid, err)
		}
	}
}

// While a client is connected smbstatus shows it: signed, with the dialect that
// the profile wants.
func TestSessionIsSigned(t *testing.T) {
	s, c := startReal(t, "SMB3_11")
	hold(t, c)
	status, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"SMB3_11"`, `"` + smbUser + `"`, `"one"`} {
		if !strings.Contains(status, want) {
			t.Errorf("smbstatus doesn't show %s: %s", want, status)
		}
	}
	if !strings.Contains(status, "AES-128-GMAC") && !strings.Contains(status, "AES-128-CMAC") {
		t.Errorf("the session isn't signed: %s", status)
	}
}

// hold keeps a client connected to the share "one" until the test ends.
func hold(t *testing.T, c Config) {
	t.Helper()
	cmd := smbclient(t.Context(), c, "one", login)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	marker := filepath.Join(c.Shares[0].Path, "connected")
	if _, err := fmt.Fprintln(in, "mkdir connected"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "smbclient doesn't connect", func() bool {
		_, err := os.Stat(marker)
		return err == nil
	})
}

func TestLowestDialect(t *testing.T) {
	for _, tt := range []struct {
		min     string
		dialect string
		works   bool
	}{
		{"SMB3_11", "SMB3_11", true},
		{"SMB3_11", "SMB3_02", false},
		{"SMB3_11", "SMB2_10", false},
		{"SMB3_11", "NT1", false},
		{"NT1", "NT1", true},
		{"NT1", "SMB2_02", true},
		{"NT1", "SMB3_11", true},
	} {
		t.Run(tt.min+" "+tt.dialect, func(t *testing.T) {
			_, c := startReal(t, tt.min)
			out, err := smbclient(t.Context(), c, "one", login, "--max-protocol="+tt.dialect, "--command", "mkdir d").CombinedOutput()
			_, made := os.Stat(filepath.Join(c.Shares[0].Path, "d"))
			if (err == nil && made == nil) != tt.works {
				t.Errorf("%v, %v: %s", err, made, out)
			}
		})
	}
}

// Who doesn't have the password gets nothing: no guest, no list of shares.
func TestRefused(t *testing.T) {
	for _, min := range []string{"SMB3_11", "NT1"} {
		t.Run(min, func(t *testing.T) {
			_, c := startReal(t, min)
			for _, who := range []string{smbUser + "%wrong", smbUser + "%", "%", "guest%", "nobody%", "root%" + password, "Administrator%" + password} {
				for _, args := range [][]string{{"one"}, {"IPC$"}, {"one", "--max-protocol=NT1"}} {
					out, err := smbclient(t.Context(), c, args[0], who, append(args[1:], "--command", "mkdir d; ls")...).CombinedOutput()
					if err == nil {
						t.Errorf("%s may connect to %s: %s", who, args, out)
					}
				}
			}
			if names, err := os.ReadDir(c.Shares[0].Path); err != nil || len(names) != 0 {
				t.Errorf("the share holds %v, %v", names, err)
			}
			run(t, c, "one", "ls") // after all of that
		})
	}
}

// A link that leads out of a share isn't followed, one within it is.
func TestLinks(t *testing.T) {
	_, c := startReal(t, "SMB3_11")
	dir := c.Shares[0].Path
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "inside"), "inside")
	write(filepath.Join(filepath.Dir(dir), "outside"), "outside")
	for link, target := range map[string]string{"in": filepath.Join(dir, "inside"), "rel": "inside", "out": filepath.Join(filepath.Dir(dir), "outside"), "up": "../outside"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	local := t.TempDir()
	for link, works := range map[string]bool{"in": true, "rel": true, "out": false, "up": false} {
		to := filepath.Join(local, link)
		out, _ := smbclient(t.Context(), c, "one", login, "--command", "get "+link+" "+to).CombinedOutput()
		got, err := os.ReadFile(to)
		if works && string(got) != "inside" || !works && err == nil {
			t.Errorf("%s: %q, %v: %s", link, got, err, out)
		}
	}
}
