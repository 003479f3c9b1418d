package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// WriteTable writes a table in Markdown for each part: a line for each metric, a column
// for each side. Behind the figure of another side stands how many times as good ours is.
func (r *Results) WriteTable(w io.Writer) {
	for rest := r.Metrics; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(m Metric) bool { return m.Part != rest[0].Part })
		if n < 0 {
			n = len(rest)
		}
		r.writePart(w, rest[:n])
		rest = rest[n:]
	}
}

func (r *Results) writePart(w io.Writer, metrics []Metric) {
	head := []string{metrics[0].Part, "unit"}
	var sides []Side
	for _, s := range r.Sides {
		if r.measured(s, metrics) {
			sides = append(sides, s)
			head = append(head, s.Name)
		}
	}
	if len(sides) == 0 {
		return
	}
	rows := [][]string{head}
	for _, m := range metrics {
		row, ours, found := []string{m.Name, m.Unit}, r.ours(m), false
		for _, s := range sides {
			v := r.Values(m.ID, s.ID)
			cell := "-"
			if len(v) > 0 {
				found = true
				cell = fmt.Sprintf("%s ±%.0f%%", number(Median(v)), Spread(v))
				if ratio := r.Compare(m, ours.ID, s.ID); !s.Ours && ratio != 0 {
					cell += fmt.Sprintf(" (**%sx**)", number(ratio))
				}
			}
			row = append(row, cell)
		}
		if found {
			rows = append(rows, row)
		}
	}
	writeAligned(w, rows)
	fmt.Fprintln(w)
}

// writeAligned writes rows, of which the first is the head, as a Markdown table that can
// be read as it is.
func writeAligned(w io.Writer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range rows {
		for i, c := range row {
			fmt.Fprintf(w, "| %s%s ", c, strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, n := range width {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", n+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}

// number writes three significant digits, or all before the point.
func number(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}
