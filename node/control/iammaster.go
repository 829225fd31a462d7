package control

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/gridloom/gridloom/node/iam"
)

// The master, under which keys are sealed, is in the system group in boxes, one
// for each mesh secret. Its leader makes it, once, and keeps the boxes as the
// nodes' secrets want them:
//
//   - every secret that the leader accepts gets a box, so that a new one has
//     its box before the first node knows nothing else;
//   - a box goes when for ten minutes, without a break, every node of the topology
//     was there, had one of the other boxes' secrets, and none named its own.
//     That is what the nodes' greetings say, and the leader has watched: another
//     leader begins to count anew, and a node that is away holds it up. A box
//     can't be made again for a secret that nobody has, so there is no hurry.
//
// Revisions see to it that of two who think they lead one makes the master.

const (
	// keepBoxes is how long a box is kept that nobody needs.
	keepBoxes = 10 * time.Minute
	// heardLately is how old a greeting may be to say something of a node now.
	heardLately = 3 * greetEvery
)

// boxKeeping is what the steward remembers of boxes.
type boxKeeping struct {
	idle   map[string]time.Time // by fingerprint: since when nobody has needed it
	silent bool                 // it has said that the master can't be opened
}

// forget begins to count anew.
func (k *boxKeeping) forget() { *k = boxKeeping{} }

// tendMaster makes the master, and boxes for it.
func (c *Control) tendMaster(ctx context.Context) {
	secrets := c.meshSecrets()
	if len(secrets) == 0 {
		return
	}
	v := c.system.acquire()
	boxes, revision := v.boxes, v.boxRevision
	c.system.release(v)
	_, next, _, err := iam.RotateBoxes(boxes, secrets)
	if err != nil {
		if !c.boxes.silent {
			c.log.Error("access keys can't be made or used with what this node has", "error", err)
			c.boxes.silent = true
		}
		return
	}
	for _, b := range boxes {
		if !hasBox(next, b.Fingerprint) && !c.needless(b.Fingerprint, boxes) {
			next = append(next, b)
		}
	}
	same := func(a, b iam.Box) bool {
		return bytes.Equal(a.Fingerprint, b.Fingerprint) && bytes.Equal(a.Sealed, b.Sealed)
	}
	slices.SortFunc(next, func(a, b iam.Box) int { return bytes.Compare(a.Fingerprint, b.Fingerprint) })
	if slices.EqualFunc(next, boxes, same) {
		return
	}
	cmd := complete(&Command{SealMaster: &SealMaster{Boxes: next, Revision: revision}})
	if err := cmd.validate(); err != nil {
		c.log.Warn("the mesh's secrets are too many", "error", err)
		return
	}
	out, err := c.propose(ctx, systemGroup, cmd)
	if err == nil {
		_, _, err = out.result(cmd)
	}
	if err != nil {
		c.log.Info("the master isn't sealed yet", "error", err)
		return
	}
	c.log.Info("the master of access keys is sealed", "mesh_secrets", len(next), "before", len(boxes))
}

// meshSecrets are the secrets of the mesh that this node accepts now.
func (c *Control) meshSecrets() [][]byte {
	if c.secrets == nil {
		return nil
	}
	return c.secrets()
}

// fingerprints are those of the mesh secrets that this node accepts now.
func (c *Control) fingerprints() (all [][]byte) {
	for _, s := range c.meshSecrets() {
		all = append(all, iam.Fingerprint(s))
	}
	return all
}

func hasBox(boxes []iam.Box, fingerprint []byte) bool {
	return slices.ContainsFunc(boxes, func(b iam.Box) bool { return bytes.Equal(b.Fingerprint, fingerprint) })
}

// needless tells whether a box may go: nobody has needed it for long.
func (c *Control) needless(fingerprint []byte, boxes []iam.Box) bool {
	name := string(fingerprint)
	if !c.idle(fingerprint, boxes) {
		delete(c.boxes.idle, name)
		return false
	}
	since, known := c.boxes.idle[name]
	if !known {
		if c.boxes.idle == nil {
			c.boxes.idle = map[string]time.Time{}
		}
		c.boxes.idle[name] = time.Now()
		return false
	}
	return time.Since(since) >= c.boxKept
}

// idle tells whether every node of the topology is there, has a secret of
// another box, and none that of this one.
func (c *Control) idle(fingerprint []byte, boxes []iam.Box) bool {
	heard := c.meetings.greetedSince(time.Now().Add(-heardLately))
	t := c.Topology()
	for i := range t.Nodes {
		has := c.fingerprints
		if name := t.Nodes[i].Name; name != c.self {
			g := heard[name]
			if g == nil {
				return false
			}
			has = func() [][]byte { return g.Secrets }
		}
		opens := false
		for _, f := range has() {
			if bytes.Equal(f, fingerprint) {
				return false
			}
			opens = opens || hasBox(boxes, f)
		}
		if !opens {
			return false
		}
	}
	return true
}
