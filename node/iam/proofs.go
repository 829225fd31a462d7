package iam

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxProofs bounds the proofs that a state of the gate keeps.
const maxProofs = 4096

// proofs are access keys that were proven on one state of the gate, by the
// SHA-256 of what was sent: who sends the same again has the same key. A secret
// has 256 bits, so its hash gives nothing away, and nothing is looked up by what
// somebody could choose to be near it. Another state, whatever it is that has
// changed, begins without any. What depends on the time is asked each time: how
// fresh the users and keys are, and whether the key has expired.
type proofs struct {
	mu   sync.RWMutex // guards what follows
	made map[[sha256.Size]byte]proof
}

// proof is what was found for a bearer: one of both.
type proof struct {
	root  *rootKey
	entry *entry
}

// proofOf is what a bearer's proof is kept by; ok is false for one that is too
// long for an access key.
func proofOf(bearer string) (by [sha256.Size]byte, ok bool) {
	var buf [maxCredentialBytes]byte
	if len(bearer) > len(buf) {
		return by, false
	}
	return sha256.Sum256(buf[:copy(buf[:], bearer)]), true
}

func (p *proofs) get(by *[sha256.Size]byte) (proof, bool) {
	if p == nil {
		return proof{}, false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	found, ok := p.made[*by]
	return found, ok
}

// add keeps a proof. Where there is no room, another goes, whichever.
func (p *proofs) add(by *[sha256.Size]byte, made proof) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == nil {
		p.made = make(map[[sha256.Size]byte]proof)
	}
	for other := range p.made {
		if len(p.made) < maxProofs {
			break
		}
		delete(p.made, other)
	}
	p.made[*by] = made
}

// admit is what an access key that is proven still has to pass.
func (g *Gate) admit(state *gateState, p proof, now time.Time) (Principal, error) {
	if p.root != nil {
		return Principal{ID: RootID, User: RootID, Root: true, Via: ViaRoot, is: &p.root.is}, nil
	}
	s, err := g.current(state)
	if err != nil {
		return Principal{}, err
	}
	if err := s.admit(p.entry, now); err != nil {
		return Principal{}, err
	}
	p.entry.used(now)
	return p.entry.principal(ViaKey), nil
}
