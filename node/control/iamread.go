package control

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/iam"
)

// Every node has all users and keys in memory, as one iam.Rows that is never
// changed. To make it anew costs a copy of all of it, some milliseconds for
// 100,000 keys; so the applier only notes what has changed, which costs as much
// as the change, and whoever asks next puts it together: many changes, one copy.

// iamState is the machine's part: the row that there is once, and what was
// changed since it was last shown.
type iamState struct {
	row     iamRow
	first   *iam.Rows // what the machine was loaded with, until it is shown; nil afterwards
	changed iamChanges
}

// iamChanges are users and keys as they are now, nil where they are gone. The
// zero value is no change.
type iamChanges struct {
	epoch uint64
	boxes []iam.Box // nil: as before
	users map[string]*iam.User
	keys  map[string]*iam.Key
}

func (c *iamChanges) setUser(u *iam.User)  { noteChange(&c.users, u.Name, u) }
func (c *iamChanges) dropUser(name string) { noteChange(&c.users, name, nil) }
func (c *iamChanges) setKey(k *iam.Key)    { noteChange(&c.keys, k.ID, k) }
func (c *iamChanges) dropKey(id string)    { noteChange(&c.keys, id, nil) }

func noteChange[T any](all *map[string]*T, name string, now *T) {
	if *all == nil {
		*all = map[string]*T{}
	}
	(*all)[name] = now
}

// add takes over later changes.
func (c *iamChanges) add(later *iamChanges) {
	c.epoch = later.epoch
	if later.boxes != nil {
		c.boxes = later.boxes
	}
	for name, u := range later.users {
		noteChange(&c.users, name, u)
	}
	for id, k := range later.keys {
		noteChange(&c.keys, id, k)
	}
}

// apply makes of rows those after the changes.
func (c *iamChanges) apply(rows *iam.Rows) *iam.Rows {
	next := &iam.Rows{Epoch: c.epoch, Boxes: rows.Boxes, Users: rows.Users, Keys: rows.Keys}
	if c.boxes != nil {
		next.Boxes = c.boxes
	}
	if len(c.users) > 0 {
		next.Users = merge(rows.Users, c.users, func(u *iam.User) string { return u.Name })
	}
	if len(c.keys) > 0 {
		next.Keys = merge(rows.Keys, c.keys, func(k *iam.Key) string { return k.ID })
	}
	return next
}

// merge makes of a list in the order of its names the one after changes. What
// lies between two changes is copied as a whole.
func merge[T any](old []T, changes map[string]*T, name func(*T) string) []T {
	next := make([]T, 0, len(old)+len(changes))
	for _, changed := range slices.Sorted(maps.Keys(changes)) {
		at, found := slices.BinarySearchFunc(old, changed, func(have T, want string) int { return strings.Compare(name(&have), want) })
		next = append(next, old[:at]...)
		if old = old[at:]; found {
			old = old[1:]
		}
		if now := changes[changed]; now != nil {
			next = append(next, *now)
		}
	}
	return append(next, old...)
}

// load takes up what the rows say.
func (s *iamState) load(r pebble.Reader) error {
	if _, err := get(r, iamKey(), &s.row); err != nil {
		return err
	}
	s.first = &iam.Rows{
		Epoch: s.row.Epoch, Boxes: s.row.Boxes,
		Users: make([]iam.User, 0, s.row.Users), Keys: make([]iam.Key, 0, s.row.Keys),
	}
	err := scan(r, []byte{kindUser}, func(_, value []byte) error {
		var row UserRow
		err := decodeRow(rowVersion, value, &row)
		s.first.Users = append(s.first.Users, row.User)
		return err
	})
	if err != nil {
		return err
	}
	return scan(r, []byte{kindAccessKey}, func(_, value []byte) error {
		var row KeyRow
		err := decodeRow(rowVersion, value, &row)
		s.first.Keys = append(s.first.Keys, row.Key)
		return err
	})
}

// iamFeed shows what the machine has, to any number of goroutines. The zero
// value shows no users.
type iamFeed struct {
	wake chan struct{} // has room for one: there is something new; may be nil

	turn sync.Mutex // whose it is to put changes in; before mu

	mu      sync.Mutex // guards what follows
	rows    *iam.Rows  // without the changes
	pending *iamChanges
	taken   *iamChanges // those that are being put in; not changed any more
}

