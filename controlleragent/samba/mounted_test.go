package samba

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/controlleragent/mounts"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/nixstore"
	"winvm/transport/fsrpc"
	"winvm/transport/needs"
)

// The shares of a mounted server, as in the controller VM, and one of a plain
// directory beside them, to compare with.
const (
	shareStore = "nixstore"
	shareXchg  = "xchg"
	sharePlain = "plain"
)

// A mounted is what startMounted made.
type mounted struct {
	Config
	hostStore, hostOut, hostXchg string // directories of the host
	plain                        string
}

// path is where a share's directory is mounted.
func (m *mounted) path(share string) string {
	for _, s := range m.Shares {
		if s.Name == share {
			return s.Path
		}
	}
	return ""
}

// startMounted runs an smbd on the real mounts of a store and an xchg, which are
// served by the host agent's file systems in this process. prepare fills the
// host's directories. Nothing of the mounts may be mapped or executed here.
func startMounted(t *testing.T, prepare func(m *mounted)) *mounted {
	t.Helper()
	needs.Root(t)
	needs.FUSE(t)
	dir := shortDir(t)
	sub := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	m := &mounted{hostStore: sub("host-store"), hostOut: sub("host-out"), hostXchg: sub("host-xchg"), plain: sub("plain")}
	chown(t, m.plain)
	if prepare != nil {
		prepare(m)
	}
	log := slog.New(slog.DiscardHandler)
	fs, err := mounts.Mount(mounts.Config{StoreDir: sub("store"), XchgDir: sub("xchg"), User: smbUser}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		fs.Detach()
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := fs.Attach(t.Context(), m.serve(t, log)); err != nil {
		t.Fatal(err)
	}
	shares := []Share{
		{Name: shareStore, Path: filepath.Join(dir, "store")},
		{Name: shareXchg, Path: filepath.Join(dir, "xchg"), ReadOnlyAttribute: true},
		{Name: sharePlain, Path: m.plain, ReadOnlyAttribute: true},
	}
	_, m.Config = startShares(t, "SMB3_11", shares)
	return m
}

// serve serves the host's directories over connections, as to another machine.
func (m *mounted) serve(t *testing.T, log *slog.Logger) (s mounts.Shares) {
	t.Helper()
	entries, err := os.ReadDir(m.hostStore)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	store, err := nixstore.New(m.hostStore, names)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if s.Store, err = fsrpc.AttachStore(t.Context(), served(t, func(ctx context.Context, c net.Conn) {
		_ = fsrpc.ServeStore(ctx, c, store, log)
	})); err != nil {
		t.Fatal(err)
	}
	tree := func(cfg hostfs.Config) *fsrpc.TreeClient {
		fs, err := hostfs.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = fs.Close() })
		c, err := fsrpc.AttachTree(t.Context(), served(t, func(ctx context.Context, c net.Conn) {
			_ = fsrpc.ServeTree(ctx, c, fs, log)
		}))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s.Outputs = tree(hostfs.Config{Root: m.hostOut, Names: []string{"out"}, Logger: log})
	s.Xchg = tree(hostfs.Config{Root: m.hostXchg, Logger: log})
	return s
}

// served runs a server on one end of a connection until the test ends, and
// returns the other.
func served(t *testing.T, serve func(context.Context, net.Conn)) net.Conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "share")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(ctx, ends[0])
	}()
	t.Cleanup(func() {
		_ = ends[1].Close()
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("the share's server doesn't end")
		}
	})
	return ends[1]
}
