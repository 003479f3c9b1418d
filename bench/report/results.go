package report

import (
	"encoding/json"
	"io"
	"slices"
)

// Better says which of two values is the better one.
type Better string

// Directions.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
)

// A Metric is one figure that a benchmark has for each side.
type Metric struct {
	ID     string
	Name   string // for people
	Unit   string
	Better Better
	Part   string // of the report, its heading; metrics of a part stand together
}

// A Side is who was measured.
type Side struct {
	ID, Name string
	Ours     bool
}

// Results are all samples of a run.
type Results struct {
	Metrics []Metric
	Sides   []Side
	values  map[key][]float64
}

type key struct{ metric, side string }

// Add adds a sample.
func (r *Results) Add(metric, side string, value float64) {
	if r.values == nil {
		r.values = map[key][]float64{}
	}
	k := key{metric, side}
	r.values[k] = append(r.values[k], value)
}

// Values are the samples of a metric and a side.
func (r *Results) Values(metric, side string) []float64 { return r.values[key{metric, side}] }

// A Row compares ours with one other side in one metric.
type Row struct {
	Workload string  `json:"workload"`
	Unit     string  `json:"unit"`
	Better   Better  `json:"better"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peer_name"`
	// Ratio is how many times as good ours is: above 1 it is the better one.
	Ratio float64 `json:"ratio"`

	OursName   string  `json:"ours_name"`
	OursSpread float64 `json:"ours_spread_percent"`
	PeerSpread float64 `json:"peer_spread_percent"`
	Samples    int     `json:"samples"`
}

// Ratio is how many times as good a is as b; 0 if that can't be said.
func Ratio(better Better, a, b float64) float64 {
	if better == Lower {
		a, b = b, a
	}
	if b == 0 {
		return 0
	}
	return a / b
}

// Compare is the ratio of the medians of two sides, 0 without samples of both.
func (r *Results) Compare(m Metric, a, b string) float64 {
	return Ratio(m.Better, Median(r.Values(m.ID, a)), Median(r.Values(m.ID, b)))
}

// Metric finds a metric by its id.
func (r *Results) Metric(id string) (Metric, bool) {
	for _, m := range r.Metrics {
		if m.ID == id {
			return m, true
		}
	}
	return Metric{}, false
}

// ours is the first of our sides that has the metric.
func (r *Results) ours(m Metric) Side {
	for _, s := range r.Sides {
		if s.Ours && len(r.Values(m.ID, s.ID)) > 0 {
			return s
		}
	}
	return Side{}
}

// measured reports whether a side has any of the metrics.
func (r *Results) measured(s Side, metrics []Metric) bool {
	return slices.ContainsFunc(metrics, func(m Metric) bool { return len(r.Values(m.ID, s.ID)) > 0 })
}

// Rows are all comparisons, in the order of metrics, of our sides, of the others.
func (r *Results) Rows() []Row {
	rows := []Row{} // never null in JSON
	for _, m := range r.Metrics {
		for _, o := range r.Sides {
			ours := r.Values(m.ID, o.ID)
			if !o.Ours || len(ours) == 0 {
				continue
			}
			for _, p := range r.Sides {
				peer := r.Values(m.ID, p.ID)
				if p.Ours || len(peer) == 0 {
					continue
				}
				rows = append(rows, Row{
					Workload: m.Name, Unit: m.Unit, Better: m.Better,
					Ours: Median(ours), Peer: Median(peer), PeerName: p.Name, Ratio: r.Compare(m, o.ID, p.ID),
					OursName: o.Name, OursSpread: Spread(ours), PeerSpread: Spread(peer), Samples: min(len(ours), len(peer)),
				})
			}
		}
	}
	return rows
}

// WriteJSON writes the rows.
func (r *Results) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r.Rows())
}
