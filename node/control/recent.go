package control

import "hash/maphash"

// recent knows of request ids whether one has surely no outcome in the rows, so
// that a new command, as nearly all are, isn't looked for there. It is never
// wrong about that: what an entry does must not depend on how long ago this node
// was started. It is for one goroutine.
//
// It is a chain of filters, of which each has the ids of a stretch of the log and
// goes when all outcomes of that stretch are forgotten. Rows that are older than
// the machine are in none of them: until those are forgotten recent knows
// nothing, as after it has become too large.
type recent struct {
	seed   maphash.Seed
	since  uint64 // outcomes of entries up to this one aren't in filters
	chain  []filter
	blocks int // of all filters
}

const (
	// The first filter has filterLeast blocks and each that follows twice as many
	// as the one before it, up to filterMost, which are 512 KiB.
	filterLeast, filterMost = 1 << 6, 1 << 13
	// blockIDs is how many ids a block takes, of 16 bits each: then about one in
	// 300 others is taken for one of them.
	blockIDs = 32
	// recentBlocks bounds the memory, 16 MiB: 8 million outcomes, which is as many
	// as come in ten minutes of 14,000 a second.
	recentBlocks = 1 << 18
)

// filter is a Bloom filter in which all bits of an id are in one cache line.
type filter struct {
	bits []filterBlock
	ids  int
	last uint64 // entry
}

type filterBlock [8]uint64

// newRecent begins behind the entry since.
func newRecent(since uint64) recent { return recent{seed: maphash.MakeSeed(), since: since} }

// none tells whether id surely has no outcome in the rows, from which those of
// entries up to trimmed are gone.
func (r *recent) none(id [16]byte, trimmed uint64) bool {
	if trimmed < r.since {
		return false
	}
	h := maphash.Comparable(r.seed, id)
	for i := range r.chain {
		if r.chain[i].has(h) {
			return false
		}
	}
	return true
}

// add notes that the entry index has given id an outcome.
func (r *recent) add(id [16]byte, index, trimmed uint64) {
	for len(r.chain) > 0 && r.chain[0].last <= trimmed {
		r.blocks -= len(r.chain[0].bits)
		r.chain = r.chain[1:]
	}
	n := len(r.chain)
	if n == 0 || r.chain[n-1].ids >= blockIDs*len(r.chain[n-1].bits) {
		size := filterLeast
		if n > 0 {
			size = min(2*len(r.chain[n-1].bits), filterMost)
		}
		if r.blocks+size > recentBlocks {
			r.chain, r.blocks, r.since, size = nil, 0, index-1, filterMost
		}
		r.chain = append(r.chain, filter{bits: make([]filterBlock, size)})
		r.blocks += size
		n = len(r.chain)
	}
	f := &r.chain[n-1]
	f.add(maphash.Comparable(r.seed, id))
	f.last = index
}

func (f *filter) add(h uint64) {
	f.ids++
	block, bits := f.place(h)
	for range filterProbes {
		block[bits>>6&7] |= 1 << (bits & 63)
		bits >>= 9
	}
}

func (f *filter) has(h uint64) bool {
	block, bits := f.place(h)
	for range filterProbes {
		if block[bits>>6&7]&(1<<(bits&63)) == 0 {
			return false
		}
		bits >>= 9
	}
	return true
}

// filterProbes is how many bits there are of an id, each one of 512.
const filterProbes = 6

// place is the block of a hash, and the numbers of its bits, nine bits each.
func (f *filter) place(h uint64) (block *filterBlock, bits uint64) {
	return &f.bits[h>>32*uint64(len(f.bits))>>32], h * 0x9e3779b97f4a7c15
}
