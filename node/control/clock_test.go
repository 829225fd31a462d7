package control

import (
	"testing"
	"time"
)

func TestMedianClock(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		clocks []time.Duration
		want   time.Duration
		agreed bool
	}{
		{nil, 0, false},
		{[]time.Duration{0}, 0, false},
		{[]time.Duration{0, 12 * s}, 0, false},
		{[]time.Duration{0, 12 * s, s}, s, true},
		{[]time.Duration{12 * s, 0, 0}, 0, true},
		{[]time.Duration{0, 12 * s, 2 * s, -s}, s, true},
		{[]time.Duration{1<<63 - 1, 0, 1<<63 - 1, 0}, (1<<63 - 1) / 2, true},
	} {
		before := append([]time.Duration(nil), c.clocks...)
		if got, agreed := MedianClock(c.clocks); got != c.want || agreed != c.agreed {
			t.Errorf("%v: %v, %v, want %v, %v", c.clocks, got, agreed, c.want, c.agreed)
		}
		for i := range before {
			if c.clocks[i] != before[i] {
				t.Errorf("%v has become %v", before, c.clocks)
			}
		}
	}
}
