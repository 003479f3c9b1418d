package outdiff

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes files from their contents; a name that ends in '/' is a directory, a
// content that begins with "->" a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	must(t, os.Mkdir(dir, 0o755))
	for name, content := range files {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		switch {
		case name[len(name)-1] == '/':
			must(t, os.MkdirAll(p, 0o755))
		case len(content) > 2 && content[:2] == "->":
			must(t, os.Symlink(content[2:], p))
		default:
			must(t, os.WriteFile(p, []byte(content), 0o644))
		}
	}
	return dir
}

var fixed = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func text(list []Difference) (out []string) {
	for _, d := range list {
		s := d.Path + " " + d.Kind
		if d.Offset != nil {
			s += fmt.Sprintf(" %d", *d.Offset)
		}
		out = append(out, s)
	}
	return out
}

func TestCompare(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 3*block/16)
	other := bytes.Clone(big)
	other[2*block+7] ^= 1
	other[2*block+9] ^= 1
	a := tree(t, map[string]string{
		"same": "x", "dir/same": "y", "dir/gone": "z", "dir/sub/deep": "1", "kind": "file", "link": "->here", "dangling": "->no",
		"short": "abc", "content": "abcdef", "big": string(big), "empty/": "", "gone/a/b": "", "exe": "x",
	})
	b := tree(t, map[string]string{
		"same": "x", "dir/same": "y", "dir/new": "z", "dir/sub/deep": "2", "kind/x": "", "link": "->there", "dangling": "->no",
		"short": "abcd", "content": "abXdeY", "big": string(other), "empty/": "", "added/x/y": "", "exe": "x",
	})
	must(t, os.Chmod(filepath.Join(b, "exe"), 0o755))
	// Times don't count.
	must(t, os.Chtimes(filepath.Join(b, "same"), fixed, fixed))
	want := []string{
		"added added", "big content " + fmt.Sprint(2*block+7), "content content 2", "dir/gone missing", "dir/new added",
		"dir/sub/deep content 0", "exe executable", "gone missing", "kind type", "link target", "short size 3",
	}
	got, err := Compare(a, b, 100)
	if err != nil || !slices.Equal(text(got), want) {
		t.Errorf("got %q, %v\nwant %q", text(got), err, want)
	}
	for _, d := range got {
		if s := d.String(); len(s) < len(d.Path)+10 {
			t.Errorf("says %q", s)
		}
	}
	if got, err := Compare(a, b, 3); err != nil || len(got) != 3 {
		t.Errorf("limited to 3: %d, %v", len(got), err)
	}
	if got, err := Compare(a, a, 3); err != nil || len(got) != 0 {
		t.Errorf("the same: %v, %v", got, err)
	}
}

// An output may be one file, and the two may be of different kinds.
func TestCompareFiles(t *testing.T) {
	dir := tree(t, map[string]string{"a": "one", "b": "one", "c": "onE", "d/": "", "e": ""})
	for _, c := range []struct{ a, b, want string }{
		{"a", "b", ""}, {"a", "c", ". content 2"}, {"a", "d", ". type"}, {"e", "a", ". size 0"}, {"e", "e", ""},
	} {
		got, err := Compare(filepath.Join(dir, c.a), filepath.Join(dir, c.b), 9)
		if err != nil || fmt.Sprint(text(got)) != fmt.Sprintf("[%s]", c.want) {
			t.Errorf("%s, %s: got %q, %v; want %q", c.a, c.b, text(got), err, c.want)
		}
	}
	if _, err := Compare(filepath.Join(dir, "a"), filepath.Join(dir, "none"), 9); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

// Nothing special is opened: a FIFO would block.
func TestCompareSpecial(t *testing.T) {
	a, b := tree(t, nil), tree(t, nil)
	for _, dir := range []string{a, b} {
		must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	}
	if got, err := Compare(a, b, 9); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}
