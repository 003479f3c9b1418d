package hostfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

func benchFS(b *testing.B, files int) *FS {
	dir := b.TempDir()
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i)), []byte("x"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	fs, err := New(Config{Root: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = fs.Close() })
	return fs
}

func BenchmarkLookupForget(b *testing.B) {
	fs := benchFS(b, 1)
	for b.Loop() {
		a, err := fs.Lookup(b.Context(), fsrpc.RootNode, "file-0")
		if err != nil {
			b.Fatal(err)
		}
		_ = fs.Forget(b.Context(), []fsrpc.Forget{{Node: a.Node, Count: 1}})
	}
}

func BenchmarkReaddirAttrs(b *testing.B) {
	fs := benchFS(b, 1000)
	ctx := b.Context()
	for b.Loop() {
		h, err := fs.Open(ctx, fsrpc.RootNode, unix.O_DIRECTORY)
		if err != nil {
			b.Fatal(err)
		}
		var forget []fsrpc.Forget
		for off := uint64(0); ; {
			es, err := fs.Readdir(ctx, h, off, fsrpc.MaxListing, true)
			if err != nil {
				b.Fatal(err)
			}
			if len(es) == 0 {
				break
			}
			for _, e := range es {
				forget = append(forget, fsrpc.Forget{Node: e.Attr.Node, Count: 1})
			}
			off = es[len(es)-1].Next
		}
		_ = fs.Forget(ctx, forget)
		_ = fs.Release(ctx, h)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/entry")
}

func BenchmarkRealNameMiss(b *testing.B) {
	fs := benchFS(b, 10000)
	for b.Loop() {
		if _, err := fs.RealName(b.Context(), fsrpc.RootNode, "NONE"); !errors.Is(err, unix.ENOENT) {
			b.Fatal(err)
		}
	}
}
