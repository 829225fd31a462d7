package grid

import "sync/atomic"

// itemKind says what a queued item is part of.
type itemKind uint8

const (
	kindCall    itemKind = iota + 1 // slot: a request or the opening of a stream
	kindReply                       // servedCall: an answer or an error
	kindPipe                        // Pipe: a stream with something to send
	kindControl                     // control: a small ready-made frame
)

// The states of a kindCall item, whose payload belongs to a caller who may
// leave at any time. Only the holder of the writer role moves it on to
// busy, and it is busy only while a chunk is being copied, so that whoever
// cancels waits for a memory copy at most.
const (
	itemIdle      uint32 = iota
	itemQueued           // linked; nothing was taken
	itemPartial          // linked; some chunks were taken
	itemBusy             // a chunk is being copied
	itemSent             // everything was taken
	itemCancelled        // dropped while linked: the writer's, who releases the slot
)

// item is the link by which something waits to be written. It is embedded in
// what it stands for, so that queueing allocates nothing.
type item struct {
	next  *item
	kind  itemKind
	lane  lane
	state atomic.Uint32 // kindCall only

	owner any // *slot, *servedCall, *Pipe or *control, as kind says
}

// lane is a queue of the writer.
type lane uint8

const (
	laneControl lane = iota
	laneInteractive
	laneStream
	laneBulk
	laneCount
)

// laneOf gives the lane of a message: by its class, except that a message
// that does not fit a chunk never goes with the small ones.
func laneOf(class Class, size int) lane {
	l := lane(class - ClassControl)
	if size > chunkLen && l < laneStream {
		return laneStream
	}
	return l
}

// pushStack is where any goroutine leaves items for the writer: a lock-free
// stack, emptied in one swap.
type pushStack struct {
	head atomic.Pointer[item]
	_    [56]byte // each head on a cache line of its own
}

func (q *pushStack) push(it *item) {
	for {
		old := q.head.Load()
		it.next = old
		if q.head.CompareAndSwap(old, it) {
			return
		}
	}
}

// takeAll empties the stack and returns its items, oldest first.
func (q *pushStack) takeAll() (head, tail *item) {
	it := q.head.Swap(nil)
	tail = it
	for it != nil {
		next := it.next
		it.next = head
		head, it = it, next
	}
	return head, tail
}

// itemList is a FIFO that belongs to the holder of the writer role.
type itemList struct {
	head, tail *item
}

func (l *itemList) append(head, tail *item) {
	if head == nil {
		return
	}
	if l.tail == nil {
		l.head = head
	} else {
		l.tail.next = head
	}
	l.tail = tail
}

func (l *itemList) pushBack(it *item) {
	it.next = nil
	l.append(it, it)
}

func (l *itemList) pop() *item {
	it := l.head
	if it == nil {
		return nil
	}
	l.head = it.next
	if l.head == nil {
		l.tail = nil
	}
	it.next = nil
	return it
}
