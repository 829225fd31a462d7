package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// results are the samples of a row: by stack, one for each run, nil where
// the run failed.
type results struct {
	row     *row
	samples map[string][]sample
	errs    map[string]error // the last failure of a stack
}

func newResults(r *row) *results {
	return &results{r, make(map[string][]sample), make(map[string]error)}
}

// median of the figures, or of the ratios of runs that lie side by side.
func (r *results) median(stack, base, metric string) (float64, bool) {
	var values []float64
	for i, s := range r.samples[stack] {
		v, ok := s[metric]
		if base != "" && ok {
			var b float64
			if i < len(r.samples[base]) {
				b = r.samples[base][i][metric]
			}
			v /= b
			ok = b != 0
		}
		if ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// spread is half the distance between the quartiles, in percent of the median.
func (r *results) spread(stack, metric string) float64 {
	var values []float64
	for _, s := range r.samples[stack] {
		if v, ok := s[metric]; ok {
			values = append(values, v)
		}
	}
	if len(values) < 2 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	low, high := values[n/4], values[(3*n)/4]
	middle, _ := r.median(stack, "", metric)
	return 100 * (high - low) / 2 / middle
}

// print writes the row as a table.
func (r *results) print(w io.Writer) {
	fmt.Fprintf(w, "\n### %s (`%s`)\n\n", r.row.title, r.row.id)
	bases := r.bases()
	head := []string{"stack", r.row.main.label, "±%"}
	for _, base := range bases {
		head = append(head, "× "+base)
	}
	for _, c := range r.row.more {
		head = append(head, c.label)
	}
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for _, name := range r.row.stacks {
		if _, measured := r.samples[name]; !measured {
			continue
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(r.line(name, bases), " | "))
	}
	if v, ok := r.disturbance(); ok {
		fmt.Fprintf(w, "\nOther programs had %.0f %% of the processors.\n", v)
	}
}

// disturbance is the share of the processors that other programs had during
// the row, in percent.
func (r *results) disturbance() (float64, bool) {
	sum, n := 0.0, 0
	for _, samples := range r.samples {
		for _, s := range samples {
			if v, ok := s[others]; ok {
				sum += v
				n++
			}
		}
	}
	return 100 * sum / float64(max(n, 1)), n > 0
}

func (r *results) line(name string, bases []string) []string {
	main := r.row.main
	v, ok := r.median(name, "", main.metric)
	if !ok {
		return []string{name, fmt.Sprint("failed: ", r.errs[name])}
	}
	cells := []string{name, figure(v / main.unit), fmt.Sprintf("%.0f", r.spread(name, main.metric))}
	for _, base := range bases {
		ratio, ok := r.median(name, base, main.metric)
		cells = append(cells, cell(ratio, ok))
	}
	for _, c := range r.row.more {
		v, ok := r.median(name, "", c.metric)
		cells = append(cells, cell(v/c.unit, ok))
	}
	if err := r.errs[name]; err != nil {
		cells = append(cells, fmt.Sprint("some runs failed: ", err))
	}
	return cells
}

// bases are what the figures are compared with.
func (r *results) bases() []string {
	var bases []string
	if len(r.samples) < 2 {
		return nil
	}
	for _, name := range []string{r.row.stacks[0], "rawmuxgo", "grpc"} {
		if _, ok := r.samples[name]; ok && !slices.Contains(bases, name) {
			bases = append(bases, name)
		}
	}
	return bases
}

func cell(v float64, ok bool) string {
	if !ok || math.IsNaN(v) {
		return ""
	}
	return figure(v)
}

// figure has three digits that matter, and names thousands and millions.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case a >= 1e5:
		return fmt.Sprintf("%.0f k", v/1e3)
	case a >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// printGoals writes what was asked and what came of it. "by CPU" is what the
// ratio of two rates would be if processor time were all that limits them.
func printGoals(w io.Writer, all []*results) {
	fmt.Fprintf(w, "\n### Goals\n\n| work | goal | figure | ratio | by CPU | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range all {
		for _, g := range r.row.goals {
			value, ok := r.median(g.stack, "", g.metric)
			if !ok {
				continue
			}
			judged, ratio, byCPU := value, "", ""
			if g.base != "" {
				if judged, ok = r.median(g.stack, g.base, g.metric); !ok {
					continue
				}
				ratio = figure(judged)
				if cpu, ok := r.median(g.stack, g.base, cpuEach); ok && g.least > 0 {
					byCPU = figure(1 / cpu)
				}
			}
			if g.rounded > 0 {
				judged = math.Round(judged/g.rounded) * g.rounded
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", r.row.title, g.text, figure(value/r.unit(g.metric)), ratio, byCPU, g.verdict(judged))
		}
	}
}

func (g *goal) verdict(v float64) string {
	if g.least > 0 && v < g.least || g.most > 0 && v > g.most {
		return "**not met**"
	}
	return "met"
}

func (r *results) unit(metric string) float64 {
	for _, c := range append(r.row.more, r.row.main) {
		if c.metric == metric {
			return c.unit
		}
	}
	return 1
}
