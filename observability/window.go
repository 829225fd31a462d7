package observability

// hourFolds is how many folds the last hour has: those of an hour of minutes.
const hourFolds = 60

// window keeps what became of one value: the last sample, mean and maximum
// since the start, and those of the last hour. Samples are gathered in open,
// and each minute fold moves them to closed and to the hour, from which gauge
// answers; while the hour has no sample, as before the first fold, it answers
// from open too. It has a fixed size, whatever its age: some 1.5 KiB.
type window struct {
	current      float64
	open, closed tally
	hour         tally            // of minutes, merged
	minutes      [hourFolds]tally // the last hour's, a ring
	next         int              // the oldest of them, which is next to go
}

func (w *window) add(v float64) {
	w.current = v
	w.open.merge(tally{n: 1, mean: v, max: v})
}

// fold ends a minute, which may have had no sample.
func (w *window) fold() {
	w.closed.merge(w.open)
	w.minutes[w.next] = w.open
	w.next = (w.next + 1) % hourFolds
	w.open = tally{}
	w.hour = tally{}
	for i := range w.minutes {
		w.hour.merge(w.minutes[(w.next+i)%hourFolds])
	}
}

// gauge is all zero before the first sample. The last hour's are zero as well
// while there is none in it, as of an interface that is away; when it is back
// they are of its samples so far, and so is what is said since the start: its
// maximum is never the smaller one.
func (w *window) gauge() Gauge {
	all, hour := w.closed, w.hour
	if hour.n == 0 {
		all.merge(w.open)
		hour = w.open
	}
	return Gauge{
		Current: w.current, Average: all.mean, Maximum: all.max,
		AverageHour: hour.mean, MaximumHour: hour.max,
	}
}

// tally is mean and maximum of n samples.
type tally struct {
	n         int64
	mean, max float64
}

// merge adds other's samples. It works on means, not sums: nothing grows with
// the age of the process, and equal samples have exactly their value as mean.
func (t *tally) merge(other tally) {
	switch {
	case other.n == 0:
		return
	case t.n == 0:
		*t = other
		return
	}
	t.n += other.n
	t.max = max(t.max, other.max)
	// Rounding must not lift the mean above the maximum.
	t.mean = min(t.max, t.mean+(other.mean-t.mean)*(float64(other.n)/float64(t.n)))
}