// show takes over what the machine has come to since the last call. It is the
// applier's, and costs as much as what has changed.
func (f *iamFeed) show(s *iamState) {
	if s.first == nil && s.changed.epoch == 0 {
		return
	}
	f.mu.Lock()
	if s.first != nil {
		f.rows, f.pending, f.taken, s.first = s.first, nil, nil, nil
	}
	if s.changed.epoch != 0 {
		if f.pending == nil {
			f.pending = new(iamChanges)
		}
		f.pending.add(&s.changed)
		s.changed = iamChanges{}
	}
	f.mu.Unlock()
	if f.wake != nil {
		nudge(f.wake)
	}
}

// now gives the rows with all that was shown.
func (f *iamFeed) now() *iam.Rows {
	if rows := f.ready(); rows != nil {
		return rows
	}
	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	rows := f.rows
	if f.pending != nil { // else another has put it in meanwhile
		f.taken, f.pending = f.pending, nil
	}
	taken := f.taken
	f.mu.Unlock()
	if taken == nil {
		return rows
	}
	next := taken.apply(rows)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rows == rows { // else a snapshot has come, which has them
		f.rows, f.taken = next, nil
	}
	return f.rows
}

// ready gives the rows where there is nothing to be put in, or else nil.
func (f *iamFeed) ready() *iam.Rows {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rows == nil {
		f.rows = &iam.Rows{}
	}
	if f.pending != nil || f.taken != nil {
		return nil
	}
	return f.rows
}

// answerIAM answers a query of users or keys, and leaves others.
func (v *view) answerIAM(a *Answer, q *Query) error {
	switch {
	case q.User != nil:
		row, err := findUser(v.rows, q.User.Name)
		a.Users = []UserRow{row}
		return err
	case q.Users != nil:
		return v.users(a, q.Users)
	case q.Key != nil:
		return v.addKey(a, q.Key.ID)
	case q.Keys != nil:
		return v.keys(a, q.Keys)
	}
	return nil
}

func (v *view) users(a *Answer, q *UsersQuery) error {
	return v.page(a, []byte{kindUser}, q.After, q.Limit, func(name string, value []byte) (int, error) {
		var row UserRow
		err := decodeRow(rowVersion, value, &row)
		a.Users = append(a.Users, row)
		return len(value), err
	})
}

// keys lists by the rows of all keys, or by those that say whose they are: both
// have them in the order of their ids.
func (v *view) keys(a *Answer, q *KeysQuery) error {
	prefix := []byte{kindAccessKey}
	if q.User != "" {
		if _, err := findUser(v.rows, q.User); err != nil {
			return err
		}
		prefix = ownedPosition(q.User)
	}
	return v.page(a, prefix, q.After, q.Limit, func(id string, _ []byte) (int, error) {
		err := v.addKey(a, id)
		if err != nil {
			return 0, lost(err)
		}
		return a.Keys[len(a.Keys)-1].Msgsize(), nil
	})
}

// addKey adds a key to an answer, as those who ask get to see it.
func (v *view) addKey(a *Answer, id string) error {
	row, err := findKey(v.rows, id)
	if err != nil {
		return err
	}
	var used usedRow
	if _, err := get(v.rows, usedKey(id), &used); err != nil {
		return err
	}
	row.Key.LastUsed, row.Key.Sealed = used.At, nil
	a.Keys = append(a.Keys, row)
	return nil
}

// page gives add the rows that begin with prefix and go on behind after, until
// the page is full: add tells how much an entry takes of it.
func (v *view) page(a *Answer, prefix []byte, behind string, limit int, add func(name string, value []byte) (int, error)) (err error) {
	lower := prefix
	if behind != "" {
		lower = append(append(slices.Clone(prefix), behind...), 0)
	}
	it, err := v.rows.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	count, room := 0, maxPageBytes
	for ok := it.First(); ok; ok = it.Next() {
		if count == pageSize(limit) || room <= 0 {
			a.More = true
			return it.Error()
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		a.Next = string(it.Key()[len(prefix):])
		took, err := add(a.Next, value)
		if err != nil {
			return err
		}
		count++
		room -= took
	}
	a.Next = ""
	return it.Error()
}
