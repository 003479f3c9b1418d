package report_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"

	"winvm/bench/report"
)

var update = flag.Bool("update", false, "write the golden files")

// results are of three sides, one of which has no figure for one metric.
func results() *report.Results {
	r := &report.Results{
		Metrics: []report.Metric{
			{ID: "read", Name: "sequential read", Unit: "MB/s", Better: report.Higher},
			{ID: "walk", Name: "walk & lstat", Unit: "us", Better: report.Lower},
			{ID: "none", Name: "measured nowhere", Unit: "us", Better: report.Lower},
			{ID: "smb", Name: "walk", Unit: "ms", Better: report.Lower, Part: "over SMB"},
			{ID: "nowhere", Name: "nowhere", Unit: "ms", Better: report.Lower, Part: "a part without figures"},
		},
		Sides: []report.Side{
			{ID: "ours", Name: "winvm", Ours: true},
			{ID: "9p", Name: "virtio-9p"},
			{ID: "raw", Name: "raw port"},
			{ID: "smb-ours", Name: "winvm over SMB", Ours: true},
			{ID: "smb-9p", Name: "9p + Samba"},
		},
	}
	for i, v := range []float64{100, 300, 200, 210, 190} {
		r.Add("read", "ours", v)
		r.Add("read", "9p", v/2)
		r.Add("read", "raw", v*100)
		r.Add("walk", "ours", v/100)
		r.Add("walk", "9p", float64(i+8))
		r.Add("smb", "smb-ours", 2)
		r.Add("smb", "smb-9p", 3)
	}
	return r
}

var targets = []report.Target{
	{Name: "read against 9p", Metric: "read", Ours: "ours", Peer: "9p", Must: 1.5, Aim: 3},
	{Name: "walk against 9p", Metric: "walk", Ours: "ours", Peer: "9p", Must: 3, Aim: 5},
	{Name: "read against the port", Metric: "read", Ours: "ours", Peer: "raw", Must: 0.85, Aim: 0.95},
	{Name: "walk against the port", Metric: "walk", Ours: "ours", Peer: "raw", Must: 1, Aim: 1},
	{
		Name: "a walk at most", Must: 2.5, Aim: 1, Unit: "us", Better: report.Lower,
		Value: func(r *report.Results) float64 { return report.Median(r.Values("walk", "ours")) },
	},
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, got)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	results().WriteTable(&b)
	b.WriteByte('\n')
	results().WriteTargets(&b, targets)
	golden(t, "table.md", b.Bytes())
}

func TestSVG(t *testing.T) {
	var b bytes.Buffer
	results().WriteSVG(&b, "winvm <beside> the others")
	golden(t, "chart.svg", b.Bytes())
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := results().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "bench.json", b.Bytes())
	var rows []map[string]any
	if err := json.Unmarshal(b.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"workload", "unit", "better", "ours", "peer", "peer_name", "ratio"} {
		if _, ok := rows[0][f]; !ok {
			t.Errorf("no field %s", f)
		}
	}
	b.Reset()
	if err := new(report.Results).WriteJSON(&b); err != nil || b.String() != "[]\n" {
		t.Errorf("of no results: %q, %v", b.String(), err)
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.99, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{1, 2, 3, 4, 5}, 0, 1},
		{[]float64{1, 2, 3, 4, 5}, 1, 5},
		{[]float64{1, 2, 3, 4, 5}, 0.9, 4.6},
	} {
		if got := report.Quantile(c.values, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("Quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
	if got := report.Spread([]float64{8, 9, 10, 11, 12}); math.Abs(got-10) > 1e-9 {
		t.Errorf("Spread = %v, want 10", got)
	}
	values := []float64{3, 1, 2}
	if report.Median(values); values[0] != 3 {
		t.Error("Median has sorted its argument")
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		better     report.Better
		a, b, want float64
	}{
		{report.Higher, 200, 100, 2},
		{report.Lower, 200, 100, 0.5},
		{report.Lower, 0, 100, 0},
		{report.Higher, 100, 0, 0},
	} {
		if got := report.Ratio(c.better, c.a, c.b); got != c.want {
			t.Errorf("Ratio(%s, %v, %v) = %v, want %v", c.better, c.a, c.b, got, c.want)
		}
	}
}
