//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gridloom/gridloom/internal/bench"
)

// results are the samples of a row, by contender.
type results struct {
	*bench.Runs[metric]
	row     *row
	systems []string
}

func newResults(r *row) *results { return &results{Runs: bench.NewRuns[metric](), row: r} }

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
		if trouble := r.Trouble(s); trouble != "" {
			all = append(all, fmt.Sprintf("`%s`, %s: %s", r.row.id, s, trouble))
		}
	}
	if r.row.base == "nginx" && !slices.Contains(r.systems, "nginx") {
		all = append(all, fmt.Sprintf("`%s` has no ratio: %v", r.row.id, errNoNginx))
	}
	return all
}

// cell is a median, with its spread where it is a ratio.
func (r *results) cell(system, base string, m metric) string {
	if m != others {
		return r.Cell(system, base, m)
	}
	v, ok := r.Median(system, "", m)
	if !ok || base != "" {
		return ""
	}
	return fmt.Sprintf("%.0f %%", 100*v)
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
	value, ok := r.Median(system, "", g.metric)
	if !ok {
		return none
	}
	judged, ratio, cpu, both := value, "", "", ""
	if g.below == 0 {
		if judged, ok = r.Median(system, r.row.base, g.metric); !ok {
			return []string{bench.Figure(value), "", "", "", "not measured"}
		}
		ratio = r.cell(system, r.row.base, g.metric)
		cpu, both = r.cell(system, r.row.base, cpuGiB), r.cell(system, r.row.base, bothGiB)
	}
	verdict := "met"
	if g.least > 0 && judged < g.least || g.most > 0 && judged > g.most || g.below > 0 && judged >= g.below {
		verdict = "**not met**"
	}
	return []string{bench.Figure(value), ratio, cpu, both, verdict}
}
