package main

import (
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	s := func(d ...time.Duration) (out []time.Duration) {
		for _, x := range d {
			out = append(out, x*time.Second)
		}
		return out
	}
	var b strings.Builder
	report(&b, []side{{name: "winvm", took: s(2, 1, 3)}, {name: "cold", took: s(12, 20, 6, 8)}}, 1500*time.Millisecond, 34e6)
	for _, want := range []string{
		"| winvm | 2.00 s | 1.00 s | 3.00 s | 1.0 x |", "| cold | 10.00 s | 6.00 s | 20.00 s | 5.0 x |", "1.5 s to save, 34 MB",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}
