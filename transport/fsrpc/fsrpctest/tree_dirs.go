package fsrpctest

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

func fill(x tr, n int) map[string]bool {
	want := map[string]bool{}
	for i := range n {
		name := fmt.Sprintf("file-%d-%s", i, strings.Repeat("x", i%60))
		ok(x, os.WriteFile(x.h(name), nil, 0o644), "write")
		want[name] = true
	}
	return want
}

func treeReaddir(x tr) {
	h := x.open(fsrpc.RootNode, unix.O_DIRECTORY)
	if es := x.list(h, 4096, false); len(es) != 0 {
		x.Errorf("an empty directory lists %v", es)
	}
	x.release(h)
	want := fill(x, 2000)
	h = x.open(fsrpc.RootNode, unix.O_DIRECTORY)
	for _, limit := range []int{1, 100, 5000, fsrpc.MaxListing, 1 << 30} {
		es := x.list(h, limit, false)
		if len(es) != len(want) {
			x.Errorf("limit %d: %d names, want %d", limit, len(es), len(want))
		}
		for _, e := range es {
			if !want[e.Name] || e.Attr.Mode != unix.S_IFREG || e.Attr.Ino == 0 || e.Attr.Node != 0 {
				x.Fatalf("limit %d: %+v", limit, e)
			}
		}
	}
	all := x.list(h, 1<<30, false)
	for _, i := range []int{0, 1, 999, 1998} {
		es, err := x.fs.Readdir(x.ctx(), h, all[i].Next, 100, false)
		if err != nil || len(es) == 0 || es[0].Name != all[i+1].Name {
			x.Errorf("after entry %d: %v, %v; want %s", i, es, err, all[i+1].Name)
		}
	}
	if es, err := x.fs.Readdir(x.ctx(), h, all[1999].Next, 100, false); err != nil || len(es) != 0 {
		x.Errorf("after the last: %v, %v", es, err)
	}
	x.release(h)
	f := x.open(x.lookup(fsrpc.RootNode, all[0].Name).Node, unix.O_RDONLY)
	_, err := x.fs.Readdir(x.ctx(), f, 0, 100, false)
	wantErr(x, err, "readdir of a file", unix.ENOTDIR)
	x.release(f)
}

func treeReaddirAttrs(x tr) {
	want := fill(x, 300)
	ok(x, os.Mkdir(x.h("dir"), 0o755), "mkdir")
	ok(x, os.Symlink("t", x.h("link")), "symlink")
	want["dir"], want["link"] = true, true
	h := x.open(fsrpc.RootNode, unix.O_DIRECTORY)
	var forget []fsrpc.Forget
	es := x.list(h, 5000, true)
	for _, e := range es {
		if !want[e.Name] {
			x.Errorf("listing shows %q", e.Name)
		}
		x.same(e.Attr, e.Name)
		forget = append(forget, fsrpc.Forget{Node: e.Attr.Node, Count: 1})
	}
	if len(es) != len(want) {
		x.Errorf("%d entries, want %d", len(es), len(want))
	}
	// The listing took one reference each, no more.
	first := es[0].Attr.Node
	if a := x.lookup(fsrpc.RootNode, es[0].Name); a.Node != first {
		x.Errorf("node %d, then %d", first, a.Node)
	}
	ok(x, x.fs.Forget(x.ctx(), forget), "forget all")
	_, err := x.fs.Getattr(x.ctx(), first, fsrpc.NoHandle)
	ok(x, err, "getattr of what was looked up too")
	eventually(x, settle, func() string {
		if _, err := x.fs.Getattr(x.ctx(), es[1].Attr.Node, fsrpc.NoHandle); err == nil {
			return "a forgotten node answers"
		}
		return ""
	})
	x.release(h)
}

