//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// results are the samples of a row: by contender, one for each run, nil where
// the run failed.
type results struct {
	row     *row
	systems []string
	samples map[string][]sample
	errs    map[string]error // a contender's last failure
}

func newResults(r *row) *results {
	return &results{row: r, samples: make(map[string][]sample), errs: make(map[string]error)}
}

func (r *results) add(system string, s sample, err error) {
	if err != nil {
		s, r.errs[system] = nil, err
	}
	r.samples[system] = append(r.samples[system], s)
}

// values are a contender's figures or, with a base, the ratios to the base's
// within the same run.
func (r *results) values(system, base string, m metric) (values []float64) {
	for i, s := range r.samples[system] {
		v, ok := s[m]
		if base != "" && ok {
			var b float64
			if i < len(r.samples[base]) {
				b = r.samples[base][i][m]
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
func (r *results) median(system, base string, m metric) (float64, bool) {
	values := r.values(system, base, m)
	n := len(values)
	if n == 0 {
		return 0, false
	}
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// print writes the row's lines of the table of its group, of which it begins a
// new one if it isn't like the row before.
func (r *results) print(w io.Writer, before *row) {
	if before == nil || before.group != r.row.group || !slices.Equal(before.columns, r.row.columns) {
		fmt.Fprint(w, "\n| row | |")
		for _, m := range r.row.columns {
			fmt.Fprintf(w, " %s |", m)
		}
		fmt.Fprintf(w, "\n|%s\n", strings.Repeat(" --- |", len(r.row.columns)+2))
	}
	id := "`" + r.row.id + "`"
	line := func(label, system, base string) {
		fmt.Fprintf(w, "| %s | %s |", id, label)
		for _, m := range r.row.columns {
			fmt.Fprintf(w, " %s |", r.cell(system, base, m))
		}
		fmt.Fprintln(w)
		id = ""
	}
	for _, s := range r.systems {
		line(s, s, "")
	}
	for _, s := range r.systems {
		if s != r.row.base && slices.Contains(r.systems, r.row.base) {
			line(s+" ÷ "+r.row.base, s, r.row.base)
		}
	}
}

// notes are what the row's figures are not, if anything.
func (r *results) notes() (all []string) {
	for _, s := range r.systems {
		if err := r.errs[s]; err != nil {
			all = append(all, fmt.Sprintf("`%s`, %s: of %d runs %d failed, the last: %v", r.row.id, s, len(r.samples[s]), r.failures(s), err))
		}
	}
	if r.row.base == "nginx" && !slices.Contains(r.systems, "nginx") {
		all = append(all, fmt.Sprintf("`%s` has no ratio: %v", r.row.id, errNoNginx))
	}
	return all
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
func (r *results) cell(system, base string, m metric) string {
	v, ok := r.median(system, base, m)
	switch {
	case !ok || math.IsNaN(v) || m == others && base != "":
		return ""
	case m == others:
		return fmt.Sprintf("%.0f %%", 100*v)
	case base == "":
		return figure(v)
	}
	values := r.values(system, base, m)
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
	case a >= 0.1 || a == 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// printGoals writes what was asked and what came of it. "CPU" is the ratio of
// what was used for the same bytes, by the servers and by them and the clients:
// other programs touch that least, and the kernel has a part of a server's work
// done where the client is told of it.
func printGoals(w io.Writer, all []*results) {
	fmt.Fprint(w, "\n| row | goal | figure | ratio | server CPU | CPU of both | |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range all {
		for _, g := range r.row.goals {
			fmt.Fprintf(w, "| `%s` | %s | %s |\n", r.row.id, g.text, strings.Join(r.judge(&g), " | "))
		}
	}
	for _, r := range all {
		for _, note := range r.notes() {
			fmt.Fprintf(w, "\n%s\n", note)
		}
	}
}

// judge gives the figure, the ratios if the goal is one, and the verdict.
func (r *results) judge(g *goal) []string {
	none := []string{"", "", "", "", "not measured"}
	if len(r.systems) == 0 {
		return none
	}
	system := r.systems[0]
	value, ok := r.median(system, "", g.metric)
	if !ok {
		return none
	}
	judged, ratio, cpu, both := value, "", "", ""
	if g.below == 0 {
		if judged, ok = r.median(system, r.row.base, g.metric); !ok {
			return []string{figure(value), "", "", "", "not measured"}
		}
		ratio = r.cell(system, r.row.base, g.metric)
		cpu, both = r.cell(system, r.row.base, cpuGiB), r.cell(system, r.row.base, bothGiB)
	}
	verdict := "met"
	if g.least > 0 && judged < g.least || g.most > 0 && judged > g.most || g.below > 0 && judged >= g.below {
		verdict = "**not met**"
	}
	return []string{figure(value), ratio, cpu, both, verdict}
}
