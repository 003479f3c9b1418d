package report

import "io"

// A Target is what the design asks for: a ratio of two sides in one metric or, if it has
// a Value, that.
type Target struct {
	Name      string
	Metric    string // its id
	Ours      string // side
	Peer      string // side
	Must, Aim float64

	Value  func(*Results) float64 // 0: not measured
	Better Better                 // of the Value; a ratio's is Higher
	Unit   string
}

// reached is the target's value, 0 if it wasn't measured.
func (t *Target) reached(r *Results) float64 {
	if t.Value != nil {
		return t.Value(r)
	}
	m, _ := r.Metric(t.Metric)
	return r.Compare(m, t.Ours, t.Peer)
}

func (t *Target) meets(v, want float64) bool {
	if t.Better == Lower {
		return v <= want
	}
	return v >= want
}

// verdict says how far a value got.
func (t *Target) verdict(v float64) string {
	switch {
	case v == 0:
		return "not measured"
	case t.meets(v, t.Aim):
		return "aim"
	case t.meets(v, t.Must):
		return "must"
	}
	return "MISSED"
}

// WriteTargets writes what was asked for and what was reached, as a Markdown table.
func (r *Results) WriteTargets(w io.Writer, targets []Target) {
	rows := [][]string{{"target", "must", "aim", "reached", ""}}
	for _, t := range targets {
		unit := t.Unit
		if unit == "" {
			unit = "x"
		}
		v := t.reached(r)
		value := number(v) + " " + unit
		if v == 0 {
			value = "-"
		}
		rows = append(rows, []string{t.Name, number(t.Must) + " " + unit, number(t.Aim) + " " + unit, value, t.verdict(v)})
	}
	writeAligned(w, rows)
}
