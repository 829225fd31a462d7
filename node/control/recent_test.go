package control

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// recent never says of an outcome that is in the rows that it isn't there,
// whatever is forgotten meanwhile; of others it says so nearly always, in little
// memory.
func TestRecent(t *testing.T) {
	id := func(n uint64) (id [16]byte) {
		binary.BigEndian.PutUint64(id[8:], n) // as alike as may be
		return id
	}
	const before, entries, window = 100, 300_000, 50_000
	r, random := newRecent(before), rand.New(rand.NewPCG(1, 2))
	trimmed, wrong, asked, most := uint64(0), 0, 0, 0
	for index := uint64(before + 1); index <= entries; index++ {
		if index%7 != 0 { // others have no outcome
			r.add(id(index), index, trimmed)
		}
		if index > window && random.IntN(2) == 0 {
			trimmed = min(trimmed+4, index-window)
		}
		most = max(most, r.blocks)
		if trimmed < before {
			if r.none(id(index+1), trimmed) {
				t.Fatalf("at %d: knows what is older than it", index)
			}
			continue
		}
		there := trimmed + 1 + random.Uint64N(index-trimmed)
		if there%7 != 0 && r.none(id(there), trimmed) {
			t.Fatalf("at %d, trimmed up to %d: forgot %d", index, trimmed, there)
		}
		if asked++; !r.none(id(1<<40+index), trimmed) {
			wrong++
		}
	}
	if wrong*50 > asked {
		t.Errorf("of %d ids that it hasn't it takes %d for known", asked, wrong)
	}
	if most*blockIDs > 8*window {
		t.Errorf("has %d blocks for %d ids", most, window)
	}
}

// Without an end of what it has to know it gives up, and begins anew.
func TestRecentBounded(t *testing.T) {
	r := newRecent(0)
	index := uint64(0)
	for ; r.since == 0; index++ {
		if index > blockIDs*recentBlocks {
			t.Fatalf("has %d blocks", r.blocks)
		}
		var id [16]byte
		binary.BigEndian.PutUint64(id[:], index)
		r.add(id, index+1, 0)
	}
	if len(r.chain) != 1 || r.blocks > filterMost {
		t.Errorf("begins anew with %d filters of %d blocks", len(r.chain), r.blocks)
	}
	if r.none([16]byte{1}, index-2) || !r.none([16]byte{1}, index) {
		t.Errorf("at %d says it knows what it forgot, or doesn't know afterwards", index)
	}
}
