package grid

// ring is a FIFO in a buffer whose length is a power of two. It grows as
// needed and lets go of a large buffer when it has run empty.
type ring[T any] struct {
	buf  []T
	head int
	n    int
}

// ringKeep is the length up to which an empty ring keeps its buffer.
const ringKeep = 1024

// push reports whether the ring was empty.
func (r *ring[T]) push(v T) bool {
	if r.n == len(r.buf) {
		grown := make([]T, max(8, 2*len(r.buf)))
		for i := range r.n {
			grown[i] = r.buf[(r.head+i)&(len(r.buf)-1)]
		}
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = v
	r.n++
	return r.n == 1
}

func (r *ring[T]) pop() (v T, ok bool) {
	if r.n == 0 {
		return v, false
	}
	var zero T
	v = r.buf[r.head]
	r.buf[r.head] = zero
	r.head = (r.head + 1) & (len(r.buf) - 1)
	if r.n--; r.n == 0 && len(r.buf) > ringKeep {
		r.buf, r.head = nil, 0
	}
	return v, true
}

func (r *ring[T]) clear() { *r = ring[T]{} }
