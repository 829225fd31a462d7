package observability

// window keeps what became of one value: the last sample, and mean and
// maximum since the start. Samples are gathered in open, and each minute fold
// moves them to closed, from which gauge answers; before the first fold it
// answers from open.
type window struct {
	current      float64
	open, closed tally
}

func (w *window) add(v float64) {
	w.current = v
	w.open.merge(tally{n: 1, mean: v, max: v})
}

func (w *window) fold() {
	w.closed.merge(w.open)
	w.open = tally{}
}

// gauge is all zero before the first sample.
func (w *window) gauge() Gauge {
	t := w.closed
	if t.n == 0 {
		t = w.open
	}
	return Gauge{Current: w.current, Average: t.mean, Maximum: t.max}
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
