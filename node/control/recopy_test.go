package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/node/fault"
)

// copying draws what happens to few segments on few drives: copies come and go
// while records are written, moved and deleted and files reclaimed.
type copying struct {
	*rand.Rand
	m     *model
	clock int64
	next  byte // of the ids of segments
	seen  map[string]int
}

func (g *copying) command() *Command {
	drives := []string{"d1", "d2", "d3", "d4"}
	keys := []string{"a", "a/b", "b"}
	bucket := func() ([16]byte, string) {
		b := 1 + byte(g.IntN(2))
		return [16]byte{b}, fmt.Sprint("bucket-", b)
	}
	some := func(n int) []string {
		g.Shuffle(len(drives), func(i, j int) { drives[i], drives[j] = drives[j], drives[i] })
		return slices.Clone(drives[:n])
	}
	id, name := bucket()
	switch n := g.IntN(100); {
	case n < 22:
		rec := Record{Key: keys[g.IntN(3)], ETag: "e"}
		if old := g.m.records[id][rec.Key]; len(old.Segments) > 0 && g.IntN(4) == 0 {
			rec.Segments = old.Segments[:1+g.IntN(len(old.Segments))]
		} else {
			for range 1 + g.IntN(3) {
				g.next++
				rec.Segments = append(rec.Segments, Segment{ID: [16]byte{g.next}, SizeBytes: 1 + int64(g.next)%5, Drives: some(1 + g.IntN(3))})
			}
		}
		for _, s := range rec.Segments {
			rec.SizeBytes += s.SizeBytes
		}
		return &Command{PutRecord: &PutRecord{BucketName: name, BucketID: id, Record: rec, Birth: g.m.logTime + 1, Copies: uint8(g.IntN(4))}}
	case n < 30:
		return &Command{DeleteRecords: &DeleteRecords{Bucket: name, BucketID: id, Keys: keys[:1+g.IntN(2)]}}
	case n < 40:
		to, toName := bucket()
		c := &MoveRecord{From: Place{Bucket: name, BucketID: id, Key: keys[g.IntN(3)]}, To: Place{Bucket: toName, BucketID: to, Key: keys[g.IntN(3)]}}
		if c.validate() == nil {
			return &Command{MoveRecord: c}
		}
	case n < 44:
		return &Command{SetQuota: &SetQuota{Bucket: name, BucketID: id, MaxObjects: g.Int64N(4), MaxBytes: g.Int64N(2) * (10 + g.Int64N(10))}}
	case n < 58 && len(g.m.garbage) > 0:
		c := &Reclaim{}
		for range 1 + g.IntN(3) {
			c.Entries = append(c.Entries, g.m.garbage[g.IntN(len(g.m.garbage))])
		}
		return &Command{Reclaim: c}
	}
	return &Command{Recopy: g.recopy(some)}
}

func (g *copying) recopy(some func(int) []string) *Recopy {
	c := &Recopy{Birth: max(1, g.m.logTime-int64(time.Duration(g.IntN(60))*time.Second))}
	there := g.m.segments()
	g.Shuffle(len(there), func(i, j int) { there[i], there[j] = there[j], there[i] })
	there = append(there[:min(len(there), 1+g.IntN(4))], [16]byte{g.next - byte(g.IntN(8)), 1})
	for _, id := range there {
		e := CopyChange{ID: id, Settled: g.IntN(3) == 0}
		for _, d := range some(1 + g.IntN(3)) {
			switch g.IntN(5) {
			case 0, 1:
				e.Add = append(e.Add, d)
			case 2, 3:
				e.Remove = append(e.Remove, d)
			case 4:
				e.Drop = append(e.Drop, d)
			}
		}
		c.Entries = append(c.Entries, e)
	}
	return c
}

// step applies a command to the model and to both nodes.
func (g *copying) step(t *testing.T, nodes ...*applier) {
	t.Helper()
	g.clock += int64(time.Duration(g.IntN(20)) * time.Second)
	c := complete(g.command())
	c.Slots = 1
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	e := &entry{Index: g.m.applied + 1, Term: 1, Stamp: g.clock, Command: c}
	want := g.m.apply(e)
	for _, n := range nodes {
		out := *n.apply(t, e)
		out.Subject, out.Detail = "", ""
		if diff := gocmp.Diff(want, &out, allowUnexported); diff != "" {
			t.Fatalf("%+v: not what the model says:\n%s", c, diff)
		}
	}
	g.count(c, want)
}

func (g *copying) count(c *Command, out *outcome) {
	switch {
	case out.Refused:
		g.seen[fault.Kind(out.Kind).Reason()]++
	case c.Recopy != nil:
		for _, f := range out.Fates {
			g.seen[[]string{"gone", "done", "fate refused"}[f]]++
		}
	}
}

// Where the copies of segments are, what is garbage and what buckets hold is
// what the model in plain maps says, whatever comes between: puts, overwrites
// that keep segments, deletions, moves, reclaimed files, and changes of copies
// that were made for an earlier state. Every file that was ever listed is listed,
// or garbage, or gone.
func TestCopiesAgainstModel(t *testing.T) {
	seen, seeds := map[string]int{}, uint64(12)
	if raced() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) {
			a, b := newApplier(t, dataGroup, vfs.NewMem()), newApplier(t, dataGroup, vfs.NewMem())
			a.looks = true
			defer func() { a.close(t); b.close(t) }()
			g := &copying{Rand: rand.New(rand.NewPCG(seed, 1)), m: newModel(dataGroup), clock: int64(100 * time.Hour), seen: seen}
			for range 400 {
				g.step(t, a, b)
				if g.IntN(4) == 0 {
					a.commit(t)
				}
				if g.IntN(20) == 0 {
					a.commit(t)
					b.commit(t)
					if x, y := a.checksum(t), b.checksum(t); x != y {
						t.Fatalf("at %d the states differ: %x and %x", g.m.applied, x, y)
					}
					g.m.compare(t, a)
				}
			}
		})
	}
	t.Log(seen)
	for _, what := range []string{"gone", "done", "fate refused", "quota_exceeded"} {
		if seen[what] == 0 {
			t.Errorf("nothing was %s: %v", what, seen)
		}
	}
}
