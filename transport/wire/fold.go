package wire

import (
	"unicode"
	"unicode/utf8"
)

// FoldName returns the form of a file name that all names share which differ
// only in case: each character replaced by the smallest one that Unicode's
// simple case folding makes equal to it (so letters of ASCII become capitals).
// Bytes that aren't UTF-8 stay as they are. Both sides look up names that
// Windows asks for in another case by it.
func FoldName(name string) string {
	for i := 0; i < len(name); i++ {
		if c := name[i]; c >= utf8.RuneSelf || 'a' <= c && c <= 'z' {
			return foldFrom(name, i)
		}
	}
	return name
}

// foldFrom folds name, whose first i bytes need no folding.
func foldFrom(name string, i int) string {
	buf := append(make([]byte, 0, len(name)+2), name[:i]...)
	for i < len(name) {
		c := name[i]
		if c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			buf = append(buf, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && n == 1 {
			buf = append(buf, c)
		} else {
			buf = utf8.AppendRune(buf, foldRune(r))
		}
		i += n
	}
	return string(buf)
}

func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	return least
}
