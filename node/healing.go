package node

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/heal"
)

// replicas is the number of copies of each payload file, in a pool that has so
// many drives.
const replicas = 3

// healStatusTimeout bounds what a scrape waits for healing, which answers at
// once unless it has just moved to another node, or here.
const healStatusTimeout = 500 * time.Millisecond

// openHeal makes this node's part in healing. It runs once the node is ready.
func (n *Node) openHeal() (err error) {
	n.heal, err = heal.New(heal.Options{
		Self: n.cfg.Name, Index: n.control, Topology: n.control.Topology, Objects: n.objects, Leader: n.control.DataLeader,
		Grid: n.grid, Conn: n.conn, Replicas: replicas,
		After: n.cfg.Heal.After, BytesPerSecond: n.cfg.Heal.BytesPerSecond, ScrubPeriod: n.cfg.Heal.ScrubPeriod,
		Log: n.log, Hooks: n.healHooks(),
	})
	if err != nil {
		return err
	}
	n.healer.Store(n.heal)
	return n.observe(n.observeHeal)
}

// badCopy is told by reads of copies that are missing or wrong.
func (n *Node) badCopy(id dataio.ID, drive, why string) {
	if h := n.healer.Load(); h != nil {
		h.BadCopy(id, drive, why)
	}
}

// healHooks is what healing reports, for metrics and traces.
func (n *Node) healHooks() heal.Hooks {
	hooks := n.instruments.healHooks()
	if n.spans != nil {
		hooks.Span = func(ctx context.Context, what, drive string, segments int) (context.Context, func(error)) {
			return n.spans.Root(ctx, what, attribute.String("gridloom.drive", drive), attribute.Int("gridloom.segments", segments))
		}
	}
	return hooks
}

// healHooks counts what healing reports.
func (i *instruments) healHooks() heal.Hooks {
	ctx := context.Background()
	check := labels("found_by", "check")
	return heal.Hooks{
		Copied: func(copies int, bytes int64) {
			i.healed.Add(ctx, int64(copies))
			i.healedBytes.Add(ctx, bytes)
		},
		Failed:    func(segments int) { i.healFailed.Add(ctx, int64(segments)) },
		BadCopies: func(copies int) { i.badCopies.Add(ctx, int64(copies), check) },
	}
}

// observeHeal exports what the node that coordinates healing knows; the others
// have no such series, so that no two of them disagree.
func (n *Node) observeHeal(o *observed) metric.Callback {
	const from = "; from the node that coordinates healing."
	pending := o.gauge("gridloom.heal.pending", "{segment}", "Segments committed with fewer copies than they should have"+from)
	endangered := o.gauge("gridloom.heal.endangered", "{segment}", "Segments with at most one copy left, of more"+from)
	unrecoverable := o.gauge("gridloom.heal.unrecoverable", "{segment}", "Segments without any good copy"+from)
	phase := o.gauge("gridloom.heal.phase", "", "1 for what healing is at, 0 for the rest"+from)
	total := o.gauge("gridloom.heal.pass.segments", "{segment}", "Segments that the pass under way, or the last one, has to bring in order"+from)
	done := o.gauge("gridloom.heal.pass.done", "{segment}", "Segments that it has brought in order"+from)
	failed := o.gauge("gridloom.heal.pass.failed", "{segment}", "Segments that it has given up until the next"+from)
	rate := o.gauge("gridloom.heal.rate", "By/s", "Bytes copied a second, of late, by healing and moving"+from)
	eta := o.seconds("gridloom.heal.eta", "Time until the pass is done, about; 0 where it isn't known, or there is none"+from)
	stuck := o.gauge("gridloom.heal.stuck", "{reason}", "Reasons for which segments could not be brought in order"+from)
	draining := o.gauge("gridloom.heal.draining", "{segment}", "Segments that are still on drives that drain"+from)
	blocked := o.gauge("gridloom.heal.draining.blocked", "{drain}", "Drives, nodes and pools that drain and can't go on"+from)
	moved := o.gauge("gridloom.heal.rebalance.moved", "By", "Bytes that the rebalancing under way, or the last one, has moved"+from)

	round := o.gauge("gridloom.scrub.round", "{round}", "Number of the scrub's round that is under way, or was the last"+from)
	running := o.gauge("gridloom.scrub.running", "", "Whether a round is under way, 1 or 0"+from)
	read := o.gauge("gridloom.scrub.read", "By", "Bytes of copies that the round has read"+from)
	expected := o.gauge("gridloom.scrub.expected", "By", "Bytes of all copies that it will have read, about"+from)
	segments := o.gauge("gridloom.scrub.segments", "{segment}", "Segments that the round has looked at, each with all its copies"+from)
	bad := o.gauge("gridloom.scrub.bad", "{copy}", "Copies that it has found missing or wrong"+from)
	scrubETA := o.seconds("gridloom.scrub.eta", "Time until the round is done, about; 0 where it isn't known, or none is under way"+from)
	ended := o.seconds("gridloom.scrub.ended.timestamp", "When the last round ended, in seconds since 1970; 0 while one is under way"+from)
	return func(ctx context.Context, to metric.Observer) error {
		if _, self := n.control.DataLeader(); !self {
			return nil
		}
		// At once, but for the moment in which another takes over.
		ctx, cancel := context.WithTimeout(ctx, healStatusTimeout)
		defer cancel()
		s, err := n.heal.Status(ctx)
		if err != nil {
			return nil // it leads no more, or not yet
		}
		to.ObserveInt64(pending, s.Pending)
		to.ObserveInt64(endangered, s.Endangered)
		to.ObserveInt64(unrecoverable, s.UnrecoverableCount)
		for _, name := range []string{heal.PhaseIdle, heal.PhaseCopying, heal.PhaseDraining, heal.PhaseRebalancing, heal.PhaseScrubbing} {
			to.ObserveInt64(phase, truth(s.Phase == name), labels("phase", name))
		}
		to.ObserveInt64(total, s.Total)
		to.ObserveInt64(done, s.Done)
		to.ObserveInt64(failed, s.Failed)
		to.ObserveInt64(rate, s.RatePerSecond)
		to.ObserveFloat64(eta, s.ETA.Seconds())
		to.ObserveInt64(stuck, int64(len(s.Stuck)))
		var left, held int64
		for _, d := range s.Draining {
			left += d.LeftSegments
			held += truth(d.Blocked != "")
		}
		to.ObserveInt64(draining, left)
		to.ObserveInt64(blocked, held)
		to.ObserveInt64(moved, s.Rebalance.Bytes)
		to.ObserveInt64(round, int64(s.Scrub.Round))
		to.ObserveInt64(running, truth(s.Scrub.Running))
		to.ObserveInt64(read, s.Scrub.Bytes)
		to.ObserveInt64(expected, s.Scrub.Total)
		to.ObserveInt64(segments, s.Scrub.Segments)
		to.ObserveInt64(bad, s.Scrub.Bad)
		to.ObserveFloat64(scrubETA, s.Scrub.ETA.Seconds())
		at := 0.0
		if !s.Scrub.Ended.IsZero() {
			at = float64(s.Scrub.Ended.Unix())
		}
		to.ObserveFloat64(ended, at)
		return nil
	}
}
