package lean

import "testing"

// TestYield: a connection yields before its reads as long as that is of use, bears
// with some that aren't, and tries again after a while.
func TestYield(t *testing.T) {
	var c conn
	// after yields so often, with that use, and returns how often of them it did.
	after := func(reads int, useful bool) (yielded int) {
		for range reads {
			if c.yield() {
				yielded++
				c.yielded(useful)
			}
		}
		return yielded
	}
	if n := after(1+3*(patienceRest+1), false); n != 4 {
		t.Errorf("of no use, it yields %d times in %d reads, want 4", n, 1+3*(patienceRest+1))
	}
	after(patienceRest, true)
	if n := after(100, true); n != 100 {
		t.Errorf("being of use, it yields before %d of 100 reads", n)
	}
	if n := after(patienceMost, false); n != patienceMost || c.patience != 0 {
		t.Errorf("it bears with %d of %d that were of no use", n, patienceMost)
	}
	if n := after(1+patienceRest, false); n != 1 || !c.yield() {
		t.Errorf("it yields %d times more, and not again after a rest", n)
	}
}
