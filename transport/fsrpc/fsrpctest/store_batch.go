package fsrpctest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// batch reads files as one batch, with or without room for what stands behind the
// bytes, and returns each one's.
func (s st) batch(room, extra int, paths ...string) ([][]byte, []error) {
	s.Helper()
	ids := make([]fsrpc.FileID, 0, len(paths))
	for _, p := range paths {
		section, entry := s.find(p)
		ids = append(ids, fsrpc.FileID{Section: section, Entry: entry})
	}
	buf := make([]byte, room, room+extra)
	list, err := s.ReadBatch(s.Context(), ids, buf)
	ok(s, err, "batch")
	if len(list) != len(ids) {
		s.Fatalf("%d results of %d files", len(list), len(ids))
	}
	data, errs := make([][]byte, len(list)), make([]error, len(list))
	for i, f := range list {
		if f.Err != nil && f.N != 0 {
			s.Errorf("%s: %d bytes with %v", paths[i], f.N, f.Err)
		}
		data[i], errs[i] = buf[:f.N:f.N], f.Err
		buf = buf[f.N:]
	}
	return data, errs
}

// Files of many directories, in any order, twice the same, empty ones: whole.
func storeBatch(s st) {
	files := storeFiles()
	delete(files, "bbb-tool/share/big") // more than a batch holds
	paths := slices.Sorted(maps.Keys(files))
	paths = append(paths, "bbb-tool/lib/deep/er/x.so", "bbb-tool/share/empty", "bbb-tool/lib/deep/er/x.so")
	for _, extra := range []int{0, fsrpc.MaxBatch * fsrpc.BatchOverhead} {
		data, errs := s.batch(fsrpc.MaxData, extra, paths...)
		for i, p := range paths {
			ok(s, errs[i], "%q", p)
			wantBytes(s, data[i], files[p], p)
		}
	}
	if data, _ := s.batch(0, 0); len(data) != 0 {
		s.Errorf("no files: %v", data)
	}
	// What doesn't fit is left out, and the rest is there.
	data, errs := s.batch(1000, 0, "ddd-many/f199", "bbb-tool/bin/tool", "bbb-tool/share/big", "aaa-file")
	ok(s, errs[0], "the first")
	wantBytes(s, data[0], files["ddd-many/f199"], "the first")
	wantErr(s, errs[1], "too large for the buffer", unix.EFBIG)
	wantErr(s, errs[2], "too large for any batch", unix.EFBIG)
	wantErr(s, errs[3], "no room left", unix.EFBIG)
}

// A file that isn't the manifest's any more is an error for it alone.
func storeBatchChanged(s st) {
	s.find("aaa-file")
	p := func(name string) string { return filepath.Join(s.dir, name) }
	ok(s, os.Truncate(p("ddd-many/f100"), 3), "truncate")
	ok(s, os.Remove(p("ddd-many/f101")), "remove")
	ok(s, os.Remove(p("ddd-many/f102")), "remove")
	ok(s, unix.Mkfifo(p("ddd-many/f102"), 0o644), "mkfifo")
	ok(s, os.Remove(p("ddd-many/f103")), "remove")
	ok(s, os.Symlink(p("eee-secret"), p("ddd-many/f103")), "symlink")
	ok(s, os.Rename(p("bbb-tool/lib"), p("bbb-tool/lib2")), "rename")
	ok(s, os.Symlink("lib2", p("bbb-tool/lib")), "symlink")
	paths := []string{
		"ddd-many/f99", "ddd-many/f100", "ddd-many/f101", "ddd-many/f102", "ddd-many/f103", "ddd-many/f104",
		"bbb-tool/lib/deep/er/x.so", "bbb-tool/share/ a b\xff\n",
	}
	data, errs := s.batch(100_000, 0, paths...)
	for i, path := range paths {
		if i == 0 || i == 5 || i == 7 {
			ok(s, errs[i], "%s", path)
			wantBytes(s, data[i], storeFiles()[path], path)
			continue
		}
		wantErr(s, errs[i], path, unix.EIO)
	}
}

func storeBatchBad(s st) {
	section, dir := s.find("bbb-tool/bin")
	_, link := s.find("bbb-tool/link")
	buf := make([]byte, 100)
	list, err := s.ReadBatch(s.Context(), []fsrpc.FileID{{Section: section, Entry: dir}, {Section: section, Entry: link}, {Section: 99}, {Entry: 1 << 31}}, buf)
	ok(s, err, "batch")
	for i, want := range []unix.Errno{unix.EISDIR, unix.EINVAL, unix.EINVAL, unix.EINVAL} {
		wantErr(s, list[i].Err, "what is no file", want)
	}
	_, err = s.ReadBatch(s.Context(), make([]fsrpc.FileID, fsrpc.MaxBatch+1), buf)
	wantErr(s, err, "too many files", unix.EINVAL)
	_, err = s.ReadBatch(s.Context(), nil, make([]byte, fsrpc.MaxData+1))
	wantErr(s, err, "too much room", unix.EINVAL)
}
