package limit

import "container/list"

// recent is a map with a bound: where it is full, the entry that was used least
// recently goes. It is not safe for several goroutines.
type recent[K comparable, V any] struct {
	limit int
	order list.List // of *kept[K, V]; the one used last in front
	byKey map[K]*list.Element
}

type kept[K comparable, V any] struct {
	key   K
	value V
}

// get gives the value of a key, if there is one.
func (r *recent[K, V]) get(key K) (value V, ok bool) {
	e, ok := r.byKey[key]
	if !ok {
		return value, false
	}
	r.order.MoveToFront(e)
	return e.Value.(*kept[K, V]).value, true
}

// put sets the value of a key that has none.
func (r *recent[K, V]) put(key K, value V) {
	if r.byKey == nil {
		r.byKey = make(map[K]*list.Element)
	}
	if r.order.Len() >= r.limit {
		last := r.order.Back()
		delete(r.byKey, r.order.Remove(last).(*kept[K, V]).key)
	}
	r.byKey[key] = r.order.PushFront(&kept[K, V]{key, value})
}
