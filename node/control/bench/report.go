package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/gridloom/gridloom/internal/bench"
)

// results are the samples of a row, by system.
type results struct {
	*bench.Runs[string]
	row *row
}

func newResults(r *row) *results { return &results{bench.NewRuns[string](), r} }

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
		if trouble := r.Trouble(sys.name); trouble != "" {
			fmt.Fprintf(w, "\n%s: %s\n", sys.name, trouble)
		}
	}
}

// cell is a median, with its spread where it is a ratio.
func (r *results) cell(system, base, metric string) string {
	if metric != others {
		return r.Cell(system, base, metric)
	}
	v, ok := r.Median(system, "", metric)
	if !ok || base != "" {
		return ""
	}
	return fmt.Sprintf("%.0f %%", 100*v)
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
	value, ok := r.Median("gridloom", "", g.metric)
	if !ok {
		return []string{"", "", "", "not measured"}
	}
	judged, ratio, byCPU := value, "", ""
	if g.ofEtcd {
		if judged, ok = r.Median("gridloom", "etcd", g.metric); !ok {
			return []string{bench.Figure(value), "", "", "not measured"}
		}
		ratio = bench.Figure(judged)
		if cpu, ok := r.Median("gridloom", "etcd", cpuEach); ok && g.metric == rate {
			byCPU = bench.Figure(1 / cpu)
		}
	}
	verdict := "met"
	if g.least > 0 && judged < g.least || g.most > 0 && judged > g.most || g.below > 0 && judged >= g.below {
		verdict = "**not met**"
	}
	return []string{bench.Figure(value), ratio, byCPU, verdict}
}
