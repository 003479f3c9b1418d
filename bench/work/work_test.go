package work_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"winvm/bench/work"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == work.LoadArg {
		_ = work.ReadForever(os.Args[2], os.Stdout)
		return
	}
	m.Run()
}

const bulk = 3 << 20

// makeFiles makes a big file, a tree and tiny files.
func makeFiles(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if err := work.NewPattern(5).WriteTo(f, bulk); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"tree/a/one": "1", "tree/a/two": "22", "tree/b/c/three": "333", "tree/four": "", work.TinyName(0): "zero", work.TinyName(1): "one",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func run(t *testing.T, j work.Job) work.Result {
	t.Helper()
	r, err := work.Run(j)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBulk(t *testing.T) {
	dir := makeFiles(t)
	big := filepath.Join(dir, "big")
	want := work.NewPattern(5).Sum(bulk)
	if r := run(t, work.Job{Kind: work.Sum, Path: big}); r.Sum != want || r.Bytes != bulk {
		t.Errorf("sum: %+v, want %08x of %d", r, want, bulk)
	}
	for _, block := range []int{1 << 20, 64 << 10, 1000} { // the last is at odds with the pages
		if r := run(t, work.Job{Kind: work.Read, Path: big, Block: block}); r.Bytes != bulk || r.Seconds <= 0 {
			t.Errorf("read in blocks of %d: %+v", block, r)
		}
	}
	if r := run(t, work.Job{Kind: work.Rand, Path: big, Block: 4096, Count: 20}); r.Bytes != 20*4096 {
		t.Errorf("random reads: %+v", r)
	}
	out := filepath.Join(dir, "out")
	if r := run(t, work.Job{Kind: work.Write, Path: out, Block: 64 << 10, Bytes: bulk, Seed: 5}); r.Bytes != bulk {
		t.Errorf("write: %+v", r)
	}
	a, _ := os.ReadFile(big)
	b, _ := os.ReadFile(out)
	if !bytes.Equal(a, b) {
		t.Error("what was written isn't the pattern of its seed")
	}
	run(t, work.Job{Kind: work.Flush, Path: out})
	if _, err := work.Run(work.Job{Kind: work.Flush, Path: out + "-not-there"}); err == nil {
		t.Error("a file that isn't there was flushed")
	}
	if r := run(t, work.Job{Kind: work.Exec, Path: "/bin/cp", Args: []string{big, out + "2"}, Out: out + "2"}); r.Sum != want || r.Seconds <= 0 {
		t.Errorf("exec: %+v", r)
	}
	if _, err := work.Run(work.Job{Kind: work.Exec, Path: "/bin/false", Out: out}); err == nil {
		t.Error("a program that failed went unnoticed")
	}
	if _, err := work.Run(work.Job{Kind: work.Write, Path: out, Block: 64 << 10, Bytes: bulk}); err == nil {
		t.Error("a file that exists was written over")
	}
}

// A page in the wrong place is seen by what reads.
func TestWrongBytes(t *testing.T) {
	dir := makeFiles(t)
	big := filepath.Join(dir, "big")
	b, err := os.ReadFile(big)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[2867200:], b[81920:81920+4096])
	if err := os.WriteFile(big, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, j := range []work.Job{
		{Kind: work.Read, Path: big, Block: 1 << 20},
		{Kind: work.Rand, Path: big, Block: 1 << 20, Count: 50},
	} {
		if _, err := work.Run(j); err == nil || !strings.Contains(err.Error(), "wrong bytes at offset 2867200") {
			t.Errorf("%s: %v", j.Kind, err)
		}
	}
}

func TestTrees(t *testing.T) {
	dir := makeFiles(t)
	tree := filepath.Join(dir, "tree")
	jobs := []work.Job{{Kind: work.Walk, Path: tree}, {Kind: work.Files, Path: tree}, {Kind: work.Tar, Path: tree}, {Kind: work.Sum, Path: tree}}
	entries := []int{7, 4, 7, 4}
	var before []work.Result
	for i, j := range jobs {
		r := run(t, j)
		if r.Entries != entries[i] {
			t.Errorf("%s: %d entries, want %d", j.Kind, r.Entries, entries[i])
		}
		if again := run(t, j); again.Sum != r.Sum || again.Bytes != r.Bytes {
			t.Errorf("%s: %+v, then %+v", j.Kind, r, again)
		}
		before = append(before, r)
	}
	// Another content of the same size is seen by all but the walk; another size by all.
	for content, blind := range map[string]work.Kind{"4": "", "23": work.Walk} {
		if err := os.WriteFile(filepath.Join(tree, "a/two"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		for i, j := range jobs {
			if same := run(t, j).Sum == before[i].Sum; same != (j.Kind == blind) {
				t.Errorf("%s with content %q: same checksum: %v", j.Kind, content, same)
			}
		}
	}
}

func TestStormAndTiny(t *testing.T) {
	dir := makeFiles(t)
	storm := filepath.Join(dir, "storm")
	if r := run(t, work.Job{Kind: work.Storm, Path: storm, Count: 10}); len(r.Each) != 3 {
		t.Errorf("storm: %+v", r)
	}
	if _, err := os.Lstat(storm); err == nil {
		t.Error("the storm has left its directory")
	}
	j := work.Job{Kind: work.Tiny, Path: dir, Count: 2}
	idle := run(t, j)
	j.Load = filepath.Join(dir, "big")
	if loaded := run(t, j); loaded.Sum != idle.Sum || len(loaded.Each) != 2 || loaded.Bytes != 7 {
		t.Errorf("under load: %+v, idle: %+v", loaded, idle)
	}
	j.Load = filepath.Join(dir, "nothing")
	if _, err := work.Run(j); err == nil {
		t.Error("a load that can't be went unnoticed")
	}
	j.Load, j.Count = "", 3
	if _, err := work.Run(j); err == nil {
		t.Error("a tiny file that is missing went unnoticed")
	}
}

func TestServe(t *testing.T) {
	dir := makeFiles(t)
	toGuest, host := io.Pipe()
	fromGuest, guest := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- work.Serve(toGuest, guest, func(r work.Request) (work.Result, error) {
			return work.Result{Entries: len(r.Arg)}, nil
		})
	}()
	c := work.NewClient(fromGuest, host)
	if r, err := c.Do(work.Request{Op: "x", Arg: "four"}); err != nil || r.Entries != 4 {
		t.Errorf("an operation: %+v, %v", r, err)
	}
	if r, err := c.Do(work.Request{Job: work.Job{Kind: work.Walk, Path: dir}}); err != nil || r.Entries == 0 {
		t.Errorf("a job: %+v, %v", r, err)
	}
	for _, j := range []work.Job{{Kind: "nonsense"}, {Kind: work.Walk, Path: filepath.Join(dir, "no")}, {Kind: work.Rand, Path: dir, Count: -1}} {
		if _, err := c.Do(work.Request{Job: j}); err == nil {
			t.Errorf("%+v: no error", j)
		}
	}
	_ = host.Close()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestRawCommand(t *testing.T) {
	b := work.RawCommand(work.RawOut, 1<<40)
	if op, n := work.ParseRaw(b); op != work.RawOut || n != 1<<40 || len(b) != work.RawMessage {
		t.Errorf("%q, %d, %d bytes", op, n, len(b))
	}
}
