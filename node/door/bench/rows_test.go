//go:build linux

package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

// TestRows runs the rows that need no other program, small and short: every
// contender gives all the figures of its columns, and every goal can be judged.
func TestRows(t *testing.T) {
	p := &plan{dir: t.TempDir(), runs: 1, files: 3, puts: 2, download: 1, upload: 1, threads: 1, warm: time.Millisecond, time: 50 * time.Millisecond, profiles: t.TempDir()}
	for _, r := range otherRows() {
		if r.id == "get-through-8" || r.id == "grpc-get-64MiB-1" || r.id == "memory-get-plain" || r.id == "memory-put-tls" {
			continue // the same in other numbers
		}
		r.conns = min(r.conns, 4)
		r.size = min(r.size, 2*mib)
		p.rows = append(p.rows, r)
	}
	all, err := p.measure(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	printGoals(t.Output(), all)
	for _, r := range all {
		for _, s := range r.systems {
			if trouble := r.Trouble(s); trouble != "" {
				t.Errorf("%s, %s: %s", r.row.id, s, trouble)
				continue
			}
			for _, m := range r.row.columns {
				v, ok := r.Median(s, "", m)
				missing := m == copied && s != r.systems[0]
				if !ok && !missing || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 || v == 0 && (m == through || m == peakMiB) {
					t.Errorf("%s, %s: %s is %v", r.row.id, s, m, v)
				}
			}
		}
		for _, g := range r.row.goals {
			if verdict := r.judge(&g)[4]; !slices.Contains([]string{"met", "**not met**"}, verdict) {
				t.Errorf("%s: %s: %s", r.row.id, g.text, verdict)
			}
		}
	}
}
