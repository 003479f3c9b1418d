package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a section with every kind of entry.
func sample(t testing.TB) []byte {
	t.Helper()
	var b SectionBuilder
	add := func(e Entry) {
		if _, err := b.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	add(Entry{Kind: KindDir})
	add(Entry{Name: "bin", Kind: KindDir, Parent: 0})
	add(Entry{Name: "empty", Kind: KindDir, Parent: 0})
	add(Entry{Name: "link", Kind: KindSymlink, Parent: 0, Target: "bin/tool"})
	add(Entry{Name: "\xff not UTF-8", Kind: KindFile, Parent: 0, Size: 1<<63 + 5, Content: 0x1112131415161718})
	b.SetChildren(0, 1, 4)
	add(Entry{Name: "Tool", Kind: KindFile, Parent: 1, Size: 7})
	add(Entry{Name: "tool", Kind: KindFile, Parent: 1, Size: 12345, Exec: true})
	b.SetChildren(1, 5, 2)
	return b.Encode()
}

func TestSectionRoundTrip(t *testing.T) {
	s, err := DecodeSection(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{Kind: KindDir, First: 1, Count: 4},
		{Name: "bin", Kind: KindDir, First: 5, Count: 2},
		{Name: "empty", Kind: KindDir},
		{Name: "link", Kind: KindSymlink, Target: "bin/tool"},
		{Name: "\xff not UTF-8", Kind: KindFile, Size: 1<<63 + 5, Content: 0x1112131415161718},
		{Name: "Tool", Kind: KindFile, Parent: 1, Size: 7},
		{Name: "tool", Kind: KindFile, Parent: 1, Size: 12345, Exec: true},
	}
	if s.Len() != uint32(len(want)) {
		t.Fatalf("%d entries", s.Len())
	}
	for i, w := range want {
		got := s.Entry(uint32(i))
		if got != w || s.Name(uint32(i)) != w.Name || s.Kind(uint32(i)) != w.Kind {
			t.Errorf("entry %d: %+v, want %+v", i, got, w)
		}
		if first, count := s.Children(uint32(i)); w.Kind == KindDir && (first != w.First || count != w.Count) ||
			w.Kind == KindFile && (s.Size(uint32(i)) != w.Size || s.Content(uint32(i)) != w.Content) || s.Parent(uint32(i)) != w.Parent {
			t.Errorf("entry %d: single fields differ from %+v", i, w)
		}
		if kind, exec, size := s.Attr(uint32(i)); kind != w.Kind || exec != w.Exec || size != w.Size+uint64(len(w.Target)) {
			t.Errorf("entry %d: attributes %d, %v, %d, want %+v", i, kind, exec, size, w)
		}
		if i == 0 {
			continue
		}
		if at, ok := s.Lookup(w.Parent, w.Name); !ok || at != uint32(i) {
			t.Errorf("lookup of %q: %d, %v", w.Name, at, ok)
		}
	}
	for _, c := range []struct {
		dir  uint32
		name string
	}{{0, "none"}, {0, "tool"}, {0, ""}, {2, "x"}, {3, "x"}, {4, "x"}, {0, "\xff\xff"}, {1, "TOOL"}} {
		if at, ok := s.Lookup(c.dir, c.name); ok {
			t.Errorf("lookup of %q in %d found %d", c.name, c.dir, at)
		}
	}
}

func TestSectionGolden(t *testing.T) {
	golden := filepath.Join("testdata", "section.golden")
	got := sample(t)
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the encoding changed: a new one needs a new magic, and the protocol a new version\n got %x\nwant %x", got, want)
	}
}

// A single entry is a section: a store path that is a file or a link.
func TestSectionSingle(t *testing.T) {
	for _, e := range []Entry{{Kind: KindFile, Size: 5, Exec: true, Content: 1<<64 - 1}, {Kind: KindSymlink, Target: "/nix/store/x"}, {Kind: KindDir}} {
		var b SectionBuilder
		if _, err := b.Add(e); err != nil {
			t.Fatal(err)
		}
		s, err := DecodeSection(b.Encode())
		if err != nil || s.Len() != 1 || s.Entry(0) != e {
			t.Errorf("%+v: %v, %v", e, s, err)
		}
	}
}

