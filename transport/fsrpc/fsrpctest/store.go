package fsrpctest

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
	"winvm/transport/wire"
)

// A st is one test's own store.
type st struct {
	*testing.T
	fsrpc.Store
	dir    string
	places map[string]place // by path; filled when first asked for
}

// A place is where a file of the store is found.
type place struct{ section, entry uint32 }

// TestStore checks an fsrpc.Store. open makes one of the paths called names in
// storeDir; what has to be closed it hands to t.Cleanup.
func TestStore(t *testing.T, open func(t *testing.T, storeDir string, names []string) fsrpc.Store) {
	tests := []struct {
		name string
		f    func(st)
	}{
		{"Sections", storeSections},
		{"Metadata", storeMetadata},
		{"Contents", storeContents},
		{"BadRequests", storeBadRequests},
		{"Changed", storeChanged},
		{"ChangedWhileOpen", storeChangedWhileOpen},
		{"Swapped", storeSwapped},
		{"Parallel", storeParallel},
		{"Batch", storeBatch},
		{"BatchChanged", storeBatchChanged},
		{"BatchBad", storeBatchBad},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			names := makeStore(t, dir)
			tt.f(st{t, open(t, dir, names), dir, map[string]place{}})
		})
	}
	t.Run("Empty", func(t *testing.T) {
		s := open(t, t.TempDir(), nil)
		got, err := s.Sections(t.Context(), 0, 10)
		if err != nil || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// storeFiles are the regular files of the test's store.
func storeFiles() map[string][]byte {
	files := map[string][]byte{
		"bbb-tool/bin/tool":          randBytes(300000, 1),
		"bbb-tool/lib/deep/er/x.so":  randBytes(4096, 2),
		"bbb-tool/share/empty":       nil,
		"bbb-tool/share/big":         randBytes(1<<20+5, 3),
		"bbb-tool/share/ a b\xff\n":  []byte("strange name"),
		"bbb-tool/share/" + longName: []byte("long name"),
		"aaa-file":                   []byte("a store path that is a file"),
	}
	for i := range 200 {
		files[fmt.Sprintf("ddd-many/f%d", i)] = []byte(strings.Repeat("x", 5*i))
	}
	return files
}

var longName = strings.Repeat("n", 255)

func makeStore(t *testing.T, dir string) []string {
	t.Helper()
	for name, data := range storeFiles() {
		p := filepath.Join(dir, name)
		ok(t, os.MkdirAll(filepath.Dir(p), 0o755), "mkdir")
		ok(t, os.WriteFile(p, data, 0o444), "write")
	}
	ok(t, os.Chmod(filepath.Join(dir, "bbb-tool/bin/tool"), 0o555), "chmod")
	ok(t, os.Mkdir(filepath.Join(dir, "bbb-tool/emptydir"), 0o755), "mkdir")
	ok(t, os.Symlink("bin/tool", filepath.Join(dir, "bbb-tool/link")), "symlink")
	ok(t, os.Symlink(filepath.Join(dir, "eee-secret"), filepath.Join(dir, "ccc-link")), "symlink")
	ok(t, os.WriteFile(filepath.Join(dir, "eee-secret"), []byte("no input"), 0o444), "write")
	return []string{"ddd-many", "aaa-file", "ccc-link", "bbb-tool"}
}

// tree fetches a section and returns its entries by path.
func (s st) tree(ordinal uint32, sec fsrpc.Section) (*wire.Section, map[string]uint32) {
	s.Helper()
	enc := make([]byte, sec.Size)
	for off := 0; off < len(enc); {
		n, err := s.Metadata(s.Context(), ordinal, uint64(off), enc[off:min(len(enc), off+10000)])
		ok(s, err, "metadata")
		if n == 0 {
			s.Fatalf("metadata of %s ends at %d of %d", sec.Name, off, len(enc))
		}
		off += n
	}
	if sha256.Sum256(enc) != sec.Hash {
		s.Fatalf("metadata of %s doesn't have its hash", sec.Name)
	}
	d, err := wire.DecodeSection(enc)
	ok(s, err, "decode %s", sec.Name)
	if d.Len() != sec.Entries {
		s.Errorf("%s has %d entries, section says %d", sec.Name, d.Len(), sec.Entries)
	}
	paths := map[string]uint32{}
	names := make([]string, d.Len())
	for i := range d.Len() {
		e := d.Entry(i)
		names[i] = sec.Name
		if i > 0 {
			names[i] = names[e.Parent] + "/" + e.Name
		}
		paths[names[i]] = i
	}
	return d, paths
}

// find returns the section's ordinal and the entry of a path.
func (s st) find(path string) (section, entry uint32) {
	s.Helper()
	if len(s.places) == 0 {
		secs, err := s.Sections(s.Context(), 0, 1000)
		ok(s, err, "sections")
		for i, sec := range secs {
			_, paths := s.tree(uint32(i), sec)
			for p, e := range paths {
				s.places[p] = place{uint32(i), e}
			}
		}
	}
	at, have := s.places[path]
	if !have {
		s.Fatalf("no entry %q", path)
	}
	return at.section, at.entry
}

func storeSections(s st) {
	want := []string{"aaa-file", "bbb-tool", "ccc-link", "ddd-many"}
	for first := range 6 {
		for limit := range 6 {
			secs, err := s.Sections(s.Context(), uint32(first), limit)
			ok(s, err, "sections")
			var got []string
			for _, sec := range secs {
				got = append(got, sec.Name)
			}
			part := want[min(first, 4):min(first+limit, 4)]
			if !slices.Equal(got, part) && len(got)+len(part) > 0 {
				s.Errorf("sections from %d, %d of them: %v, want %v", first, limit, got, part)
			}
		}
	}
	secs, err := s.Sections(s.Context(), 1<<32-1, 1<<20)
	if err != nil || len(secs) != 0 {
		s.Errorf("sections beyond the end: %v, %v", secs, err)
	}
}

func storeMetadata(s st) {
	secs, err := s.Sections(s.Context(), 0, 100)
	ok(s, err, "sections")
	all := map[string]wire.Entry{}
	for i, sec := range secs {
		d, paths := s.tree(uint32(i), sec)
		for p, e := range paths {
			all[p] = d.Entry(e)
		}
	}
	for p, data := range storeFiles() {
		e, have := all[p]
		if !have || e.Kind != wire.KindFile || e.Size != uint64(len(data)) || e.Exec != (p == "bbb-tool/bin/tool") {
			s.Errorf("%q: %+v", p, e)
		}
		delete(all, p)
	}
	for p, target := range map[string]string{"bbb-tool/link": "bin/tool", "ccc-link": filepath.Join(s.dir, "eee-secret")} {
		if e := all[p]; e.Kind != wire.KindSymlink || e.Target != target {
			s.Errorf("%q: %+v", p, e)
		}
		delete(all, p)
	}
	dirs := slices.Sorted(maps.Keys(all))
	want := []string{"bbb-tool", "bbb-tool/bin", "bbb-tool/emptydir", "bbb-tool/lib", "bbb-tool/lib/deep", "bbb-tool/lib/deep/er", "bbb-tool/share", "ddd-many"}
	if !slices.Equal(dirs, want) {
		s.Errorf("directories %q, want %q", dirs, want)
	}
	// All of it in one go, and from the middle of one section into the next.
	var whole []byte
	for i, sec := range secs {
		enc := make([]byte, sec.Size)
		n, err := s.Metadata(s.Context(), uint32(i), 0, enc)
		if err != nil || n != len(enc) {
			s.Fatalf("metadata of %s: %d of %d bytes, %v", sec.Name, n, len(enc), err)
		}
		whole = append(whole, enc...)
	}
	start := 0
	for i, sec := range secs {
		for _, off := range []int{0, 1, int(sec.Size) - 1, int(sec.Size), int(sec.Size) + 1, len(whole) - start} {
			buf := make([]byte, len(whole)+10)
			n, err := s.Metadata(s.Context(), uint32(i), uint64(off), buf)
			ok(s, err, "metadata from section %d, offset %d", i, off)
			wantBytes(s, buf[:n], whole[min(len(whole), start+off):], fmt.Sprintf("metadata from section %d, offset %d", i, off))
		}
		start += int(sec.Size)
	}
	for _, off := range []uint64{1 << 40, 1<<64 - 1} {
		if n, err := s.Metadata(s.Context(), 3, off, make([]byte, 10)); err != nil || n != 0 {
			s.Errorf("metadata beyond the end: %d, %v", n, err)
		}
	}
	n, err := s.Metadata(s.Context(), 0, 1<<40, make([]byte, 10))
	if err != nil || n != 0 {
		s.Errorf("metadata beyond the end: %d, %v", n, err)
	}
}

func storeContents(s st) {
	for p, data := range storeFiles() {
		sec, e := s.find(p)
		for _, c := range []struct{ off, n int }{{0, len(data)}, {0, len(data) + 100}, {len(data) / 2, 1000}, {len(data), 10}, {len(data) + 10000, 10}, {0, 0}} {
			buf := make([]byte, min(c.n, fsrpc.MaxData))
			n, err := s.Read(s.Context(), sec, e, uint64(c.off), buf)
			ok(s, err, "read %q", p)
			wantBytes(s, buf[:n], data[min(c.off, len(data)):min(c.off+len(buf), len(data))], p)
		}
	}
	sec, e := s.find("aaa-file")
	n, err := s.Read(s.Context(), sec, e, 1<<64-1, make([]byte, 10))
	if err != nil || n != 0 {
		s.Errorf("read at the end of all: %d, %v", n, err)
	}
}

func storeBadRequests(s st) {
	ctx, buf := s.Context(), make([]byte, 10)
	sec, dir := s.find("bbb-tool/bin")
	_, err := s.Read(ctx, sec, dir, 0, buf)
	wantErr(s, err, "read of a directory", unix.EISDIR)
	_, link := s.find("bbb-tool/link")
	_, err = s.Read(ctx, sec, link, 0, buf)
	wantErr(s, err, "read of a link", unix.EINVAL)
	sec, link = s.find("ccc-link")
	_, err = s.Read(ctx, sec, link, 0, buf)
	wantErr(s, err, "read of a store path that is a link", unix.EINVAL)
	for _, bad := range [][2]uint32{{4, 0}, {1 << 31, 0}, {1<<32 - 1, 1<<32 - 1}, {0, 1}, {1, 1 << 30}} {
		_, err := s.Read(ctx, bad[0], bad[1], 0, buf)
		wantErr(s, err, fmt.Sprintf("read of %v", bad), unix.EINVAL)
	}
	_, err = s.Metadata(ctx, 4, 0, buf)
	wantErr(s, err, "metadata of no section", unix.EINVAL)
	sec, e := s.find("bbb-tool/bin/tool")
	_, err = s.Read(ctx, sec, e, 0, make([]byte, fsrpc.MaxData+1))
	wantErr(s, err, "read of too much", unix.EINVAL)
}

// What isn't the file of the manifest any more is EIO, never other bytes.
func storeChanged(s st) {
	p := func(name string) string { return filepath.Join(s.dir, name) }
	changes := map[string]func(path string){
		"bbb-tool/bin/tool": func(f string) { // longer
			ok(s, os.Chmod(f, 0o755), "chmod")
			ok(s, os.WriteFile(f, randBytes(400000, 9), 0o755), "write")
		},
		"bbb-tool/share/big": func(f string) {
			ok(s, os.Chmod(f, 0o644), "chmod")
			ok(s, os.Truncate(f, 100), "truncate")
		},
		"bbb-tool/lib/deep/er/x.so": func(f string) { // same size, times set back
			before := lstat(s, f)
			ok(s, os.Chmod(f, 0o644), "chmod")
			ok(s, os.WriteFile(f, randBytes(4096, 9), 0o444), "write")
			ok(s, unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{before.Atim, before.Mtim}, 0), "utimensat")
		},
		"ddd-many/f100": func(f string) { // replaced by a FIFO, which must not be opened
			ok(s, os.Remove(f), "remove")
			ok(s, unix.Mkfifo(f, 0o644), "mkfifo")
		},
		"ddd-many/f101": func(f string) { // by a link to what isn't an input
			ok(s, os.Remove(f), "remove")
			ok(s, os.Symlink(p("eee-secret"), f), "symlink")
		},
		"ddd-many/f102": func(f string) { ok(s, os.Remove(f), "remove") },
		"aaa-file": func(f string) {
			ok(s, os.WriteFile(f+".new", []byte("A STORE PATH THAT IS A FILE"), 0o444), "write")
			ok(s, os.Rename(f+".new", f), "rename")
		},
	}
	for name, change := range changes {
		sec, e := s.find(name)
		change(p(name))
		buf := make([]byte, 50)
		n, err := s.Read(s.Context(), sec, e, 0, buf)
		wantErr(s, err, name, unix.EIO)
		if n != 0 {
			s.Errorf("%s: %d bytes with the error", name, n)
		}
	}
	sec, e := s.find("ddd-many/f103")
	_, err := s.Read(s.Context(), sec, e, 0, make([]byte, 10))
	ok(s, err, "a file that didn't change")
}

func storeChangedWhileOpen(s st) {
	sec, e := s.find("bbb-tool/bin/tool")
	buf := make([]byte, 1000)
	_, err := s.Read(s.Context(), sec, e, 0, buf)
	ok(s, err, "read")
	f, err := os.OpenFile(filepath.Join(s.dir, "bbb-tool/bin/tool"), os.O_WRONLY, 0)
	if err != nil {
		s.Skip("not root: the file is read-only")
	}
	_, err = f.WriteAt([]byte("changed"), 100)
	ok(s, err, "write")
	ok(s, f.Close(), "close")
	_, err = s.Read(s.Context(), sec, e, 0, buf)
	wantErr(s, err, "a file that changed after it was read", unix.EIO)
}

// A directory of the path is swapped for a link to the outside.
func storeSwapped(s st) {
	sec, e := s.find("bbb-tool/lib/deep/er/x.so")
	outside := s.TempDir()
	ok(s, os.Rename(filepath.Join(s.dir, "bbb-tool/lib"), filepath.Join(outside, "lib")), "rename")
	ok(s, os.Symlink(filepath.Join(outside, "lib"), filepath.Join(s.dir, "bbb-tool/lib")), "symlink")
	_, err := s.Read(s.Context(), sec, e, 0, make([]byte, 10))
	wantErr(s, err, "a file behind a link", unix.EIO)
}

func storeParallel(s st) {
	files := storeFiles()
	s.find("aaa-file")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for p, data := range files { // in random order
				at := s.places[p]
				buf := make([]byte, min(len(data)+1, fsrpc.MaxData))
				n, err := s.Read(s.Context(), at.section, at.entry, 0, buf)
				if err != nil || string(buf[:n]) != string(data[:min(len(data), len(buf))]) {
					s.Errorf("%q: %d of %d bytes, %v", p, n, len(data), err)
				}
			}
		})
	}
	wg.Wait()
}
