package observability

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestWindow runs random samples and folds against the definition: current is
// the last sample; average and maximum are those of the samples before the
// last fold, or of all before the first one that had any.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		var open, closed []float64
		var current float64
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				current = rapid.Float64Range(0, 1e15).Draw(t, "sample")
				w.add(current)
				open = append(open, current)
			},
			"fold": func(*rapid.T) {
				w.fold()
				closed = append(closed, open...)
				open = nil
			},
			"": func(t *rapid.T) {
				samples := closed
				if len(samples) == 0 {
					samples = open
				}
				var sum, maximum float64
				for _, v := range samples {
					sum += v
					maximum = max(maximum, v)
				}
				average := sum / math.Max(1, float64(len(samples)))
				g := w.gauge()
				if g.Current != current || g.Maximum != maximum {
					t.Fatalf("gauge %+v, want current %g and maximum %g", g, current, maximum)
				}
				if math.Abs(g.Average-average) > 1e-9*maximum {
					t.Fatalf("average %g, want %g", g.Average, average)
				}
				if g.Average > g.Maximum {
					t.Fatalf("average %g above maximum %g", g.Average, g.Maximum)
				}
			},
		})
	})
}

func TestWindowOfEqualSamplesIsExact(t *testing.T) {
	var w window
	for i := range 100_000 {
		w.add(0.1)
		if i%60 == 0 {
			w.fold()
		}
	}
	if g := w.gauge(); g != (Gauge{Current: 0.1, Average: 0.1, Maximum: 0.1}) {
		t.Fatalf("gauge %+v", g)
	}
}
