package hostmem

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Memory that this process touches is seen, and seen to be its own.
func TestOf(t *testing.T) {
	before, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	for i := 0; i < size; i += 4096 {
		mem[i] = 1
	}
	after, err := Of(os.Getpid())
	if err != nil || after.PSS-before.PSS < size*9/10 || after.Own-before.Own < size*9/10 {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	if _, err := Of(1 << 30); !os.IsNotExist(err) {
		t.Errorf("of no process: %v", err)
	}
}

func TestParseRollup(t *testing.T) {
	u, err := parseRollup(strings.NewReader("7f00-7fff ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPss:  123 kB\nPrivate_Dirty: 45 kB\n"))
	if err != nil || u != (Use{PSS: 123 << 10, Own: 45 << 10}) {
		t.Errorf("got %+v, %v", u, err)
	}
	for _, bad := range []string{"", "Pss: 12 kB\n", "Pss: x kB\nPrivate_Dirty: 1 kB\n"} {
		if _, err := parseRollup(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestRead(t *testing.T) {
	h, err := Read()
	if err != nil || h.Available <= 0 || h.Available > h.Total {
		t.Errorf("got %+v, %v", h, err)
	}
}

// A control group's limit counts, and that of one above it.
func TestLimit(t *testing.T) {
	root := t.TempDir()
	write := func(dir, most, used, cache string) {
		t.Helper()
		dir = filepath.Join(root, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"memory.max": most, "memory.current": used, "memory.stat": "anon 7\ninactive_file " + cache + "\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole := Host{Total: 1000, Available: 900}
	write("a", "500", "300", "50")
	write("a/b", "max", "200", "0")
	write("a/b/c", "400", "390", "0")
	for path, want := range map[string]Host{
		"/": whole, "/a": {500, 250}, "/a/b": {500, 250}, "/a/b/c": {400, 10}, "/../..": whole, "/none/x": whole,
	} {
		if got := limit(whole, root, path); got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
	write("over", "100", "300", "0")
	if got := limit(whole, root, "over"); got.Available != 0 {
		t.Errorf("got %+v", got)
	}
}
