package report

import (
	"math"
	"slices"
)

// Median is the middle of the values, 0 of none.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile is the value below which the fraction q of the values lies, by linear
// interpolation; 0 of none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	at := q * float64(len(s)-1)
	low := int(math.Floor(at))
	if low+1 >= len(s) {
		return s[len(s)-1]
	}
	part := at - float64(low)
	return s[low]*(1-part) + s[low+1]*part
}

// Spread is the half of the middle half: the quartiles' distance over the median, in
// percent. With few samples it says little, but says it of both sides alike.
func Spread(values []float64) float64 {
	m := Median(values)
	if m == 0 {
		return 0
	}
	return 100 * (Quantile(values, 0.75) - Quantile(values, 0.25)) / 2 / m
}
