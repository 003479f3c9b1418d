package build

import (
	"fmt"
	"strings"
	"testing"

	"winvm/hostagent/outdiff"
)

func TestDifferText(t *testing.T) {
	var list []outdiff.Difference
	for i := range maxNamed + 5 {
		at := int64(i)
		list = append(list, outdiff.Difference{Path: fmt.Sprint("f", i), Kind: outdiff.KindContent, Offset: &at, First: "1 bytes", Second: "2 bytes"})
	}
	if got := differText(list[:1]); got != "two builds differ\n  \"f0\": content differs from byte 0 on (1 bytes then 2 bytes)" {
		t.Errorf("one: %q", got)
	}
	got := differText(list)
	if !strings.HasPrefix(got, "two builds differ, in 25 places\n") || !strings.HasSuffix(got, "\n  and 5 more; --result has up to 1000") || strings.Count(got, "\n") != maxNamed+1 {
		t.Errorf("many: %q", got)
	}
}
