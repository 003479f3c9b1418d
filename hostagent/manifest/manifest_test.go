package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc/fsrpctest"
	"winvm/transport/wire"
)

func write(t testing.TB, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func scan(t testing.TB, path string) *Manifest {
	t.Helper()
	m, err := Scan(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestScan(t *testing.T) {
	dir := t.TempDir()
	top := filepath.Join(dir, "top")
	write(t, filepath.Join(top, "b", "file"), "12345")
	write(t, filepath.Join(top, "a"), "x")
	write(t, filepath.Join(top, "b", "z\xff"), "")
	if err := os.Chmod(filepath.Join(top, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/anywhere", filepath.Join(top, "c")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(top, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := fsrpctest.OpenFiles(t)
	m := scan(t, top)
	if after := fsrpctest.OpenFiles(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	want := []wire.Entry{
		{Kind: wire.KindDir, First: 1, Count: 4},
		{Name: "a", Kind: wire.KindFile, Exec: true, Size: 1},
		{Name: "b", Kind: wire.KindDir, First: 5, Count: 2},
		{Name: "c", Kind: wire.KindSymlink, Target: "/anywhere"},
		{Name: "empty", Kind: wire.KindDir},
		{Name: "file", Kind: wire.KindFile, Parent: 2, Size: 5},
		{Name: "z\xff", Kind: wire.KindFile, Parent: 2},
	}
	for i, w := range want {
		got := m.Section.Entry(uint32(i))
		if (got.Content != 0) != (w.Kind == wire.KindFile) {
			t.Errorf("entry %d has content %x", i, got.Content)
		}
		if got.Content = 0; got != w {
			t.Errorf("entry %d is %+v, want %+v", i, got, w)
		}
	}
	if m.Section.Len() != uint32(len(want)) || m.Name != "top" {
		t.Errorf("%d entries of %s", m.Section.Len(), m.Name)
	}
	if p := m.Path(5); p != "top/b/file" {
		t.Errorf("path %q", p)
	}
	if again := scan(t, top); again.Hash != m.Hash {
		t.Error("the same files have another hash")
	}
}

func TestScanTops(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "123")
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if e := scan(t, dir+"/file").Section.Entry(0); e.Kind != wire.KindFile || e.Size != 3 {
		t.Errorf("a file: %+v", e)
	}
	if e := scan(t, dir+"/link").Section.Entry(0); e.Kind != wire.KindSymlink || e.Target != "file" {
		t.Errorf("a link: %+v", e)
	}
	if _, err := Scan(t.Context(), dir+"/fifo"); err == nil || !strings.Contains(err.Error(), dir+"/fifo") {
		t.Errorf("a FIFO: %v", err)
	}
	if _, err := Scan(t.Context(), dir+"/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSkipsSpecialFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	write(t, filepath.Join(dir, "sub", "f"), "x")
	if err := unix.Mkfifo(filepath.Join(dir, "sub", "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := scan(t, dir)
	if m.Section.Len() != 3 || !slices.Equal(m.Skipped, []string{"sub/fifo"}) {
		t.Errorf("%d entries, skipped %q", m.Section.Len(), m.Skipped)
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a", "secret"), "x")
	write(t, filepath.Join(dir, "b", "sub", "x"), "x")
	for path, mode := range map[string]os.FileMode{"a/secret": 0o600, "b/sub": 0o700} {
		if os.Geteuid() != 0 {
			mode = 0
		}
		if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = os.Chmod(filepath.Join(dir, "b/sub"), 0o755) }()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if os.Geteuid() == 0 { // without root's way past file modes, for this thread
		runtime.LockOSThread()
		_, _ = unix.SetfsuidRetUid(65534)
		defer func() {
			_, _ = unix.SetfsuidRetUid(0)
			runtime.UnlockOSThread()
		}()
	}
	for name, file := range map[string]string{"a": "a/secret", "b": "b/sub"} {
		list, err := lookAtAll(fd, dir, name)
		if err == nil {
			t.Errorf("%s: %v", name, list)
		}
		if !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), filepath.Join(dir, file)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// lookAtAll lists a store path's files in this thread, whose user is another.
func lookAtAll(fd int, dir, name string) ([]child, error) {
	s := scanner{dir: fd, storeDir: dir, m: &Manifest{Name: name}}
	list, err := s.list(name)
	for _, c := range list {
		if err == nil && c.kind == unix.S_IFDIR {
			_, err = s.list(name + "/" + c.name)
		}
	}
	return list, err
}

// Deeper than PATH_MAX.
func TestDeep(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 250)
	for range 40 {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		fd = next
	}
	_ = unix.Close(fd)
	m := scan(t, filepath.Join(dir, name))
	if m.Section.Len() != 40 || len(m.Path(39)) != 40*251-1 {
		t.Errorf("%d entries, the last has a path of %d bytes", m.Section.Len(), len(m.Path(39)))
	}
	problems := Preflight([]*Manifest{m})
	if len(problems) != 39 || problems[0].Kind != LongPath {
		t.Errorf("%d problems", len(problems))
	}
}

func TestOpenBeneath(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "in", "f"), "x")
	write(t, filepath.Join(dir, "out"), "x")
	if err := os.Symlink("../out", filepath.Join(dir, "in", "l")); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(dir, "in"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for path, want := range map[string]error{"f": nil, "": nil, "l": unix.ELOOP, "../out": unix.EXDEV, "/etc": unix.EXDEV, "f/x": unix.ENOTDIR, "none": unix.ENOENT} {
		got, err := OpenBeneath(fd, path, unix.O_RDONLY)
		if err == nil {
			_ = unix.Close(got)
		}
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
}

func TestWindowsName(t *testing.T) {
	for name, want := range map[string]ProblemKind{
		"file.txt": 0, "Grüße": 0, ".hidden": 0, "a b": 0, " x": 0, "console": 0, "com": 0, "COM10": 0, "com0": 0, "nulx": 0, "x.con": 0,
		"CON": ReservedName, "con": ReservedName, "Nul.txt": ReservedName, "aux.tar.gz": ReservedName, "prn": ReservedName,
		"com1": ReservedName, "LPT9.log": ReservedName, "COM¹": ReservedName, "con .x": ReservedName, "CONOUT$": ReservedName,
		"a:b": BadCharacter, `a\b`: BadCharacter, "a\nb": BadCharacter, "what?": BadCharacter, "<": BadCharacter, `"`: BadCharacter, "\x1f": BadCharacter,
		"x.": TrailingDot, "x ": TrailingDot, "...": TrailingDot,
		"a\xff": NotUTF8,
	} {
		if got := nameProblem(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
		if (WindowsName(name) == "") != (want == 0) {
			t.Errorf("%q: %s", name, WindowsName(name))
		}
	}
}

func TestPreflight(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"p/ok", "p/aux.c", "p/sub/a:b", "p/sub/Read", "p/sub/READ", "p/sub/reaD", "q", "Q"} {
		write(t, filepath.Join(dir, f), "x")
	}
	long := "p/" + strings.Repeat("l", 130) + "/" + strings.Repeat("ü", 122) // 3+1+1+130+1+122 = 258
	write(t, filepath.Join(dir, long+"xx"), "x")
	write(t, filepath.Join(dir, long+"x"), "x")
	if err := unix.Mkfifo(filepath.Join(dir, "p/fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	ms, err := ScanAll(t.Context(), dir, []string{"Q", "p", "q"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range Preflight(ms) {
		got = append(got, fmt.Sprintf("%d %s %s", p.Kind, p.Path, p.Twin))
		if p.String() == "" || p.Kind.Effect() == "" {
			t.Errorf("%v says nothing", p.Kind)
		}
	}
	want := []string{
		fmt.Sprintf("%d q Q", CaseTwin),
		fmt.Sprintf("%d p/aux.c ", ReservedName),
		fmt.Sprintf("%d %sxx ", LongPath, long),
		fmt.Sprintf("%d p/sub/a:b ", BadCharacter),
		fmt.Sprintf("%d p/sub/Read p/sub/READ", CaseTwin),
		fmt.Sprintf("%d p/sub/reaD p/sub/Read", CaseTwin),
		fmt.Sprintf("%d p/fifo ", SpecialFile),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func BenchmarkScan100k(b *testing.B) {
	dir := b.TempDir()
	const n = 100_000
	for i := range n {
		write(b, filepath.Join(dir, fmt.Sprintf("pkg-%d", i%100), fmt.Sprintf("d%d", i/100%20), fmt.Sprintf("some-file-%d.h", i)), "")
	}
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("pkg-%d", i))
	}
	for b.Loop() {
		if _, err := ScanAll(b.Context(), dir, names, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/file")
}

func BenchmarkPreflight100k(b *testing.B) {
	dir := b.TempDir()
	for i := range 100_000 {
		write(b, filepath.Join(dir, "p", fmt.Sprintf("d%d", i/100), fmt.Sprintf("some-file-%d.h", i)), "")
	}
	ms := []*Manifest{scan(b, filepath.Join(dir, "p"))}
	for b.Loop() {
		Preflight(ms)
	}
}
