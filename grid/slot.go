package grid

import (
	"sync"
	"sync/atomic"
	"time"
)

// The phases of a slot's word, whose upper part is the generation. Reader
// and caller race for it with one compare-and-swap: who moves it on from
// waiting owns the outcome.
const (
	slotFree       uint64 = iota
	slotWaiting           // a caller waits for an answer
	slotDelivering        // the answer is being put in
	slotDelivered         // the caller has been, or is being, signalled
	slotStream            // an open stream; see pipe
)

func slotWord(gen uint32, phase uint64) uint64 { return uint64(gen)<<8 | phase }

// slot is one outgoing call. Slots live as long as their session and are used
// again with the next generation, channel and all, so that a call costs no
// allocation here.
type slot struct {
	item  item
	index uint32
	next  atomic.Uint32 // free list: index+1 of the next free slot
	gen   uint32        // of the current use; owned by its user
	word  atomic.Uint64
	done  chan struct{} // one token per delivery
	pipe  atomic.Pointer[Pipe]

	out outMessage
	seq uint64 // the how-manieth call of the session; set by the writer

	// What the caller gave and gets; owned by whoever owns the word.
	dst  []byte
	resp []byte
	err  error

	whole bool // resp is the answer in memory of its own, to be appended to dst
}

const slotPageLen = 32

type slotPage [slotPageLen]slot

// slotTable holds a session's slots: pages that never move, found without a
// lock, and a lock-free free list whose tag defeats ABA.
type slotTable struct {
	limit    uint32
	released func() // runs after a release
	pages    atomic.Pointer[[]*slotPage]
	free     atomic.Uint64 // tag<<32 | index+1
	used     atomic.Int64
	growMu   sync.Mutex
}

func (t *slotTable) at(index uint32) *slot {
	pages := t.pages.Load()
	if pages == nil || int(index/slotPageLen) >= len(*pages) {
		return nil
	}
	return &(*pages)[index/slotPageLen][index%slotPageLen]
}

// acquire takes a free slot and gives it its next generation; nil when the
// limit on calls in flight is reached.
func (t *slotTable) acquire() *slot {
	for {
		old := t.free.Load()
		if uint32(old) == 0 {
			if !t.grow() {
				return nil
			}
			continue
		}
		s := t.at(uint32(old) - 1)
		next := s.next.Load()
		if t.free.CompareAndSwap(old, (old>>32+1)<<32|uint64(next)) {
			t.used.Add(1)
			s.gen = (s.gen + 1) & generationMask
			return s
		}
	}
}

// release returns a slot. The caller has moved its word off waiting, taken
// its token if one was sent, and knows that no queue links it.
func (t *slotTable) release(s *slot) {
	s.word.Store(slotWord(s.gen, slotFree))
	s.dst, s.resp, s.err, s.whole = nil, nil, nil, false
	s.out = outMessage{}
	s.pipe.Store(nil)
	s.item.state.Store(itemIdle)
	t.used.Add(-1)
	t.put(s)
	t.released()
}

func (t *slotTable) put(s *slot) {
	for {
		old := t.free.Load()
		s.next.Store(uint32(old))
		if t.free.CompareAndSwap(old, (old>>32+1)<<32|uint64(s.index+1)) {
			return
		}
	}
}

func (t *slotTable) grow() bool {
	t.growMu.Lock()
	defer t.growMu.Unlock()
	if uint32(t.free.Load()) != 0 {
		return true
	}
	var pages []*slotPage
	if p := t.pages.Load(); p != nil {
		pages = *p
	}
	if uint32(len(pages)*slotPageLen) >= t.limit {
		return false
	}
	page := new(slotPage)
	grown := append(pages[:len(pages):len(pages)], page)
	for i := range page {
		s := &page[i]
		s.index = uint32(len(pages)*slotPageLen + i)
		s.done = make(chan struct{}, 1)
		s.item.kind, s.item.owner = kindCall, s
	}
	t.pages.Store(&grown)
	for i := range page {
		t.put(&page[slotPageLen-1-i])
	}
	return true
}

// each calls f on every slot there is.
func (t *slotTable) each(f func(*slot)) {
	pages := t.pages.Load()
	if pages == nil {
		return
	}
	for _, page := range *pages {
		for i := range page {
			f(&page[i])
		}
	}
}

// claim wins the right to complete the call id, or finds that it is over.
func (t *slotTable) claim(id uint64) *slot {
	s := t.at(idIndex(id))
	if s == nil {
		return nil
	}
	gen := idGeneration(id)
	if !s.word.CompareAndSwap(slotWord(gen, slotWaiting), slotWord(gen, slotDelivering)) {
		return nil
	}
	return s
}

// deliver completes a claimed call. resp and err have been put in.
func (s *slot) deliver() {
	gen := uint32(s.word.Load() >> 8)
	s.word.Store(slotWord(gen, slotDelivered))
	s.done <- struct{}{}
}

// detach takes the call's item out of the writer's hands: afterwards its
// payload is the caller's again. It reports whether the item stays linked,
// as a tombstone that the writer will release the slot for, and how much of
// the message had been taken.
func (s *slot) detach() (linked, started, complete bool) {
	for {
		switch state := s.item.state.Load(); state {
		case itemSent:
			return false, true, true
		case itemQueued, itemPartial:
			if s.item.state.CompareAndSwap(state, itemCancelled) {
				return true, state == itemPartial, false
			}
		case itemBusy:
			yield()
		default:
			return false, false, false
		}
	}
}

// outMessage is a message on its way out, encoded a chunk at a time by the
// holder of the writer role.
type outMessage struct {
	typ      frameType
	handler  HandlerID
	id       uint64
	payload  []byte
	owned    bool // payload may be written by reference
	isNil    bool
	started  bool
	off      int
	deadline time.Time
	extra    *outExtra // what few messages have
}

type outExtra struct {
	fixed [8]byte // frameOpen: the opener's windows
	meta  []byte
}

func (m *outMessage) meta() []byte {
	if m.extra == nil {
		return nil
	}
	return m.extra.meta
}