// One handle, many readers, each at its own place.
func treeReaddirParallel(x tr) {
	want := fill(x, 500)
	h := x.open(fsrpc.RootNode, unix.O_DIRECTORY)
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			seen, off := 0, uint64(0)
			for {
				es, err := x.fs.Readdir(x.ctx(), h, off, 400*(w+1), false)
				if err != nil {
					x.Errorf("readdir: %v", err)
					return
				}
				if len(es) == 0 {
					break
				}
				for _, e := range es {
					if want[e.Name] {
						seen++
					}
				}
				off = es[len(es)-1].Next
			}
			if seen != len(want) {
				x.Errorf("reader %d saw %d of %d names", w, seen, len(want))
			}
		})
	}
	wg.Wait()
	x.release(h)
}

func treeRealName(x tr) {
	ctx, root := x.ctx(), fsrpc.RootNode
	d := x.mkdir(root, "d")
	for _, name := range []string{"Makefile", "README.TXT", "straße-ÄÖÜ", "Σίσυφος", "bad\xffNAME", "Twin", "tWIN"} {
		ok(x, os.WriteFile(x.h("d/"+name), nil, 0o644), "write")
	}
	want := func(name, real string) {
		x.Helper()
		got, err := x.fs.RealName(ctx, d, name)
		if real == "" {
			wantErr(x, err, "real name of "+name, unix.ENOENT)
		} else if err != nil || got != real {
			x.Errorf("real name of %q is %q, %v; want %q", name, got, err, real)
		}
	}
	want("MAKEFILE", "Makefile")
	want("Makefile", "Makefile")
	want("readme.txt", "README.TXT")
	want("STRAßE-äöü", "straße-ÄÖÜ")
	want("σίΣΥΦΟς", "Σίσυφος")
	want("BAD\xffname", "bad\xffNAME")
	want("tWIN", "tWIN")
	want("Twin", "Twin")
	want("TWIN", "Twin")
	want("nothing", "")
	want("Makefil", "")
	_, err := x.fs.RealName(ctx, x.write("f", nil), "x")
	wantErr(x, err, "real name in a file", unix.ENOTDIR)
	// Our own changes are seen at once, the host's soon.
	_, h, err := x.fs.Create(ctx, d, "Created", unix.O_RDWR, 0o644)
	ok(x, err, "create")
	x.release(h)
	want("CREATED", "Created")
	ok(x, x.fs.Rename(ctx, d, "Created", d, "Renamed", 0), "rename")
	want("CREATED", "")
	want("RENAMED", "Renamed")
	ok(x, x.fs.Unlink(ctx, d, "Renamed"), "unlink")
	want("RENAMED", "")
	sub, err := x.fs.Mkdir(ctx, d, "SubDir", 0o755)
	ok(x, err, "mkdir")
	want("subdir", "SubDir")
	_, err = x.fs.RealName(ctx, sub.Node, "x")
	wantErr(x, err, "real name in an empty directory", unix.ENOENT)
	ok(x, os.WriteFile(x.h("d/FromHost"), nil, 0o644), "write on the host")
	eventually(x, settle, func() string {
		if got, err := x.fs.RealName(ctx, d, "fromhost"); got != "FromHost" {
			return fmt.Sprintf("real name of fromhost: %q, %v", got, err)
		}
		return ""
	})
}

// The real names of what isn't there yet, asked before each file is made, as
// Windows does: this must not list the directory each time.
func treeRealNameWhileCreating(x tr) {
	ctx := x.ctx()
	d := x.mkdir(fsrpc.RootNode, "d")
	const n = 3000
	start := time.Now()
	for i := range n {
		name := fmt.Sprintf("Object-%d.obj", i)
		if _, err := x.fs.RealName(ctx, d, strings.ToUpper(name)); err == nil {
			x.Fatalf("%s is there before it is made", name)
		}
		a, h, err := x.fs.Create(ctx, d, name, unix.O_RDWR, 0o644)
		ok(x, err, "create")
		x.release(h)
		ok(x, x.fs.Forget(ctx, []fsrpc.Forget{{Node: a.Node, Count: 1}}), "forget")
		got, err := x.fs.RealName(ctx, d, strings.ToLower(name))
		if err != nil || got != name {
			x.Fatalf("real name of %s: %q, %v", name, got, err)
		}
	}
	x.Logf("%d files in %v", n, time.Since(start).Round(time.Millisecond))
}

