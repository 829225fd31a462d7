package dataio

import (
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// How many files that nobody reads a drive keeps open, how many of them may be
// of one payload, and for how long: opening takes five system calls and reading
// the footer, which small payloads that are asked for again and again don't
// come to otherwise.
const (
	idleMost   = 512
	idleOfOne  = 64
	idleFor    = 30 * time.Second
	idleShards = 256
)

// stillFor is for how long what was seen of an open file counts: that nobody has
// changed it behind the drive's back, and that bytes of it are in memory. Looking
// takes as long as sending a small payload; what is seen may be over a moment
// later either way, so that nothing rests on it but how soon that is noticed.
// Who asks what is on the drive, as a scrub does, always looks.
const stillFor = 100 * time.Millisecond

// opened is a payload file with its footer, read and checked. One File at a time
// has it, since sendfile without an offset moves its position; between two, idle
// has it. Ranges share it with whoever has it.
type opened struct {
	f         *os.File
	modified  time.Time
	footer    footer
	fileBytes int64 // with the footer
	pages     pages

	id      ID
	epoch   uint32   // of the payload's shard, from before it was opened
	seen    fileMark // what tells that the file is still what was opened
	suspect atomic.Bool
	shared  atomic.Int32 // Ranges that have it; -1: it is closed
	since   time.Time    // no File has it, and no Range asked for it; roughly
	looked  time.Time    // seen was right
	memory  inMemory

	newer, older *opened // in idle.order
}

// close gives up what was opened, for a Range or whoever has it. The last closes it.
func (o *opened) close() error {
	if o.shared.Add(-1) >= 0 {
		return nil
	}
	o.pages.close()
	if o.f == nil {
		return nil
	}
	return o.f.Close()
}

// readFor is for how long it counts that the kernel has read pages, while it still
// has all of them. Those that are there might have been dropped since, and be on
// their way once more; after ten seconds each is looked at again.
const readFor = 10 * time.Second

// inMemory is what of a file was found in memory: the latest range, and one that was
// read, page by page, when it was looked at.
type inMemory struct {
	mu           sync.Mutex // guards what follows
	latest, read span
}

// span is a range of a file, and since when something is known of it.
type span struct {
	off, to int64
	at      time.Time
}

// holds says that a range is part of it, and was less than within ago.
func (s *span) holds(off, n int64, within time.Duration, now time.Time) bool {
	return s.off <= off && off+n <= s.to && now.Sub(s.at) < within
}

// has says that a range was found in memory lately.
func (m *inMemory) has(off, n int64, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latest.holds(off, n, stillFor, now)
}

// hasRead says that each page of a range was read not long ago.
func (m *inMemory) hasRead(off, n int64, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read.holds(off, n, readFor, now)
}

// found notes a range whose pages are there. read: each was looked at. What was read
// grows by windows that follow each other, and is as old as the first of them.
func (m *inMemory) found(off, n int64, read bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latest = span{off, off + n, now}
	switch {
	case !read:
	case m.read.holds(off, 0, readFor, now):
		m.read.to = max(m.read.to, off+n)
	default:
		m.read = m.latest
	}
}

// idle keeps files open that nobody reads, for whoever asks for them next. What
// it gives is what opening would give: a payload that was removed or replaced is
// forgotten before the call that did it returns, and what somebody else did to
// the file shows by its inode, which take looks at. It keeps nothing where the
// system can't say that, nor on a drive with an Interceptor, which is to see each
// operation.
//
// A file that is open while its payload is removed isn't kept: each removal
// changes the epoch of the payload's shard.
type idle struct {
	epochs [idleShards]atomic.Uint32

	mu             sync.Mutex // guards what follows; no I/O under it
	files          map[ID][]*opened
	newest, oldest *opened
	count          int
	closed         bool
}

// epoch is that of a payload's shard.
func (i *idle) epoch(id ID) *atomic.Uint32 { return &i.epochs[id[0]] }

// take returns a file that is open, nil if there is none. One that was looked at
// less than still ago isn't again.
func (i *idle) take(id ID, still time.Duration) *opened {
	i.mu.Lock()
	of := i.files[id]
	if len(of) == 0 {
		i.mu.Unlock()
		return nil
	}
	o := of[len(of)-1]
	i.dropLocked(o)
	i.mu.Unlock()
	now := time.Now()
	if now.Sub(o.looked) < still {
		return o
	}
	if mark, ok := markOf(o.f); !ok || mark != o.seen {
		o.close()
		i.forget(id) // the others aren't what is there, either
		return nil
	}
	o.looked = now
	return o
}

// sinceExact is how exactly a file's use by Ranges is known: its place in the order
// changes no more often.
const sinceExact = time.Second

// share returns the file that take would return next, if neither that nor finding
// it in memory needs a look now. It stays where it is, until whoever shares it
// closes it.
func (i *idle) share(id ID, now time.Time) *opened {
	i.mu.Lock()
	defer i.mu.Unlock()
	of := i.files[id]
	if len(of) == 0 {
		return nil
	}
	o := of[len(of)-1]
	if now.Sub(o.looked) >= stillFor || !o.memory.has(0, o.footer.size, now) {
		return nil
	}
	if now.Sub(o.since) >= sinceExact {
		i.unlinkLocked(o)
		i.linkLocked(o, now)
	}
	o.shared.Add(1)
	return o
}

// keep takes a file that nobody reads any more, and says whether it did.
func (i *idle) keep(o *opened) bool {
	if !marks || o.suspect.Load() {
		return false
	}
	now := time.Now()
	var gone *opened
	i.mu.Lock()
	ok := !i.closed && len(i.files[o.id]) < idleOfOne && i.epoch(o.id).Load() == o.epoch
	if ok {
		if i.count == idleMost {
			gone = i.oldest
			i.dropLocked(gone)
		}
		if i.files == nil {
			i.files = make(map[ID][]*opened)
		}
		i.files[o.id] = append(i.files[o.id], o)
		i.linkLocked(o, now)
		i.count++
	}
	i.mu.Unlock()
	if gone != nil {
		gone.close()
	}
	return ok
}

// dropLocked takes a file out.
func (i *idle) dropLocked(o *opened) {
	of := i.files[o.id]
	for at := len(of) - 1; at >= 0; at-- {
		if of[at] == o {
			of[at], of[len(of)-1] = of[len(of)-1], nil
			of = of[:len(of)-1]
			break
		}
	}
	if i.files[o.id] = of; len(of) == 0 {
		delete(i.files, o.id)
	}
	i.unlinkLocked(o)
	i.count--
}

// linkLocked makes a file the newest.
func (i *idle) linkLocked(o *opened, now time.Time) {
	o.since = now
	if o.older = i.newest; o.older != nil {
		o.older.newer = o
	} else {
		i.oldest = o
	}
	i.newest = o
}

// unlinkLocked takes a file out of the order.
func (i *idle) unlinkLocked(o *opened) {
	if o.newer != nil {
		o.newer.older = o.older
	} else {
		i.newest = o.older
	}
	if o.older != nil {
		o.older.newer = o.newer
	} else {
		i.oldest = o.newer
	}
	o.newer, o.older = nil, nil
}

// forget closes the files of a payload that is being removed or replaced: those
// that are in use, once they aren't any more.
func (i *idle) forget(id ID) {
	i.epoch(id).Add(1)
	i.mu.Lock()
	gone := append([]*opened(nil), i.files[id]...)
	for _, o := range gone {
		i.dropLocked(o)
	}
	i.mu.Unlock()
	for _, o := range gone {
		o.close()
	}
}

// expire closes what nobody has asked for in a while.
func (i *idle) expire(now time.Time) {
	for {
		i.mu.Lock()
		o := i.oldest
		if o != nil && (i.closed || now.Sub(o.since) >= idleFor) {
			i.dropLocked(o)
		} else {
			o = nil
		}
		i.mu.Unlock()
		if o == nil {
			return
		}
		o.close()
	}
}

// close closes everything, and keeps nothing from now on.
func (i *idle) close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.expire(time.Now())
}
