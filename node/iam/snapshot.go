package iam

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Snapshot is the users and keys of one epoch, ready to be asked. It isn't
// changed once it is made, and answers from memory alone. What it keeps of a
// key stays sealed, and is opened for one request at a time.
type Snapshot struct {
	epoch  uint64
	keys   map[string]*entry
	users  map[string]*User
	names  map[string]*User // by the name in a certificate; nil where two users claim it
	master Master
	token  *sealed // signs the users' tokens

	open  func(dst, sealed, context []byte) ([]byte, error)
	decoy entry // what is opened for an id that isn't there
}

// entry is a key with all that it takes to admit it.
type entry struct {
	key   *Key
	user  *User // nil: it is gone
	is    *identity
	touch atomic.Int64 // when it was last used, if later than the key says; Unix nanoseconds
}

// NewSnapshot makes a snapshot of rows, which stay as they are. The error wraps
// ErrMaster: there is no snapshot without the master.
func NewSnapshot(rows *Rows, master Master) (*Snapshot, error) {
	if master.IsZero() {
		return nil, fmt.Errorf("%w: there is none", ErrMaster)
	}
	s := &Snapshot{
		epoch:  rows.Epoch,
		keys:   make(map[string]*entry, len(rows.Keys)),
		users:  make(map[string]*User, len(rows.Users)),
		names:  make(map[string]*User),
		master: master,
		token:  seal(master.tokenKey()),
	}
	aead := newAEAD(master.keySeal())
	s.open = func(dst, sealed, context []byte) ([]byte, error) { return openWith(aead, dst, sealed, context) }
	for i := range rows.Users {
		u := &rows.Users[i]
		s.users[u.Name] = u
		for _, name := range u.Certificates {
			if _, taken := s.names[name]; taken {
				s.names[name] = nil // whose it is can't be told
				continue
			}
			s.names[name] = u
		}
	}
	for i := range rows.Keys {
		k := &rows.Keys[i]
		e := &entry{key: k, user: s.users[k.User], is: new(identity)}
		e.is.entry = e
		if e.user != nil {
			e.is.layers = [][]Grant{e.user.Grants}
			if k.Service {
				e.is.layers = append(e.is.layers, k.Grants)
			}
		}
		s.keys[k.ID] = e
	}
	plain := make([]byte, sha256.Size)
	rand.Read(plain) // never fails: it ends the program instead
	s.decoy.key = &Key{ID: "none", User: "nobody", Sealed: sealBytes(master.keySeal(), plain, keyContext("none", "nobody"))}
	return s, nil
}

// Epoch is that of the rows it was made of.
func (s *Snapshot) Epoch() uint64 { return s.epoch }

// Format implements fmt.Formatter: nothing of what it holds is shown.
func (s *Snapshot) Format(f fmt.State, _ rune) {
	if s == nil {
		_, _ = io.WriteString(f, "snapshot(none)")
		return
	}
	_, _ = fmt.Fprintf(f, "snapshot(epoch %d, %d users, %d keys)", s.epoch, len(s.users), len(s.keys))
}

// find gives the key of an id, and what its links are signed with. For an id
// that isn't there the same work is done, and the answer fits nothing.
func (s *Snapshot) find(id string) (e *entry, derived [sha256.Size]byte, ok bool) {
	e, ok = s.keys[id]
	if !ok {
		e = &s.decoy
	}
	k := e.key
	buf := make([]byte, 0, sha256.Size+len(k.ID)+1+len(k.User))
	context := append(append(append(buf[sha256.Size:sha256.Size], k.ID...), 0), k.User...)
	plain, err := s.open(buf[:0:sha256.Size], k.Sealed, context)
	if err != nil || len(plain) != sha256.Size {
		return e, derived, false // the row is damaged, or was moved to another id or user
	}
	return e, [sha256.Size]byte(plain), ok
}

