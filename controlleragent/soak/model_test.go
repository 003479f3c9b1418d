package soak

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// A file is a regular file of the model; hard links share one.
type file struct {
	data []byte // as every reader must see it
	base []byte // as it was last confirmed
	// since are the writes (data != nil) and truncations since then, in order.
	since []change
	told  bool // an error of one of them was told
	// behind is the session in which the first of them was answered before the host had it;
	// 0: none was.
	behind int64
	lost   bool // a reader has seen that one of them was lost with that session
}

type change struct {
	off  int
	data []byte
}

// write notes a write in the model. One of nothing does nothing: it doesn't even make the
// file reach its offset.
func (f *file) write(off int, data []byte) {
	if len(data) == 0 {
		return
	}
	f.since = append(f.since, change{off, append([]byte{}, data...)})
	if end := off + len(data); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	copy(f.data[off:], data)
}

func (f *file) truncate(size int) {
	f.since = append(f.since, change{off: size})
	if size <= len(f.data) {
		f.data = f.data[:size:size]
	} else {
		f.data = append(f.data, make([]byte, size-len(f.data))...)
	}
}

// confirm notes that the host has it all.
func (f *file) confirm() {
	f.base, f.since, f.told = append([]byte{}, f.data...), nil, false
	f.behind, f.lost = 0, false
}

// mayLack reports whether a reader in this session may find less of the file than was written
// to it: what isn't confirmed can be lost with its session, and only the writer is told.
func (f *file) mayLack(session int64) bool { return f.behind != 0 && f.behind != session }

// explains reports what in got can't have come from the confirmed content and the
// changes since, each of which happened wholly, in part, or not at all; "" is nothing.
func (f *file) explains(got []byte) string {
	if len(f.since) == 0 {
		return difference(got, f.base)
	}
	if d := f.explainsSize(len(got)); d != "" {
		return d
	}
	hole := len(f.base) // from where on there may be holes
	for _, c := range f.since {
		if c.data == nil {
			hole = min(hole, c.off)
		}
	}
	possible := make([]bool, len(got))
	for i, b := range got {
		possible[i] = b == 0 && i >= hole || i < len(f.base) && f.base[i] == b
	}
	for _, c := range f.since {
		for j, b := range c.data {
			if i := c.off + j; i < len(got) && got[i] == b {
				possible[i] = true
			}
		}
	}
	if i := bytes.IndexByte(asBytes(possible), 0); i >= 0 {
		return fmt.Sprintf("byte %d is %#x, which nobody wrote there", i, got[i])
	}
	return ""
}

// explainsSize is explains for what stat tells.
func (f *file) explainsSize(got int) string {
	lo, hi := len(f.base), len(f.base)
	for _, c := range f.since {
		if c.data == nil {
			lo = min(lo, c.off)
		}
		hi = max(hi, c.off+len(c.data))
	}
	if got > hi || got < lo {
		return fmt.Sprintf("%d bytes, can be %d to %d", got, lo, hi)
	}
	return ""
}

func asBytes(b []bool) []byte {
	out := make([]byte, len(b))
	for i, v := range b {
		if v {
			out[i] = 1
		}
	}
	return out
}

func difference(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	n := min(len(got), len(want))
	for i := range n {
		if got[i] != want[i] {
			return fmt.Sprintf("%d bytes, want %d; byte %d is %#x, want %#x", len(got), len(want), i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

// An entry is what a name stands for: a file, a link's target, or a directory.
type entry struct {
	file   *file
	target string
}

func (e entry) isDir() bool  { return e.file == nil && e.target == "" }
func (e entry) isFile() bool { return e.file != nil }

// A tree is a directory's content: path to entry.
type tree map[string]entry

func (t tree) clone() tree {
	c := make(tree, len(t))
	for k, v := range t {
		c[k] = v
	}
	return c
}

// pick returns the paths for which ok holds, in order.
func (t tree) pick(ok func(string, entry) bool) []string {
	var out []string
	for p, e := range t {
		if ok(p, e) {
			out = append(out, p)
		}
	}
	sort.Strings(out)
	return out
}

// under reports whether path is below dir.
func under(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

// move renames in the model.
func (t tree) move(from, to string) {
	moved := tree{}
	for p, e := range t {
		if p == from || under(p, from) {
			moved[to+strings.TrimPrefix(p, from)] = e
			delete(t, p)
		}
	}
	for p, e := range moved {
		t[p] = e
	}
}

// matches compares a directory with the model; "" if it is one that the model
// explains. exact wants the files as readers must see them.
func (t tree) matches(dir string, exact bool) string {
	seen := 0
	var diff string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		e, ok := t[rel]
		if !ok {
			diff = fmt.Sprintf("%s is there and should not be", rel)
			return filepath.SkipAll
		}
		seen++
		if diff, err = e.matches(path, d, exact); diff != "" {
			diff = rel + ": " + diff
			return filepath.SkipAll
		}
		return err
	})
	switch {
	case err != nil:
		return err.Error()
	case diff != "":
		return diff
	case seen != len(t):
		for p := range t {
			if _, err := os.Lstat(filepath.Join(dir, p)); err != nil {
				return fmt.Sprintf("%s is not there: %v", p, err)
			}
		}
		return "it changed meanwhile"
	}
	return ""
}

func (e entry) matches(path string, d os.DirEntry, exact bool) (string, error) {
	switch {
	case e.isDir():
		if !d.IsDir() {
			return "not a directory", nil
		}
	case e.isFile():
		if !d.Type().IsRegular() {
			return "not a file", nil
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if exact {
			return difference(got, e.file.data), nil
		}
		return e.file.explains(got), nil
	default:
		got, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if got != e.target {
			return fmt.Sprintf("a link to %q, want %q", got, e.target), nil
		}
	}
	return "", nil
}

// adopt takes the files as they lie on the host for confirmed.
func (t tree) adopt(dir string) error {
	for p, e := range t {
		if !e.isFile() || len(e.file.since) == 0 {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return err
		}
		e.file.data = got
		e.file.confirm()
	}
	return nil
}
