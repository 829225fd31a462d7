package replica

import "sync"

// mailbox hands items from many goroutines to one, in order, many at a time.
// Its senders bound what is in it.
type mailbox[T any] struct {
	wake chan struct{} // has room for one: there is something to take

	mu     sync.Mutex // guards what follows
	items  []T
	closed bool
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{wake: make(chan struct{}, 1)}
}

// put adds items, and tells whether the box was open.
func (b *mailbox[T]) put(items ...T) bool { return b.putUpTo(noItemLimit, items...) }

const noItemLimit = int(^uint(0) >> 1)

// putUpTo is put while there are fewer than limit items in the box.
func (b *mailbox[T]) putUpTo(limit int, items ...T) bool {
	if len(items) == 0 {
		return true
	}
	b.mu.Lock()
	ok := !b.closed && len(b.items) < limit
	if ok {
		b.items = append(b.items, items...)
	}
	b.mu.Unlock()
	if ok {
		b.rouse()
	}
	return ok
}

func (b *mailbox[T]) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// nudge wakes who has left something in the box.
func (b *mailbox[T]) nudge() {
	if b.waiting() > 0 {
		b.rouse()
	}
}

// take empties the box.
func (b *mailbox[T]) take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

// next takes the first item.
func (b *mailbox[T]) next() (item T, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) == 0 {
		return item, false
	}
	item, b.items = b.items[0], b.items[1:]
	return item, true
}

// waiting is how many items are in the box.
func (b *mailbox[T]) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items)
}

// close makes put refuse.
func (b *mailbox[T]) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.items = nil
}
