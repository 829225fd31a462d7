package object

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gridloom/gridloom/dataio"
)

// TestRank: every order is a function of the id alone, shares are even, and a
// drive that goes away moves only what was its own.
func TestRank(t *testing.T) {
	const drives, ids = 9, 2250
	var all []target
	for i := range drives {
		all = append(all, target{drive: fmt.Sprintf("drive-%d", i)})
	}
	share := map[string]int{}
	for range ids {
		id := dataio.NewID()
		a := slices.Clone(all)
		rank(a, id)
		b := slices.Clone(all)
		slices.Reverse(b)
		rank(b, id)
		for i := range a {
			if a[i].drive != b[i].drive {
				t.Fatal("the order depends on where it began")
			}
		}
		share[a[0].drive]++
		gone := slices.DeleteFunc(slices.Clone(all), func(t target) bool { return t.drive == "drive-3" })
		rank(gone, id)
		first := a[0]
		if first.drive == "drive-3" {
			first = a[1]
		}
		if gone[0].drive != first.drive {
			t.Fatal("a drive that went away moved what wasn't on it")
		}
	}
	for drive, n := range share {
		// Six standard deviations of a fair draw.
		if n < 250-90 || n > 250+90 {
			t.Errorf("%s has %d of %d", drive, n, ids)
		}
	}
}
