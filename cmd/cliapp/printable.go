package cliapp

import (
	"strings"
	"unicode"
)

// Printable takes out of a message what could confuse a terminal: some of it may
// have come from a VM.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}

// PrintableLine is text that stays within its line and column, too.
func PrintableLine(s string) string {
	return Printable(strings.NewReplacer("\n", " ", "\t", " ").Replace(s))
}
