package heal

import (
	"context"
	"math"

	"github.com/gridloom/gridloom/node/control"
)

// sweeps drops the garbage rows of drives that are gone: when one goes, and
// every SweepEvery, since what is deleted later may have been on one, too.
func (t *term) sweeps(ctx context.Context) {
	for await(ctx, t.sweepNow, t.o.SweepEvery) {
		if err := t.sweep(ctx); err != nil && ctx.Err() == nil {
			t.log.Warn("garbage of drives that are gone stays for now", "err", err)
		}
	}
}

// sweep drops them, page by page. A drive that is in the topology by now, in
// the index's own view, keeps its garbage: its node removes the files.
func (t *term) sweep(ctx context.Context) error {
	for {
		top, err := t.o.Index.Read(ctx, &control.Query{Topology: &control.TopologyQuery{}})
		if err != nil {
			return err
		}
		q := &control.GarbageQuery{Before: math.MaxInt64}
		for _, n := range top.Topology.Nodes {
			q.Present = append(q.Present, n.Drives...)
		}
		if len(q.Present) == 0 || len(q.Present) > control.MaxQueryDrives {
			return nil
		}
		a, err := t.o.Index.Read(ctx, &control.Query{Garbage: q})
		if err != nil || len(a.Garbage) == 0 {
			return err
		}
		if _, err := t.o.Index.Propose(ctx, &control.Command{Reclaim: &control.Reclaim{Entries: a.Garbage}}); err != nil {
			return err
		}
		if !a.More {
			return nil
		}
	}
}
