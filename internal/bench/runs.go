package bench

import (
	"fmt"
	"math"
	"slices"
)

// Runs are what several contenders have reached in the same runs: by contender,
// one sample for each run, nil where the run failed.
type Runs[M comparable] struct {
	samples map[string][]map[M]float64
	errs    map[string]error // a contender's last failure
}

// NewRuns has none yet.
func NewRuns[M comparable]() *Runs[M] {
	return &Runs[M]{samples: make(map[string][]map[M]float64), errs: make(map[string]error)}
}

// Add takes in a contender's next run, or its failure.
func (r *Runs[M]) Add(contender string, sample map[M]float64, err error) {
	if err != nil {
		sample, r.errs[contender] = nil, err
	}
	r.samples[contender] = append(r.samples[contender], sample)
}

// Values are a contender's figures or, with a base, the ratios to the base's
// within the same run; in order of size.
func (r *Runs[M]) Values(contender, base string, metric M) (values []float64) {
	for i, s := range r.samples[contender] {
		v, ok := s[metric]
		if base != "" && ok {
			var b float64
			if i < len(r.samples[base]) {
				b = r.samples[base][i][metric]
			}
			v, ok = v/b, b != 0
		}
		if ok {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values
}

// Median of the Values; not ok where there are none.
func (r *Runs[M]) Median(contender, base string, metric M) (v float64, ok bool) {
	values := r.Values(contender, base, metric)
	n := len(values)
	if n == 0 {
		return 0, false
	}
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// Cell is a median, with the least and the greatest where it is a ratio; ""
// where there is none.
func (r *Runs[M]) Cell(contender, base string, metric M) string {
	v, ok := r.Median(contender, base, metric)
	if !ok || math.IsNaN(v) {
		return ""
	}
	if base == "" {
		return Figure(v)
	}
	values := r.Values(contender, base, metric)
	return fmt.Sprintf("%s (%s–%s)", Figure(v), Figure(values[0]), Figure(values[len(values)-1]))
}

// Trouble says how many of a contender's runs failed, and why the last did; ""
// where none did.
func (r *Runs[M]) Trouble(contender string) string {
	err := r.errs[contender]
	if err == nil {
		return ""
	}
	failed := 0
	for _, s := range r.samples[contender] {
		if s == nil {
			failed++
		}
	}
	return fmt.Sprintf("of %d runs %d failed, the last: %v", len(r.samples[contender]), failed, err)
}

// Figure has three digits that matter, and names thousands.
func Figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e5:
		return fmt.Sprintf("%.0f k", v/1e3)
	case a >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1 || a == 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
