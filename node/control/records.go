package control

import (
	"sync"
	"sync/atomic"
)

// Bounds of what a view keeps of the records that were read from it.
const (
	// keepAfter is how many reads of records come before any is kept: a view that
	// the next write replaces isn't worth it.
	keepAfter = 32
	// keptBytes is how much is kept at most, by the size of the records; what
	// takes more than keptEach isn't.
	keptBytes = 16 << 20
	keptEach  = 64 << 10
)

// keptRecords are records of one view, decoded. A view never changes, so what is
// kept of it is right for as long as it lives; whoever reads has found the view
// first that is new enough for him, by viewFor, and so the record. They are
// shared by all readers, and nobody changes them.
type keptRecords struct {
	reads atomic.Int64 // until they are keepAfter

	mu    sync.RWMutex // guards what follows
	byKey map[place]*foundRecord
	bytes int
}

// get gives a record that is kept; nil: it isn't.
func (k *keptRecords) get(at place) *foundRecord {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.byKey[at]
}

// add keeps a record, if it is worth it. Where there is no room, others go,
// whichever.
func (k *keptRecords) add(at place, found *foundRecord) {
	size := found.bytes()
	if size > keptEach || k.reads.Load() < keepAfter && k.reads.Add(1) < keepAfter {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byKey[at] != nil {
		return
	}
	for other, r := range k.byKey {
		if k.bytes+size <= keptBytes {
			break
		}
		k.bytes -= r.bytes()
		delete(k.byKey, other)
	}
	if k.byKey == nil {
		k.byKey = make(map[place]*foundRecord)
	}
	k.byKey[at] = found
	k.bytes += size
}

// bytes is about how much memory a record takes, with what is made of it.
func (r *foundRecord) bytes() int {
	n := 2048 + 2*len(r.Key) + len(r.row) + len(r.Inline) + len(r.ContentType) + len(r.CacheControl) +
		len(r.ContentDisposition) + len(r.ContentEncoding) + len(r.ContentLanguage)
	for _, pairs := range []Pairs{r.Metadata, r.Tags} {
		for name, value := range pairs {
			n += 64 + len(name) + len(value)
		}
	}
	for i := range r.Segments {
		n += 64 + 48*len(r.Segments[i].Drives)
	}
	return n
}
