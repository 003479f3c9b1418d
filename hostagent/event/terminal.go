package event

import (
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// A screen is what is known of the terminal that lines for people go to.
type screen struct {
	f       *os.File // nil: not a terminal, lines are written as they are
	colours bool
}

// newScreen looks at w. Colours are left out with NO_COLOR set to anything, and on
// a terminal that says it is dumb.
func newScreen(w io.Writer) screen {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return screen{}
	}
	return screen{f: f, colours: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// fit makes one line of s, no wider than the terminal is now: control characters
// become spaces, and what is too long ends in "...". A character counts as one column.
func (s screen) fit(line string) string {
	if s.f == nil {
		return line
	}
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, line)
	width, _, err := term.GetSize(int(s.f.Fd())) // it may have been resized since
	r := []rune(line)
	if err != nil || width < 4 || len(r) <= width {
		return line
	}
	return string(r[:width-3]) + "..."
}

// Colours, as SGR parameters (ECMA-48, 8.3.117).
const (
	faint  = "2"
	yellow = "33"
)

func (s screen) colour(sgr, text string) string {
	if !s.colours {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}
