//go:build soak

package control

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/control/disk"
)

// A page of a thousand from a million keys takes the seeks and the steps of one
// from a thousand, and at most 1.2 times as long, by the medians of pages that are
// read in turn. The stores are on disk; what the pages need of them is cached. A
// page of a thousand prefixes takes as many seeks, but each is to another block
// where little would be in a few: its time is told and not asserted.
func TestListingAMillion(t *testing.T) {
	const page, few, many = 1000, 1000, 1_000_000
	began := time.Now()
	small, large := spread(t, vfs.Default, t.TempDir(), few, page), spread(t, vfs.Default, t.TempDir(), many, page)
	settle(t, large)
	t.Logf("built in %v", time.Since(began).Round(time.Second))
	for _, l := range listings {
		t.Run(l.name, func(t *testing.T) {
			few, many := l.ask(few, page), l.ask(many, page)
			ratio := 0.0
			for round := range 5 { // another where a neighbour on the machine had a hand in it
				var stats [2]pebble.IteratorStats
				var took [2][]time.Duration
				for range 200 {
					took[0] = append(took[0], timed(func() { stats[0] = listOnce(t, small, few, page) }))
					took[1] = append(took[1], timed(func() { stats[1] = listOnce(t, large, many, page) }))
				}
				wantSameWork(t, &stats[0], &stats[1])
				a, b := median(took[0]), median(took[1])
				ratio = float64(b) / float64(a)
				t.Logf("round %d: %v and, of the million, %v: %.2f\n%s\n%s", round, a, b, ratio, stats[0].String(), stats[1].String())
				if ratio <= 1.2 || l.name == foldedPage {
					return
				}
			}
			t.Errorf("%.2f times as long", ratio)
		})
	}
	t.Run("behind the dead", func(t *testing.T) { behindTheDead(t, large, page) })
	if err := errors.Join(small.Close(), large.Close()); err != nil {
		t.Error(err)
	}
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// settle waits for the compactions to end, which would share the processors with
// what is measured.
func settle(t *testing.T, s *disk.Store) {
	t.Helper()
	for began := time.Now(); ; {
		m := s.Metrics()
		if m.Compact.NumInProgress == 0 && m.Compact.EstimatedDebt == 0 || time.Since(began) > time.Minute {
			return
		}
		select {
		case <-t.Context().Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// behindTheDead: with a hundred thousand keys deleted in front of it, the first page
// is read past them once or twice, and then no more.
func behindTheDead(t *testing.T, s *disk.Store, page int) {
	const deleted = 100_000
	r := &applier{store: s, m: &machine{}}
	look := func(when string) int {
		best, dead := time.Hour, 0
		for range 10 {
			began := time.Now()
			stats := listOnce(t, s, RecordsQuery{}, page)
			best, dead = min(best, time.Since(began)), deadRows(&stats)
		}
		t.Logf("%s: %v, over %d rows that are dead", when, best, dead)
		return dead
	}
	look("before")
	clearFirst(t, s, deleted)
	if n := look("deleted"); n < deleted {
		t.Fatalf("only %d rows are in the way", n)
	}
	if _, err := r.ask(&Query{BucketID: listedBucket.ID, Records: &RecordsQuery{Bucket: listedBucket.Name}}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	settle(t, s)
	for n := look("soon after"); n > page; n = look("later") {
		if time.Since(began) > time.Minute {
			t.Fatalf("%d rows are still in the way", n)
		}
	}
}
