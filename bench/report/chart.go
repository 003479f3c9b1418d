package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Measures of the chart, in pixels.
const (
	chartLeft   = 330 // where the axis begins: names stand to its left
	chartWide   = 560 // of the axis
	chartRow    = 22
	chartHead   = 84
	chartFoot   = 34
	chartDot    = 5
	chartMargin = 20
)

// chartRange is how far the axis goes: from 1/chartRange to chartRange times as good.
// What lies beyond stands at its end.
const chartRange = 64.0

// colours are Okabe and Ito's, which can be told apart without seeing colours well.
var colours = []string{"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"}

// WriteSVG draws, for each metric, how many times as good the first of our sides is as
// each other one: a dot to the right of the middle is in our favour. The axis is
// logarithmic.
func (r *Results) WriteSVG(w io.Writer, title string) {
	var peers []Side
	for _, s := range r.Sides {
		if !s.Ours && r.measured(s, r.Metrics) {
			peers = append(peers, s)
		}
	}
	var rows []Metric
	for _, m := range r.Metrics {
		if slices.ContainsFunc(peers, func(p Side) bool { return r.Compare(m, r.ours(m).ID, p.ID) != 0 }) {
			rows = append(rows, m)
		}
	}
	wide, high := chartLeft+chartWide+chartMargin, chartHead+chartRow*len(rows)+chartFoot
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", wide, high, wide, high)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", wide, high)
	text(w, chartMargin, 20, "start", `font-weight="bold"`, title)
	legend(w, peers)
	axis(w, chartHead+chartRow*len(rows))
	for i, m := range rows {
		y := chartHead + chartRow*i + chartRow/2
		text(w, chartLeft-10, y+4, "end", "", m.Name)
		for n, p := range peers {
			ratio := r.Compare(m, r.ours(m).ID, p.ID)
			if ratio == 0 {
				continue
			}
			fmt.Fprintf(w, `<circle cx="%.1f" cy="%d" r="%d" fill="%s" fill-opacity="0.85"><title>%s: %sx %s</title></circle>`+"\n",
				position(ratio), y, chartDot, colours[n%len(colours)], escape(m.Name), number(ratio), escape(p.Name))
		}
	}
	fmt.Fprintln(w, "</svg>")
}

func legend(w io.Writer, peers []Side) {
	x, y := chartMargin, 42
	for n, p := range peers {
		length := 2*chartDot + 22 + 7*len(p.Name)
		if x+length > chartLeft+chartWide {
			x, y = chartMargin, y+18
		}
		fmt.Fprintf(w, `<circle cx="%d" cy="%d" r="%d" fill="%s"/>`+"\n", x+chartDot, y-4, chartDot, colours[n%len(colours)])
		text(w, x+2*chartDot+5, y, "start", "", p.Name)
		x += length
	}
}

func axis(w io.Writer, bottom int) {
	for v := 1 / chartRange; v <= chartRange; v *= 2 {
		style := `stroke="#ddd"`
		if v == 1 {
			style = `stroke="#444" stroke-width="1.5"`
		}
		x := position(v)
		fmt.Fprintf(w, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" %s/>`+"\n", x, chartHead-6, x, bottom, style)
		label := fmt.Sprintf("%g", v)
		if v < 1 {
			label = fmt.Sprintf("1/%g", 1/v)
		}
		text(w, int(x), bottom+14, "middle", `fill="#555"`, label)
	}
	text(w, chartLeft, bottom+28, "start", `fill="#555"`, "← the other one is better")
	text(w, chartLeft+chartWide, bottom+28, "end", `fill="#555"`, "winvm is better →")
}

// position is the place of a ratio on the axis.
func position(ratio float64) float64 {
	part := math.Log(ratio)/math.Log(chartRange)/2 + 0.5
	return chartLeft + chartWide*min(max(part, 0), 1)
}

func text(w io.Writer, x, y int, anchor, style, s string) {
	if style != "" {
		style = " " + style
	}
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, style, escape(s))
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
