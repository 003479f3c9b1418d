package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// WriteTable writes a table in Markdown: a line for each metric, a column for each side.
// Behind the figure of another side stands how many times as good ours is.
func (r *Results) WriteTable(w io.Writer) {
	var ours Side
	for _, s := range r.Sides {
		if s.Ours {
			ours = s
			break
		}
	}
	head := []string{"", "unit"}
	var sides []Side
	for _, s := range r.Sides {
		if r.measured(s) {
			sides = append(sides, s)
			head = append(head, s.Name)
		}
	}
	rows := [][]string{head}
	for _, m := range r.Metrics {
		row, any := []string{m.Name, m.Unit}, false
		for _, s := range sides {
			v := r.Values(m.ID, s.ID)
			cell := "-"
			if len(v) > 0 {
				any = true
				cell = fmt.Sprintf("%s ±%.0f%%", number(Median(v)), Spread(v))
				if ratio := r.Compare(m, ours.ID, s.ID); !s.Ours && ratio != 0 {
					cell += fmt.Sprintf(" (**%sx**)", number(ratio))
				}
			}
			row = append(row, cell)
		}
		if any {
			rows = append(rows, row)
		}
	}
	writeAligned(w, rows)
}

func (r *Results) measured(s Side) bool {
	for _, m := range r.Metrics {
		if len(r.Values(m.ID, s.ID)) > 0 {
			return true
		}
	}
	return false
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
