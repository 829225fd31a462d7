package control

import (
	"slices"
	"time"
)

// MedianClock is the median of what clocks show, each as its distance from one and
// the same clock, which is among them. Whoever compares a clock takes all of them,
// its own included: one that is off doesn't make the others look so, as it would
// with three nodes if each were compared with the other two. Of two that differ
// nobody knows which is wrong, and of one there is nothing to compare it with: then
// agreed is false, and the median 0.
func MedianClock(clocks []time.Duration) (median time.Duration, agreed bool) {
	n := len(clocks)
	if n < 3 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(clocks))
	if median = sorted[n/2]; n%2 == 0 {
		median = sorted[n/2-1] + (median-sorted[n/2-1])/2
	}
	return median, true
}
