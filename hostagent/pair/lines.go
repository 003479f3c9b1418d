package pair

import (
	"strings"
	"unicode"
)

// lastLines returns the last n lines that have something on them, indented and
// without what could confuse a terminal.
func lastLines(text string, n int) string {
	var out []string
	lines := strings.Split(text, "\n")
	for i := len(lines) - 1; i >= 0 && len(out) < n; i-- {
		line := strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return -1
		}, lines[i])
		if line = strings.TrimSpace(line); line != "" {
			out = append([]string{"    " + line}, out...)
		}
	}
	return strings.Join(out, "\n")
}
