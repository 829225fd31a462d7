package grid

import (
	"math/bits"
	"strings"
	"sync"
	"unsafe"
)

// Received messages of more than minPooled bytes are put into buffers of
// certain lengths, eight for each doubling, so that one that is given back
// serves the next message of about its length. Without Recycle nothing ever
// gets into the pools, and the price of the rounding is an eighth at most,
// which the runtime's allocator takes anyway.
const (
	minPooled = 4 << 10
	maxPooled = 2 << 20 // of 1 MiB and a header, above all
	perOctave = 8

	firstOctave   = 12 // 4 KiB is 1 << firstOctave
	pooledClasses = perOctave * 9
)

// receivedPools hold what Recycle was given. They keep pointers to first
// bytes: a slice would be boxed with every Put.
var receivedPools [pooledClasses]sync.Pool

// pooledClass gives the length of the buffers for n bytes, minPooled < n ≤
// maxPooled, and their pool's index.
func pooledClass(n int) (index, size int) {
	octave := bits.Len(uint(n-1)) - 1 // 1<<octave < n ≤ 2<<octave
	step := 1 << octave / perOctave
	steps := (n + step - 1) / step // perOctave+1 to 2×perOctave
	return (octave-firstOctave)*perOctave + steps - perOctave - 1, steps * step
}

// Recycle gives the memory of a received message back, so that a later one
// can be put into it: worth while for many messages of more than 4 KiB, up to
// 2 MiB, whose garbage is most of what they cost. It is for memory that came
// from this package only: what Request and Recv return, requests and payloads
// that handlers get, messages from channels; whole, as it was received.
// Nobody may look at it ever again, in any slice of it: a handler that returns
// its request, or passes it to SendOwned or to a channel, has given it away
// already. Anything that is not one of the pools' buffers by its capacity, nil
// and short messages among it, is left to the garbage collector.
//
// Recycling is never needed. RecvAppend and AppendRequest do it by themselves.
// With -race or -tags gridpoison recycled memory is overwritten with 0xDB at
// once, so that whoever still looks at it is found out.
func Recycle(msg []byte) {
	n := cap(msg)
	if n <= minPooled || n > maxPooled {
		return
	}
	index, size := pooledClass(n)
	if size != n {
		return
	}
	poison(msg)
	receivedPools[index].Put(unsafe.SliceData(msg[:n]))
}

// newBuffer gives n bytes with anything in them, for a message that the user
// will own.
func newBuffer(n int) []byte {
	if n <= minPooled || n > maxPooled {
		return uncleared(n)
	}
	index, size := pooledClass(n)
	if first, ok := receivedPools[index].Get().(*byte); ok {
		return unsafe.Slice(first, size)[:n]
	}
	return uncleared(size)[:n:size]
}

// uncleared makes n bytes, n > 0, without clearing what is about to be
// overwritten, as only a strings.Builder does. The builder is dropped: the
// bytes have no other owner.
func uncleared(n int) []byte {
	var b strings.Builder
	b.Grow(n)
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), b.Cap())[:n]
}

// emptyMessage is what an empty, non-nil payload arrives as.
var emptyMessage = []byte{}

// newMessage copies a payload out of the read buffer, for the user to keep.
func newMessage(payload []byte) []byte {
	switch n := len(payload); {
	case n == 0:
		return emptyMessage
	case n <= minPooled:
		return append([]byte(nil), payload...) // does not clear it first
	default:
		b := newBuffer(n)
		copy(b, payload)
		return b
	}
}

// poison overwrites recycled memory in debug builds, so that whoever still
// looks at it is found out.
func poison(b []byte) {
	if !poisonRecycled {
		return
	}
	b = b[:cap(b)]
	for i := range b {
		b[i] = 0xDB
	}
}
