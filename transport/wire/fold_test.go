package wire

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestFoldName(t *testing.T) {
	for _, same := range [][]string{
		{"", ""},
		{"MAKEFILE", "Makefile", "makefile", "mAkEfIlE"},
		{"STRAßE", "straße", "Straße"},
		{"ÄÖÜ", "äöü"},
		{"Σίσυφος", "ΣΊΣΥΦΟΣ", "σίσυφοσ"},
		{"ПРИВЕТ", "привет"},
		{"a\xffB", "A\xffb"},
		{"日本語.TXT", "日本語.txt"},
		{"K", "k", "\u212a"}, // the Kelvin sign
		{"\xc3X", "\xc3x"},
	} {
		for _, name := range same[1:] {
			if FoldName(name) != FoldName(same[0]) {
				t.Errorf("%q and %q fold to %q and %q", name, same[0], FoldName(name), FoldName(same[0]))
			}
		}
	}
	for _, differ := range [][2]string{{"a", "b"}, {"a", "á"}, {"i", "İ"}, {"ß", "ss"}, {"\xff", "\xfe"}, {"é", "e\u0301"}, {"[", "{"}, {"@", "`"}} {
		if FoldName(differ[0]) == FoldName(differ[1]) {
			t.Errorf("%q and %q fold to the same", differ[0], differ[1])
		}
	}
}

// Folding is about single characters: every one folds as its upper and lower case.
func TestFoldEveryRune(t *testing.T) {
	for r := rune(1); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		f := FoldName(string(r))
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			if FoldName(string(other)) != f {
				t.Fatalf("%q and %q fold differently", r, other)
			}
		}
		if FoldName(f) != f {
			t.Fatalf("%q folds to %q, that to %q", r, f, FoldName(f))
		}
	}
}

func FuzzFoldName(f *testing.F) {
	for _, s := range []string{"Makefile", "ÄÖÜ", "\xff\xc3", "ſK\u212a", "\xe2\x84"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := FoldName(s)
		if FoldName(once) != once {
			t.Fatalf("%q folds to %q, that to %q", s, once, FoldName(once))
		}
	})
}

func BenchmarkFoldName(b *testing.B) {
	for b.Loop() {
		FoldName("Some-ordinary-file-name.h")
	}
}
