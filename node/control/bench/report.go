package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// results are the samples of a row: by system, one for each run, nil where
// the run failed.
type results struct {
	row     *row
	samples map[string][]sample
	errs    map[string]error // a system's last failure
}

func newResults(r *row) *results {
	return &results{r, make(map[string][]sample), make(map[string]error)}
}

func (r *results) add(system string, s sample, err error) {
	if err != nil {
		s, r.errs[system] = nil, err
	}
	r.samples[system] = append(r.samples[system], s)
}

// values are a system's figures or, with a base, the ratios to the base's
// within the same run.
func (r *results) values(system, base, metric string) (values []float64) {
	for i, s := range r.samples[system] {
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

// median of the values; not ok where there are none.
func (r *results) median(system, base, metric string) (float64, bool) {
	values := r.values(system, base, metric)
	n := len(values)
	if n == 0 {
		return 0, false
	}
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// print writes the row as a table.
func (r *results) print(w io.Writer, p *plan) {
	fmt.Fprintf(w, "\n### %s (`%s`)\n\n", r.row.title(p), r.row.id)
	columns := r.row.columns()
	head := []string{"system"}
	for _, c := range columns {
		head = append(head, c.label)
	}
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for _, sys := range p.systems {
		cells := []string{sys.name}
		for _, c := range columns {
			cells = append(cells, r.cell(sys.name, "", c.metric))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	if len(p.systems) == 2 {
		cells := []string{"ratio"}
		for _, c := range columns {
			cells = append(cells, r.cell(p.systems[0].name, p.systems[1].name, c.metric))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	for _, sys := range p.systems {
		if err := r.errs[sys.name]; err != nil {
			fmt.Fprintf(w, "\n%s: of %d runs %d failed, the last: %v\n", sys.name, len(r.samples[sys.name]), r.failures(sys.name), err)
		}
	}
}

func (r *results) failures(system string) (n int) {
	for _, s := range r.samples[system] {
		if s == nil {
			n++
		}
	}
	return n
}

// cell is a median, with its spread where it is a ratio.
func (r *results) cell(system, base, metric string) string {
	v, ok := r.median(system, base, metric)
	if !ok || math.IsNaN(v) {
		return ""
	}
	if metric == others {
		if base != "" {
			return ""
		}
		return fmt.Sprintf("%.0f %%", 100*v)
	}
	if base == "" {
		return figure(v)
	}
	values := r.values(system, base, metric)
	return fmt.Sprintf("%s (%s–%s)", figure(v), figure(values[0]), figure(values[len(values)-1]))
}

// figure has three digits that matter, and names thousands.
func figure(v float64) string {
	switch a := math.Abs(v); {
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

// printGoals writes what was asked and what came of it. "By CPU" is what the
// ratio of two rates would be if processor time were all that limits them.
func printGoals(w io.Writer, p *plan, all []*results) {
	fmt.Fprint(w, "\n### Goals\n\n| work | goal | gridloom | ratio | by CPU | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range all {
		for _, g := range r.row.goals {
			fmt.Fprintf(w, "| %s | %s | %s |\n", r.row.title(p), g.text, strings.Join(r.judge(&g), " | "))
		}
	}
}

// judge gives the figure, the ratios if the goal is one, and the verdict.
func (r *results) judge(g *goal) []string {
	value, ok := r.median("gridloom", "", g.metric)
	if !ok {
		return []string{"", "", "", "not measured"}
	}
	judged, ratio, byCPU := value, "", ""
	if g.ofEtcd {
		if judged, ok = r.median("gridloom", "etcd", g.metric); !ok {
			return []string{figure(value), "", "", "not measured"}
		}
		ratio = figure(judged)
		if cpu, ok := r.median("gridloom", "etcd", cpuEach); ok && g.metric == rate {
			byCPU = figure(1 / cpu)
		}
	}
	verdict := "met"
	if g.least > 0 && judged < g.least || g.most > 0 && judged > g.most || g.below > 0 && judged >= g.below {
		verdict = "**not met**"
	}
	return []string{figure(value), ratio, byCPU, verdict}
}