// admit says whether a key may be used now, once its secret has been proven:
// only who has that is told why not.
func (s *Snapshot) admit(e *entry, now time.Time) error {
	if err := e.alive(); err != nil {
		return err
	}
	if e.key.Expires != 0 && now.UnixNano() >= e.key.Expires {
		return fmt.Errorf("%w: the key has expired", ErrUnauthenticated)
	}
	return nil
}

func (e *entry) alive() error {
	switch {
	case e.key.Disabled:
		return fmt.Errorf("%w: the key is disabled", ErrUnauthenticated)
	case e.user == nil:
		return fmt.Errorf("%w: the key's user is gone", ErrUnauthenticated)
	case e.user.Disabled:
		return fmt.Errorf("%w: the key's user is disabled", ErrUnauthenticated)
	}
	return nil
}

// principal is that of an admitted key.
func (e *entry) principal(via string) Principal {
	return Principal{ID: e.key.ID, User: e.key.User, Service: e.key.Service, Via: via,
		ExpiresAt: unixTime(e.key.Expires), is: e.is}
}

func unixTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// touchEvery is how precisely the last use of a key is known.
const touchEvery = time.Minute

// used notes that a key was used.
func (e *entry) used(now time.Time) {
	at, last := now.UnixNano(), e.touch.Load()
	if at-max(last, e.key.LastUsed) >= int64(touchEvery) {
		e.touch.CompareAndSwap(last, at)
	}
}

// carry takes over which keys were used since the rows of old were written.
func (s *Snapshot) carry(old *Snapshot) {
	if old == nil {
		return
	}
	for id, e := range old.keys {
		at := e.touch.Load()
		if now, ok := s.keys[id]; ok && at > now.key.LastUsed {
			now.touch.Store(at)
		}
	}
}

// touched are the keys that were used since their rows were written, and when.
func (s *Snapshot) touched() map[string]int64 {
	var ids map[string]int64
	for id, e := range s.keys {
		if at := e.touch.Load(); at > e.key.LastUsed {
			if ids == nil {
				ids = make(map[string]int64)
			}
			ids[id] = at
		}
	}
	return ids
}

// certified finds the one user that the names in a certificate stand for.
func (s *Snapshot) certified(names []string) (u *User, name string, err error) {
	for _, n := range names {
		claimed, ok := s.names[n]
		switch {
		case !ok:
			continue
		case claimed == nil, u != nil && u != claimed:
			return nil, "", fmt.Errorf("%w: the certificate's names stand for more than one user", ErrUnauthenticated)
		}
		u, name = claimed, n
	}
	switch {
	case u == nil:
		return nil, "", fmt.Errorf("%w: the certificate's names stand for no user", ErrUnauthenticated)
	case u.Disabled:
		return nil, "", fmt.Errorf("%w: the certificate's user is disabled", ErrUnauthenticated)
	}
	return u, name, nil
}

// renew is i as it is by now: it is an error when what let it in is gone or
// was replaced. That a key's time is up ends what has begun only if it was
// brought forward, as one does to revoke it.
func (s *Snapshot) renew(i *identity, at time.Time) (*identity, error) {
	next := *i
	if i.entry == nil {
		u, _, err := s.certified([]string{i.certificate})
		if err != nil {
			return nil, err
		}
		if u.Name != i.user.Name {
			return nil, fmt.Errorf("%w: the certificate's name stands for another user by now", ErrUnauthenticated)
		}
		next.user, next.layers = u, [][]Grant{u.Grants}
		return &next, nil
	}
	was := i.entry.key
	e, ok := s.keys[was.ID]
	if !ok || e.key.User != was.User || !bytes.Equal(e.key.Sealed, was.Sealed) {
		return nil, fmt.Errorf("%w: the key was deleted", ErrUnauthenticated)
	}
	if err := e.alive(); err != nil {
		return nil, err
	}
	if expires := e.key.Expires; expires != was.Expires && expires != 0 && at.UnixNano() >= expires {
		return nil, fmt.Errorf("%w: the key has expired", ErrUnauthenticated)
	}
	next.entry, next.layers = e, e.is.layers
	return &next, nil
}
