package iam

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of Verify, beside ErrPermissionDenied of Authorize.
var (
	// ErrUnauthenticated: the caller is nobody here.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrNotReady: users and keys have not been read yet. It is a wait.
	ErrNotReady = errors.New("users and keys have not been read yet")
	// ErrStale: the copy of users and keys is older than MaxAge.
	ErrStale = errors.New("users and keys were last confirmed too long ago")
)

const (
	// MaxAge is how long a copy of users and keys is good for while nobody
	// confirms it. Nothing that depends on it gets in after that.
	MaxAge = 10 * time.Minute

	// maxAuthorizationBytes bounds the header before anything looks into it.
	maxAuthorizationBytes = 8 << 10
)

// Gate tells who a caller is, for every door. It may be used from many
// goroutines at once.
type Gate struct {
	fresh func() time.Duration
	state atomic.Pointer[gateState]
	ready chan struct{} // closed with the first snapshot and deployment

	mu        sync.Mutex // guards changes of state, and followers
	opened    bool
	followers map[*follower]struct{}
}

// gateState is all that Verify looks at. It is replaced as a whole.
type gateState struct {
	roots      []*rootKey
	snapshot   *Snapshot // nil: not read yet
	deployment string    // "": not known yet
	at         time.Time // of the latest change of snapshot
	proofs     *proofs   // made on this state; nil keeps none
}

// rootKey is what is kept of a root key: nothing of it gives the key back.
type rootKey struct {
	link  *sealed  // what is compared, and links are signed with
	token *sealed  // what its tokens are signed with
	is    identity // of who has it as bearer
}

// NewGate makes a gate that lets nobody in: see SetRoots, SetDeployment and
// SetSnapshot. fresh gives the age of the snapshot's rows, which is when it was
// last known that there are no newer ones; without it they are too old.
func NewGate(fresh func() time.Duration) *Gate {
	g := &Gate{fresh: fresh, ready: make(chan struct{}), followers: make(map[*follower]struct{})}
	g.state.Store(new(gateState))
	return g
}

// Format implements fmt.Formatter: nothing of what it holds is shown.
func (g *Gate) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "gate") }

// Ready is closed once there is a snapshot and a deployment: till then Verify
// gives ErrNotReady for everything but the root key as bearer.
func (g *Gate) Ready() <-chan struct{} { return g.ready }

// SetRoots replaces the root keys. All are accepted, and the first signs. The
// error wraps ErrCredential; then nothing is changed.
func (g *Gate) SetRoots(keys ...Credential) error {
	roots := make([]*rootKey, 0, len(keys))
	for _, c := range keys {
		if c.IsZero() || c.ID != RootID {
			return fmt.Errorf("%w: the id of a root key is %q", ErrCredential, RootID)
		}
		link := linkKey(c)
		r := &rootKey{link: seal(link[:]), token: seal(mac(c.secret.bytes[:], tokenLabel))}
		r.is.root = r
		roots = append(roots, r)
	}
	g.change(func(s *gateState) {
		for i, r := range roots { // a key that stays is the same one
			if old := s.root(r.link.bytes[:]); old != nil {
				roots[i] = old
			}
		}
		s.roots = roots
	})
	return nil
}

// SetDeployment tells which mesh this is: what tokens and links are for.
func (g *Gate) SetDeployment(id string) { g.change(func(s *gateState) { s.deployment = id }) }

// SetSnapshot replaces the users and keys; nil takes them away. What is open is looked at again
// before it returns; see Follow.
func (g *Gate) SetSnapshot(now time.Time, snapshot *Snapshot) {
	g.change(func(s *gateState) {
		if snapshot != nil && snapshot != s.snapshot {
			snapshot.carry(s.snapshot)
		}
		s.snapshot, s.at = snapshot, now
	})
}

// Snapshot is the present one; nil before the first.
func (g *Gate) Snapshot() *Snapshot { return g.state.Load().snapshot }

// Deployment is what SetDeployment was told.
func (g *Gate) Deployment() string { return g.state.Load().deployment }

func (g *Gate) change(do func(s *gateState)) {
	g.mu.Lock()
	next := *g.state.Load()
	next.proofs = new(proofs)
	do(&next)
	g.state.Store(&next)
	if !g.opened && next.snapshot != nil && next.deployment != "" {
		g.opened = true
		close(g.ready)
	}
	g.mu.Unlock()
	g.recheck(nil)
}

// Used are the keys that were used since their rows were written, and when, in
// Unix nanoseconds: what a node writes down every now and then. It is precise
// to a minute.
func (g *Gate) Used() map[string]int64 {
	if s := g.state.Load().snapshot; s != nil {
		return s.touched()
	}
	return nil
}

// SealKey gives what is to be kept of a new key of user: Key.Sealed. The error
// is ErrNotReady.
func (g *Gate) SealKey(c Credential, user string) ([]byte, error) {
	s := g.state.Load().snapshot
	if s == nil {
		return nil, ErrNotReady
	}
	return s.master.SealKey(c, user), nil
}

// root finds the root key with that link key. All of them are compared,
// whichever it is.
func (s *gateState) root(link []byte) *rootKey {
	var found *rootKey
	for _, r := range s.roots {
		if subtle.ConstantTimeCompare(r.link.bytes[:], link) == 1 {
			found = r
		}
	}
	return found
}
