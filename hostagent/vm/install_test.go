package vm

import (
	"bytes"
	"strings"
	"testing"
)

func TestTextOf(t *testing.T) {
	screen := bytes.Repeat([]byte{' ', 7}, 80*25)
	for i, c := range []byte("Press any key\x00\xff") {
		screen[160*3+2*i] = c
	}
	got := textOf(screen)
	lines := strings.Split(got, "\n")
	if len(lines) != 26 || strings.TrimSpace(lines[3]) != "Press any key" || len(lines[0]) != 80 {
		t.Errorf("got %d lines, %q", len(lines), lines[3])
	}
	for _, odd := range [][]byte{nil, {'x'}, make([]byte, 10_000)} {
		if got := textOf(odd); len(got) > 81*25 {
			t.Errorf("%d bytes give %d", len(odd), len(got))
		}
	}
}
