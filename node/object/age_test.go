package object

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// ageIndex remembers how old the answers to queries might have been.
type ageIndex struct {
	control.Index

	mu   sync.Mutex // guards ages
	ages []time.Duration
}

func (i *ageIndex) Read(ctx context.Context, q *control.Query) (*control.Answer, error) {
	i.mu.Lock()
	i.ages = append(i.ages, q.MaxAge)
	i.mu.Unlock()
	return i.Index.Read(ctx, q)
}

// take returns what was remembered since the last call.
func (i *ageIndex) take() []time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	ages := i.ages
	i.ages = nil
	return ages
}

// TestMaxAge: what a reader allows reaches the index, in bounds and nowhere
// else: a write's own reads are never stale.
func TestMaxAge(t *testing.T) {
	const grace = time.Minute
	index := &ageIndex{}
	m := newMesh(t, meshConfig{
		drives:  []int{1},
		index:   func(under control.Index) control.Index { index.Index = under; return index },
		options: func(_ int, o *Options) { o.ReclaimGrace = grace },
	})
	m.bucket("aged")
	n, ctx := m.nodes[0], testContext(t)
	info := n.put(t, "aged", "k", []byte("abc"), true)
	reads := map[string]func(time.Duration) error{
		"Stat": func(age time.Duration) error { _, err := n.Stat(ctx, "aged", "k", Conditions{}, age); return err },
		"Open": func(age time.Duration) error { _, err := n.Open(ctx, "aged", "k", Conditions{}, age); return err },
		"List": func(age time.Duration) error {
			_, err := n.List(ctx, ListRequest{Bucket: "aged", MaxAge: age})
			return err
		},
		"GetBucket":   func(age time.Duration) error { _, err := n.GetBucket(ctx, "aged", age); return err },
		"ListBuckets": func(age time.Duration) error { _, _, err := n.ListBuckets(ctx, "", 0, age); return err },
	}
	index.take()
	for name, read := range reads {
		for _, age := range []time.Duration{0, 1, grace / 2, grace/2 + 1, MaxAgeMax} {
			want := age
			if name == "Open" { // what the record refers to must be there still
				want = min(want, grace/2)
			}
			must(t, read(age))
			if got := index.take(); !slices.Equal(got, []time.Duration{want}) {
				t.Errorf("%s %v reached the index as %v, want %v", name, age, got, want)
			}
		}
		for _, age := range []time.Duration{-1, MaxAgeMax + 1} {
			wantFault(t, read(age), fault.InvalidArgument, "max_age")
		}
		if got := index.take(); len(got) > 0 {
			t.Errorf("%s: a bad age reached the index as %v", name, got)
		}
	}
	_, err := n.Copy(ctx, CopyRequest{SrcBucket: "aged", SrcKey: "k", Bucket: "aged", Key: "l"})
	must(t, err)
	// A put that goes into its record may begin with an old answer: nothing
	// rests on it, since the commit decides.
	n.put(t, "aged", "k", randomBytes(InlineMaxBytes+1), true)
	must(t, n.Delete(ctx, "aged", "k", Conditions{IfUnmodifiedSince: info.ModifiedAt.Add(time.Hour), IfMatch: []string{"*"}}))
	for _, age := range index.take() {
		if age != 0 {
			t.Errorf("a write has read what might be %v old", age)
		}
	}
}
