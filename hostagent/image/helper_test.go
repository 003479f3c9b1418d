package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// helperMode, if it is set, makes the test binary a process that is going to be
// killed in the middle of what it does.
const helperMode, helperState = "IMAGE_TEST_MODE", "IMAGE_TEST_STATE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperMode); mode != "" {
		fmt.Println("error:", help(mode, NewStore(os.Getenv(helperState))))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// help gets to the middle of what mode says, says so, and stays there.
func help(mode string, s *Store) error {
	ctx := context.Background()
	stay := func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "half"), []byte("half"), 0o600); err != nil {
			fmt.Println("error:", err)
		}
		fmt.Println("ready")
		time.Sleep(time.Hour) // until it is killed
	}
	switch mode {
	case "create":
		_, err := s.Create(ctx, "wine", func(dir string) (Meta, error) { stay(dir); return Meta{}, nil })
		return err
	case "replace":
		i, err := s.Load("wine")
		if err != nil {
			return err
		}
		return s.Replace(ctx, i, func(dir string) (State, error) { stay(dir); return State{}, nil })
	case "suspend": // over and over, the states numbered
		i, err := s.Load("wine")
		if err != nil {
			return err
		}
		fmt.Println("ready")
		for n := 1; ; n++ {
			err := s.Replace(ctx, i, func(dir string) (State, error) {
				version := fmt.Sprint(os.Getpid(), ".", n)
				for _, f := range stateFiles {
					if err := os.WriteFile(filepath.Join(dir, f), []byte(version), 0o600); err != nil {
						return State{}, err
					}
				}
				return State{QEMU: version, Accel: "tcg"}, nil
			})
			if err != nil {
				return err
			}
		}
	default:
		return errors.New(mode)
	}
}

// startHelper starts a process that is in the middle of what mode says, and
// returns how it is killed.
func startHelper(t *testing.T, mode, stateDir string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperMode+"="+mode, helperState+"="+stateDir)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(pipe).ReadString('\n'); line != "ready\n" {
		t.Fatalf("helper said %q: %v", line, err)
	}
	return kill
}

// write makes files with their names as content.
func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// create makes an image that is not suspended.
func create(t *testing.T, s *Store, name string) *Image {
	t.Helper()
	i, err := s.Create(t.Context(), name, func(dir string) (Meta, error) {
		write(t, dir, "controller/vmlinuz", "guest/root.squashfs", "secrets.json")
		return Meta{Guest: "wine", Created: created, MemoryMiB: 1024, CPUs: 1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// suspend gives an image a state, by a QEMU of that version.
func suspend(t *testing.T, s *Store, i *Image, qemu string) {
	t.Helper()
	err := s.Replace(t.Context(), i, func(dir string) (State, error) {
		write(t, dir, "guest.memory", "guest.state")
		return State{QEMU: qemu, Accel: "tcg", Controller: "machine=q35", Guest: "machine=q35\nsmp=1"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ls is the names in a directory but for lock files.
func ls(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "lock") {
			out = append(out, e.Name())
		}
	}
	return out
}

func wantNames(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func wantError(t *testing.T, what string, err, sentinel error, says ...string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("%s: got %v, want one that is %q", what, err, sentinel)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %q does not say %q", what, err, s)
		}
	}
}
