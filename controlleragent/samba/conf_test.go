package samba

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"winvm/transport/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the files of testdata anew")

// configs are those that the golden files are made of.
func configs() map[string]Config {
	c := Config{
		Dir: "/run/smb", Port: 445, MinProtocol: "SMB3_11", User: "build", Password: "secret",
		Shares: []Share{{Name: "nixstore", Path: "/nix/store"}, {Name: "xchg", Path: "/xchg", ReadOnlyAttribute: true}},
	}
	xp := c
	xp.MinProtocol, xp.Port, xp.Interfaces = "NT1", 1445, []string{"192.168.0.2", "fd00::2"}
	return map[string]Config{"smb3_11.conf": c, "nt1.conf": xp}
}

func TestRender(t *testing.T) {
	for name, c := range configs() {
		got := Render(c)
		if strings.Contains(got, c.Password) {
			t.Errorf("%s holds the password", name)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s is different now; if that is meant, run the test with -update. Got:\n%s", path, got)
		}
	}
}

// Samba's own checker finds nothing to say about it, and every setting arrives.
func TestTestparm(t *testing.T) {
	testparm := needs.Tool(t, "testparm")
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			c.Dir = shortDir(t)
			if err := makeDirs(c.Dir); err != nil {
				t.Fatal(err)
			}
			conf := filepath.Join(c.Dir, "smb.conf")
			if err := os.WriteFile(conf, []byte(Render(c)), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(testparm, "-s", "-v", conf)
			var said bytes.Buffer
			cmd.Stderr = &said
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &said)
			}
			for line := range strings.Lines(said.String()) {
				switch line = strings.TrimSpace(line); {
				case line == "", strings.HasPrefix(line, "Load smb config files from"),
					line == "Loaded services file OK.", line == "Server role: ROLE_STANDALONE",
					strings.HasPrefix(line, "Weak crypto is"): // the machine's, always said
				default:
					t.Errorf("testparm: %s", line)
				}
			}
			lowest := strings.TrimSuffix(c.MinProtocol, "_11") // testparm's name for it
			for _, want := range []string{"server min protocol = " + lowest + "\n", "map to guest = Never", "vfs objects = glusterfs_fuse", "[nixstore]", "[xchg]"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("testparm doesn't see %q", want)
				}
			}
		})
	}
}

// shortDir is t.TempDir with a path that leaves room for the names of sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // the SMB user passes through it
		t.Fatal(err)
	}
	return dir
}
