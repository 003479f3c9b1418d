package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/fsrpc/fsrpctest"
	"winvm/transport/needs"
)

func start(t *testing.T, cfg Config) *FS {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = t.TempDir()
	}
	before := fsrpctest.OpenFiles(t)
	fs, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if after := fsrpctest.OpenFiles(t); after > before {
			t.Errorf("%d descriptors open, %d before", after, before)
		}
	})
	return fs
}

func TestConformance(t *testing.T) {
	fsrpctest.TestTree(t, func(t *testing.T) (fsrpc.Tree, string) {
		fs := start(t, Config{})
		return fs, fs.cfg.Root
	})
}

func TestConformanceTmpfs(t *testing.T) {
	fsrpctest.TestTree(t, func(t *testing.T) (fsrpc.Tree, string) {
		dir := fsrpctest.SmallTmpfs(t, 64<<20)
		return start(t, Config{Root: dir}), dir
	})
}

func TestFullDisk(t *testing.T) {
	dir := fsrpctest.SmallTmpfs(t, 4<<20)
	fsrpctest.TestTreeFull(t, start(t, Config{Root: dir}), dir)
}

func TestNames(t *testing.T) {
	fs := start(t, Config{Names: []string{"Allowed", "late"}})
	ctx, root := t.Context(), fsrpc.RootNode
	for _, n := range []string{"Allowed", "Secret"} {
		if err := os.Mkdir(filepath.Join(fs.cfg.Root, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fs.Lookup(ctx, root, "Allowed"); err != nil {
		t.Error(err)
	}
	_, err := fs.Lookup(ctx, root, "Secret")
	want(t, err, unix.ENOENT, "lookup")
	_, err = fs.Mkdir(ctx, root, "other", 0o755)
	want(t, err, unix.EPERM, "mkdir")
	_, _, err = fs.Create(ctx, root, "other", unix.O_RDWR, 0o644)
	want(t, err, unix.EPERM, "create")
	want(t, fs.Rename(ctx, root, "Secret", root, "late", 0), unix.EPERM, "rename from")
	want(t, fs.Rename(ctx, root, "Allowed", root, "other", 0), unix.EPERM, "rename to")
	want(t, fs.Rmdir(ctx, root, "Secret"), unix.EPERM, "rmdir")
	_, err = fs.RealName(ctx, root, "SECRET")
	want(t, err, unix.ENOENT, "real name")
	if got, err := fs.RealName(ctx, root, "ALLOWED"); got != "Allowed" {
		t.Errorf("real name %q, %v", got, err)
	}
	h, err := fs.Open(ctx, root, unix.O_DIRECTORY)
	want(t, err, 0, "opendir")
	es, err := fs.Readdir(ctx, h, 0, 1000, true)
	if err != nil || len(es) != 1 || es[0].Name != "Allowed" {
		t.Errorf("listing %v, %v", es, err)
	}
	a, err := fs.Mkdir(ctx, root, "late", 0o755)
	want(t, err, 0, "mkdir of an allowed name")
	_, err = fs.Mkdir(ctx, a.Node, "anything", 0o755)
	want(t, err, 0, "mkdir below")
}

func want(t *testing.T, err error, errno unix.Errno, what string) {
	t.Helper()
	if errno == 0 && err == nil {
		return
	}
	if !errors.Is(err, errno) {
		t.Errorf("%s: %v, want %v", what, err, errno)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	fs := start(t, Config{Root: dir, ReadOnly: true})
	ctx, root := t.Context(), fsrpc.RootNode
	a, err := fs.Lookup(ctx, root, "f")
	want(t, err, 0, "lookup")
	for _, flags := range []uint32{unix.O_RDWR, unix.O_WRONLY, unix.O_RDONLY | unix.O_TRUNC} {
		_, err = fs.Open(ctx, a.Node, flags)
		want(t, err, unix.EROFS, "open")
	}
	_, err = fs.Open(ctx, a.Node, unix.O_RDONLY)
	want(t, err, 0, "open for reading")
	_, err = fs.Mkdir(ctx, root, "d", 0o755)
	want(t, err, unix.EROFS, "mkdir")
	_, _, err = fs.Create(ctx, root, "g", unix.O_RDONLY, 0o644)
	want(t, err, unix.EROFS, "create")
	want(t, fs.Unlink(ctx, root, "f"), unix.EROFS, "unlink")
	want(t, fs.Rename(ctx, root, "f", root, "g", 0), unix.EROFS, "rename")
	_, err = fs.Setattr(ctx, a.Node, 0, fsrpc.SetAttr{Valid: fsrpc.SetMode, Mode: 0o777})
	want(t, err, unix.EROFS, "setattr")
}

func TestTooManyNodes(t *testing.T) {
	var logged bytes.Buffer
	fs := start(t, Config{MaxNodes: 10, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(fs.cfg.Root, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, root := t.Context(), fsrpc.RootNode
	h, err := fs.Open(ctx, root, unix.O_DIRECTORY)
	want(t, err, 0, "opendir")
	es, err := fs.Readdir(ctx, h, 0, 1<<20, true)
	if err != nil || len(es) != 50 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	var held []fsrpc.Forget
	for _, e := range es {
		if e.Attr.Node != 0 {
			held = append(held, fsrpc.Forget{Node: e.Attr.Node, Count: 1})
		} else if e.Attr.Mode != unix.S_IFREG || e.Attr.Ino == 0 {
			t.Errorf("entry without a node: %+v", e)
		}
	}
	if len(held) != 4 { // and the root
		t.Errorf("%d nodes held, a listing takes half of 10", len(held)+1)
	}
	for _, e := range es[40:45] { // the other half is for who asks by name
		a, err := fs.Lookup(ctx, root, e.Name)
		want(t, err, 0, "lookup beside a listing")
		held = append(held, fsrpc.Forget{Node: a.Node, Count: 1})
	}
	_, err = fs.Lookup(ctx, root, es[49].Name)
	want(t, err, unix.ENFILE, "lookup")
	_, _, err = fs.Create(ctx, root, "new", unix.O_RDWR, 0o644)
	want(t, err, unix.ENFILE, "create")
	if _, err := os.Lstat(filepath.Join(fs.cfg.Root, "new")); err == nil {
		t.Error("the file was made though there was no node for it")
	}
	if n := strings.Count(logged.String(), "holds more files"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, logged.String())
	}
	want(t, fs.Forget(ctx, held), 0, "forget")
	_, err = fs.Lookup(ctx, root, es[49].Name)
	want(t, err, 0, "lookup after a forget")
}

func TestTooManyHandles(t *testing.T) {
	var logged bytes.Buffer
	fs := start(t, Config{MaxHandles: 5, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	ctx, root := t.Context(), fsrpc.RootNode
	var handles []fsrpc.HandleID
	for i := range 5 {
		_, h, err := fs.Create(ctx, root, fmt.Sprint(i), unix.O_RDWR, 0o644)
		want(t, err, 0, "create")
		handles = append(handles, h)
	}
	_, err := fs.Open(ctx, root, unix.O_DIRECTORY)
	want(t, err, unix.ENFILE, "opendir")
	_, _, err = fs.Create(ctx, root, "new", unix.O_RDWR, 0o644)
	want(t, err, unix.ENFILE, "create")
	if _, err := os.Lstat(filepath.Join(fs.cfg.Root, "new")); err == nil {
		t.Error("the file was made though there was no handle for it")
	}
	want(t, fs.Release(ctx, handles[0]), 0, "release")
	_, err = fs.Open(ctx, root, unix.O_DIRECTORY)
	want(t, err, 0, "opendir after a release")
	if !strings.Contains(logged.String(), "limit=5") {
		t.Errorf("logged %q", logged.String())
	}
	if fs.reserved != 0 {
		t.Errorf("%d reservations left", fs.reserved)
	}
}

// A mount below the root isn't entered.
func TestMountBelow(t *testing.T) {
	needs.Root(t)
	fs := start(t, Config{})
	sub := filepath.Join(fs.cfg.Root, "mnt")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, "size=64k"); err != nil {
		needs.Missing(t, "mount: %v", err)
	}
	defer func() { _ = unix.Unmount(sub, unix.MNT_DETACH) }()
	ctx, root := t.Context(), fsrpc.RootNode
	_, err := fs.Lookup(ctx, root, "mnt")
	want(t, err, unix.EXDEV, "lookup")
	want(t, fs.Rmdir(ctx, root, "mnt"), unix.EBUSY, "rmdir")
	h, err := fs.Open(ctx, root, unix.O_DIRECTORY)
	want(t, err, 0, "opendir")
	es, err := fs.Readdir(ctx, h, 0, 1000, true)
	if err != nil || len(es) != 1 || es[0].Attr.Node != 0 || es[0].Attr.Mode != unix.S_IFDIR {
		t.Errorf("listing %+v, %v", es, err)
	}
}

// Looking up, forgetting and opening the same few files from many goroutines.
func TestForgetRace(t *testing.T) {
	fs := start(t, Config{})
	for i := range 4 {
		if err := os.WriteFile(filepath.Join(fs.cfg.Root, fmt.Sprint(i)), []byte(fmt.Sprint(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				name := fmt.Sprint((i + w) % 4)
				a, err := fs.Lookup(ctx, fsrpc.RootNode, name)
				if err != nil {
					t.Errorf("lookup: %v", err)
					return
				}
				if h, err := fs.Open(ctx, a.Node, unix.O_RDONLY); err != nil {
					t.Errorf("open: %v", err)
				} else {
					buf := make([]byte, 4)
					if n, err := fs.Read(ctx, h, 0, buf); err != nil || string(buf[:n]) != name {
						t.Errorf("file %s reads %q, %v", name, buf[:n], err)
					}
					_ = fs.Release(ctx, h)
				}
				_ = fs.Forget(ctx, []fsrpc.Forget{{Node: a.Node, Count: 1}})
			}
		})
	}
	wg.Wait()
	if len(fs.nodes) != 1 || len(fs.byKey) != 1 || len(fs.handles) != 0 {
		t.Errorf("left: %d nodes, %d keys, %d handles", len(fs.nodes), len(fs.byKey), len(fs.handles))
	}
}

// The error of a close, which the mount side's kernel drops, comes with Sync, once.
func TestSyncTellsLostErrors(t *testing.T) {
	fs := start(t, Config{})
	ctx := t.Context()
	_, h, err := fs.Create(ctx, fsrpc.RootNode, "f", unix.O_RDWR, 0o644)
	want(t, err, 0, "create")
	fs.hmu.Lock()
	_ = unix.Close(fs.handles[h].fd) // so that the close fails
	fs.hmu.Unlock()
	want(t, fs.Release(ctx, h), unix.EBADF, "release")
	want(t, fs.Sync(ctx), unix.EBADF, "sync")
	want(t, fs.Sync(ctx), 0, "sync again")
}

func TestBadRoot(t *testing.T) {
	dir := t.TempDir()
	if _, err := New(Config{Root: filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such directory: %v", err)
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Root: file}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
}

func TestRaiseFileLimit(t *testing.T) {
	if n, err := RaiseFileLimit(); err != nil || n < 256 {
		t.Errorf("%d, %v", n, err)
	}
}
