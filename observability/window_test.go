package observability

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestWindow runs random samples and folds against the definition: current is
// the last sample; average and maximum are those of the samples before the
// last fold, and the last hour's those of the last sixty folds; while these had
// none, the samples since the last fold count for both.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		var open, closed []float64
		var minutes [][]float64
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
				minutes = append(minutes, open)
				open = nil
			},
			"many folds": func(t *rapid.T) {
				for range rapid.IntRange(1, 70).Draw(t, "folds") {
					w.fold()
					closed = append(closed, open...)
					minutes = append(minutes, open)
					open = nil
				}
			},
			"": func(t *rapid.T) {
				samples, hour := closed, slices.Concat(minutes[max(0, len(minutes)-hourFolds):]...)
				if len(hour) == 0 {
					samples, hour = slices.Concat(samples, open), open
				}
				average, maximum := meanAndMax(samples)
				averageHour, maximumHour := meanAndMax(hour)
				g := w.gauge()
				if g.MaximumHour != maximumHour || math.Abs(g.AverageHour-averageHour) > 1e-9*maximum || g.AverageHour > g.MaximumHour {
					t.Fatalf("gauge %+v, want %g and %g of the last hour", g, averageHour, maximumHour)
				}
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

func meanAndMax(samples []float64) (mean, maximum float64) {
	for _, v := range samples {
		mean += v / float64(len(samples))
		maximum = max(maximum, v)
	}
	return mean, maximum
}

func TestWindowOfEqualSamplesIsExact(t *testing.T) {
	var w window
	for i := range 100_000 {
		w.add(0.1)
		if i%60 == 0 {
			w.fold()
		}
	}
	if g := w.gauge(); g != (Gauge{0.1, 0.1, 0.1, 0.1, 0.1}) {
		t.Fatalf("gauge %+v", g)
	}
}