// A directory is swapped for a symbolic link to a place outside, again and again,
// while a guest walks through it.
func treeSwapRace(x tr) {
	ctx, root := x.ctx(), fsrpc.RootNode
	outside := x.TempDir()
	ok(x, os.WriteFile(outside+"/f", []byte("secret"), 0o644), "write")
	ok(x, os.Mkdir(x.h("real"), 0o755), "mkdir")
	ok(x, os.WriteFile(x.h("real/f"), []byte("public"), 0o644), "write")
	ok(x, os.Symlink(outside, x.h("link")), "symlink")
	ok(x, os.Rename(x.h("real"), x.h("swap")), "rename")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, x.h("swap"), unix.AT_FDCWD, x.h("link"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	reads, links := 0, 0
	for i := 0; i < 20000 && (reads < 200 || links < 200); i++ {
		d, err := x.fs.Lookup(ctx, root, "swap")
		ok(x, err, "lookup")
		f, err := x.fs.Lookup(ctx, d.Node, "f")
		if err != nil {
			wantErr(x, err, "lookup below", unix.ENOTDIR)
			links++
			_ = x.fs.Forget(ctx, []fsrpc.Forget{{Node: d.Node, Count: 1}})
			continue
		}
		reads++
		h := x.open(f.Node, unix.O_RDONLY)
		got, err := readAll(ctx, x.fs, h)
		x.release(h)
		if err != nil || !bytes.Equal(got, []byte("public")) {
			x.Fatalf("read %q, %v", got, err)
		}
		if a, h, err := x.fs.Create(ctx, d.Node, "made", unix.O_RDWR, 0o644); err == nil {
			x.release(h)
			_ = x.fs.Forget(ctx, []fsrpc.Forget{{Node: a.Node, Count: 1}})
		}
		_ = x.fs.Forget(ctx, []fsrpc.Forget{{Node: f.Node, Count: 1}, {Node: d.Node, Count: 1}})
	}
	close(stop)
	<-done
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		x.Errorf("outside there is %v", names)
	}
	if reads == 0 || links == 0 {
		x.Logf("the race was not met: %d reads, %d links", reads, links)
	}
}

func treeParallel(x tr) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			if err := treeWorker(x, w); err != nil {
				x.Errorf("worker %d: %v", w, err)
			}
		})
	}
	wg.Wait()
	names, err := os.ReadDir(x.host)
	if err != nil || len(names) != 8 {
		x.Errorf("%d names, %v", len(names), err)
	}
}

func treeWorker(x tr, w int) error {
	ctx := x.ctx()
	for i := range 100 {
		name, data := fmt.Sprintf("w%d", w), randBytes(1000+i, uint64(w))
		a, h, err := x.fs.Create(ctx, fsrpc.RootNode, name+".tmp", unix.O_RDWR|unix.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		if _, err := x.fs.Write(ctx, h, 0, data); err != nil {
			return err
		}
		got, err := readAll(ctx, x.fs, h)
		if err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("read back %d bytes: %w", len(got), err)
		}
		if err := x.fs.Release(ctx, h); err != nil {
			return err
		}
		if err := x.fs.Rename(ctx, fsrpc.RootNode, name+".tmp", fsrpc.RootNode, name, 0); err != nil {
			return err
		}
		b, err := x.fs.Lookup(ctx, fsrpc.RootNode, name)
		if err != nil || b.Node != a.Node {
			return fmt.Errorf("node %d, then %d: %w", a.Node, b.Node, err)
		}
		if err := x.fs.Forget(ctx, []fsrpc.Forget{{Node: a.Node, Count: 2}}); err != nil {
			return err
		}
	}
	return nil
}
