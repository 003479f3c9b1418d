package fsrpc_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/hostagent/hostfs"
	"winvm/hostagent/nixstore"
	"winvm/transport/fsrpc"
	"winvm/transport/fsrpc/fsrpctest"
)

// open exports dir and returns a client of it.
func open(t testing.TB, link string, dir string) *fsrpc.TreeClient {
	t.Helper()
	fs, err := hostfs.New(hostfs.Config{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return treeOver(t, links[link], fs)
}

func TestTree(t *testing.T) {
	for link := range links {
		t.Run(link, func(t *testing.T) {
			fsrpctest.TestTree(t, func(t *testing.T) (fsrpc.Tree, string) {
				dir := t.TempDir()
				return open(t, link, dir), dir
			})
		})
	}
}

func TestTreeFull(t *testing.T) {
	dir := fsrpctest.SmallTmpfs(t, 4<<20)
	fsrpctest.TestTreeFull(t, open(t, "socketpair", dir), dir)
}

func TestStore(t *testing.T) {
	for link := range links {
		t.Run(link, func(t *testing.T) {
			fsrpctest.TestStore(t, func(t *testing.T, dir string, names []string) fsrpc.Store {
				s, err := nixstore.New(dir, names)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				return storeOver(t, links[link], s)
			})
		})
	}
}

// A listing with attributes of very many short names comes in frames that fit,
// complete, and asks for as much as can be asked for.
func TestLargeListing(t *testing.T) {
	const files = 5000
	dir := t.TempDir()
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%x", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, "socketpair", dir)
	ctx := t.Context()
	for _, limit := range []int{5000, fsrpc.MaxListing, 1 << 30} {
		h, err := c.Open(ctx, fsrpc.RootNode, unix.O_DIRECTORY)
		if err != nil {
			t.Fatal(err)
		}
		seen, rounds := map[string]bool{}, 0
		for off := uint64(0); ; rounds++ {
			list, err := c.Readdir(ctx, h, off, limit, true)
			if err != nil {
				t.Fatalf("limit %d: %v", limit, err)
			}
			if len(list) == 0 {
				break
			}
			size := 0
			var forget []fsrpc.Forget
			for _, e := range list {
				size += fsrpc.EntryOverhead + len(e.Name)
				if seen[e.Name] || e.Attr.Node == 0 || e.Attr.Mode&unix.S_IFMT != unix.S_IFREG {
					t.Fatalf("entry %+v", e)
				}
				seen[e.Name] = true
				off = e.Next
				forget = append(forget, fsrpc.Forget{Node: e.Attr.Node, Count: 1})
			}
			if len(list) > 1 && size > min(limit, fsrpc.MaxListing) {
				t.Fatalf("%d bytes of entries where %d were asked for", size, limit)
			}
			if err := c.Forget(ctx, forget); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != files {
			t.Errorf("limit %d: %d names", limit, len(seen))
		}
		t.Logf("limit %d: %d round trips", limit, rounds)
		if err := c.Release(ctx, h); err != nil {
			t.Error(err)
		}
	}
}