func TestSectionMalformed(t *testing.T) {
	good := sample(t)
	rec := func(i, field int) int { return sectionHeader + i*recordSize + field }
	set := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	put := func(off int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[off] = v; return b }
	}
	strs := rec(7, 0)
	for what, change := range map[string]func([]byte) []byte{
		"empty":                      func([]byte) []byte { return nil },
		"magic":                      put(0, 'X'),
		"no entries":                 set(8, 0),
		"too many entries":           set(8, 1<<32-1),
		"fewer entries":              set(8, 6),
		"strings too long":           set(12, 1<<32-1),
		"cut":                        func(b []byte) []byte { return b[:len(b)-1] },
		"trailing bytes":             func(b []byte) []byte { return append(b, 0) },
		"header only":                func(b []byte) []byte { return b[:sectionHeader] },
		"kind 0":                     put(rec(5, 6), 0),
		"kind 9":                     put(rec(5, 6), 9),
		"name outside":               set(rec(5, 0), 1<<31),
		"name at the very end":       set(rec(5, 0), 1<<32-1),
		"root with a name":           put(rec(0, 4), 1),
		"name empty":                 put(rec(5, 4), 0),
		"name of 65,535 bytes":       set(rec(5, 4), 0x0002ffff),
		"name with a slash":          put(strs, '/'),
		"name with NUL":              put(strs, 0),
		"wrong parent":               set(rec(5, 8), 0),
		"parent of nothing":          set(rec(5, 8), 77),
		"children of oneself":        set(rec(1, 12), 1),
		"children before":            set(rec(1, 12), 0),
		"children skipped":           set(rec(1, 12), 6),
		"more children than entries": set(rec(1, 16), 3),
		"as many children as fit":    set(rec(1, 16), 1<<32-1),
		"fewer children":             set(rec(1, 16), 1),
		"a second parent": func(b []byte) []byte {
			return set(rec(2, 16), 2)(set(rec(2, 12), 5)(b))
		},
		"link target outside":  set(rec(3, 12), 1<<32-1),
		"link target too long": set(rec(3, 16), 1<<32-1),
		"link target empty":    set(rec(3, 16), 0),
		"names not sorted":     put(strs+3+5+4+8, 'z'), // the file's first byte, now before others
		"name twice": func(b []byte) []byte {
			copy(b[rec(5, 0):rec(5, 6)], b[rec(6, 0):rec(6, 6)])
			return b
		},
	} {
		s, err := DecodeSection(change(slices.Clone(good)))
		if what == "names not sorted" && err == nil {
			// 'z' still sorts behind "link"; make it sort before.
			s, err = DecodeSection(put(strs+3+5+4+8, 'a')(slices.Clone(good)))
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", what, s, err)
		}
	}
}

func TestSectionBuilderLimits(t *testing.T) {
	b := SectionBuilder{n: 1<<32 - 1}
	if _, err := b.Add(Entry{Name: "x"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("2^32 entries: %v", err)
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "...": true, " ": true, ".x": true, "a\\b": true, "\xff": true, strings.Repeat("n", 255): true,
		"": false, ".": false, "..": false, "/": false, "a/b": false, "a\x00": false, strings.Repeat("n", 256): false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// Whatever is decoded without an error can be walked to the end.
func FuzzDecodeSection(f *testing.F) {
	good := sample(f)
	f.Add(good)
	f.Add(good[:sectionHeader])
	f.Add(append(slices.Clone(good), "trailing"...))
	for i := 8; i < len(good); i += 7 {
		bad := slices.Clone(good)
		bad[i] ^= 0xff
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, buf []byte) {
		s, err := DecodeSection(buf)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		var b SectionBuilder
		for i := range s.Len() {
			e := s.Entry(i)
			if i > 0 {
				if e.Parent >= i {
					t.Fatalf("entry %d has parent %d", i, e.Parent)
				}
				if at, ok := s.Lookup(e.Parent, e.Name); !ok || at != i {
					t.Fatalf("entry %d is not found by its name: %d, %v", i, at, ok)
				}
			}
			if _, err := b.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		again, err := DecodeSection(b.Encode())
		if err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		for i := range s.Len() {
			if s.Entry(i) != again.Entry(i) {
				t.Fatalf("entry %d: %+v, again %+v", i, s.Entry(i), again.Entry(i))
			}
		}
	})
}
