package build

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/hostagent/hostfs"
	"winvm/transport/fsrpc"
)

// Who has a file of an output open, or its directory, changes nothing after the seal; who
// was at it is waited for.
func TestSeal(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	for name, text := range map[string]string{"file": "what was built", "other": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := hostfs.New(hostfs.Config{Root: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fs.Close() }()
	slow := &slowTree{Tree: fs, begun: make(chan struct{}), goOn: make(chan struct{})}
	tree := &sealedTree{Tree: slow}
	file, err := tree.Lookup(ctx, fsrpc.RootNode, "file")
	if err != nil {
		t.Fatal(err)
	}
	h, err := tree.Open(ctx, file.Node, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}

	wrote, sealed := make(chan error), make(chan struct{})
	go func() {
		_, err := tree.Write(ctx, h, 0, []byte("W"))
		wrote <- err
	}()
	<-slow.begun
	go func() { tree.seal(); close(sealed) }()
	select {
	case <-sealed:
		t.Error("sealed while a write was at work")
	default:
	}
	close(slow.goOn)
	if err := <-wrote; err != nil {
		t.Errorf("the write before the seal: %v", err)
	}
	<-sealed

	changes := map[string]func() error{
		"write": func() error { _, err := tree.Write(ctx, h, 0, []byte("X")); return err },
		"setattr": func() error {
			_, err := tree.Setattr(ctx, file.Node, h, fsrpc.SetAttr{Valid: fsrpc.SetSize})
			return err
		},
		"truncate":  func() error { _, err := tree.Open(ctx, file.Node, unix.O_RDWR|unix.O_TRUNC); return err },
		"fallocate": func() error { return tree.Fallocate(ctx, h, 0, 0, 1<<20) },
		"create": func() error {
			_, _, err := tree.Create(ctx, fsrpc.RootNode, "new", unix.O_RDWR|unix.O_CREAT, 0o644)
			return err
		},
		"mkdir":   func() error { _, err := tree.Mkdir(ctx, fsrpc.RootNode, "new", 0o755); return err },
		"symlink": func() error { _, err := tree.Symlink(ctx, fsrpc.RootNode, "new", "file"); return err },
		"link":    func() error { _, err := tree.Link(ctx, file.Node, fsrpc.RootNode, "new"); return err },
		"rename": func() error {
			return tree.Rename(ctx, fsrpc.RootNode, "other", fsrpc.RootNode, "new", 0)
		},
		"unlink": func() error { return tree.Unlink(ctx, fsrpc.RootNode, "other") },
		"rmdir":  func() error { return tree.Rmdir(ctx, fsrpc.RootNode, "other") },
	}
	for name, do := range changes {
		if err := do(); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s after the seal: %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("there are %v, %v", entries, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); string(b) != "What was built" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	buf := make([]byte, 4)
	if n, err := tree.Read(ctx, h, 0, buf); n != 4 || err != nil {
		t.Errorf("read after the seal: %d, %v", n, err)
	}
	tree.unseal()
	if err := changes["unlink"](); err != nil {
		t.Errorf("unsealed: %v", err)
	}
}

// A slowTree holds its first write up.
type slowTree struct {
	fsrpc.Tree
	begun, goOn chan struct{}
}

func (t *slowTree) Write(ctx context.Context, h fsrpc.HandleID, off uint64, data []byte) (int, error) {
	close(t.begun)
	<-t.goOn
	return t.Tree.Write(ctx, h, off, data)
}
