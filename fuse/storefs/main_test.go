package storefs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/hostagent/hostfs"
	"winvm/transport/fsrpc"
	"winvm/transport/needs"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == scaleArg {
		if err := scaleMount(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == outputsArg {
		if err := outputsMount(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// makeTree makes the files given as path, content in a new directory. A path that
// ends in "/" is a directory, a content that begins with "->" a link's target, one
// that begins with "#!" executable.
func makeTree(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path, content := filepath.Join(dir, files[i]), files[i+1]
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case strings.HasSuffix(files[i], "/"):
			err = os.MkdirAll(path, 0o755)
		case strings.HasPrefix(content, "->"):
			err = os.Symlink(content[2:], path)
		case strings.HasPrefix(content, "#!"):
			err = os.WriteFile(path, []byte(content), 0o755)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newMount(t testing.TB, cfg storefs.Config) *storefs.FS {
	t.Helper()
	needs.FUSE(t)
	cfg.UID, cfg.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	fs, err := storefs.Mount(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closeFS(t, fs)
		wantNoMount(t, fs.Dir())
	})
	return fs
}

func closeFS(t testing.TB, fs *storefs.FS) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := fs.Close(ctx); err != nil {
		t.Error(err)
	}
}

func wantNoMount(t testing.TB, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), " "+dir+" ") {
		t.Errorf("%s is still mounted", dir)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

func setSession(t testing.TB, fs *storefs.FS, store fsrpc.Store, outputs fsrpc.Tree) {
	t.Helper()
	if err := fs.SetSession(t.Context(), store, outputs); err != nil {
		t.Fatal(err)
	}
}

// newOutputs serves a new host directory in which only these names can be made.
func newOutputs(t testing.TB, names ...string) (*hostfs.FS, string) {
	t.Helper()
	dir := t.TempDir()
	tree, err := hostfs.New(hostfs.Config{Root: dir, Names: names})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	return tree, dir
}

func wantErr(t testing.TB, err error, what string, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func wantRead(t testing.TB, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", path, got, err, want)
	}
}

func wantList(t testing.TB, d *os.File, want string) {
	t.Helper()
	if _, err := d.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	entries, err := d.ReadDir(-1)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); err != nil || got != want {
		t.Errorf("listed %q, %v; want %q", got, err, want)
	}
}
