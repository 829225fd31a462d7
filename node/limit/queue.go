package limit

// queue is a list of connections, the one that came first in front. Its places
// are the entries' own: they come and go with every request, without memory for
// it. The zero queue is empty.
type queue struct {
	root place
	n    int
}

// place is where an entry is in a queue.
type place struct {
	prev, next *place // nil: in none
	of         *entry
}

func (q *queue) front() *entry {
	if q.n == 0 {
		return nil
	}
	return q.root.next.of
}

// push puts a place at the end, which is in no queue.
func (q *queue) push(p *place) {
	if q.root.next == nil {
		q.root.prev, q.root.next = &q.root, &q.root
	}
	p.prev, p.next = q.root.prev, &q.root
	p.prev.next, q.root.prev = p, p
	q.n++
}

// remove takes a place out, which is in q.
func (q *queue) remove(p *place) {
	p.prev.next, p.next.prev = p.next, p.prev
	p.prev, p.next = nil, nil
	q.n--
}
