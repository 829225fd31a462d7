package node

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/heal"
)

// replicas is the number of copies of each payload file, in a pool that has so
// many drives.
const replicas = 3

// openHeal makes this node's part in healing. It runs once the node is ready.
func (n *Node) openHeal() (err error) {
	n.heal, err = heal.New(heal.Options{
		Self: n.cfg.Name, Index: n.control, Topology: n.control.Topology, Objects: n.objects, Leader: n.control.DataLeader,
		Grid: n.grid, Conn: n.conn, Replicas: replicas,
		After: n.cfg.Heal.After, BytesPerSecond: n.cfg.Heal.BytesPerSecond, ScrubPeriod: n.cfg.Heal.ScrubPeriod,
		Log: n.log, Hooks: n.instruments.healHooks(),
	})
	if err != nil {
		return err
	}
	n.healer.Store(n.heal)
	return observeHeal(n.telemetry.Meter(), n.control.DataLeader, n.heal.Status)
}

// badCopy is told by reads of copies that are missing or wrong.
func (n *Node) badCopy(id dataio.ID, drive, why string) {
	if h := n.healer.Load(); h != nil {
		h.BadCopy(id, drive, why)
	}
}

// healHooks counts what healing reports.
func (i *instruments) healHooks() heal.Hooks {
	ctx := context.Background()
	check := metric.WithAttributeSet(attribute.NewSet(attribute.String("found_by", "check")))
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
func observeHeal(m metric.Meter, leader func() (string, bool), status func(context.Context) (*heal.Status, error)) error {
	gauge := func(name, help string) (metric.Int64ObservableGauge, error) {
		return m.Int64ObservableGauge(name, metric.WithUnit("{segment}"), metric.WithDescription(help))
	}
	pending, err := gauge("gridloom.heal.pending", "Segments committed with fewer copies than they should have; from the node that coordinates healing.")
	if err != nil {
		return err
	}
	endangered, err := gauge("gridloom.heal.endangered", "Segments with at most one copy left, of more; from the node that coordinates healing.")
	if err != nil {
		return err
	}
	unrecoverable, err := gauge("gridloom.heal.unrecoverable", "Segments without any good copy; from the node that coordinates healing.")
	if err != nil {
		return err
	}
	_, err = m.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		if _, self := leader(); !self {
			return nil
		}
		s, err := status(ctx)
		if err != nil {
			return nil // it leads no more, or not yet
		}
		to.ObserveInt64(pending, s.Pending)
		to.ObserveInt64(endangered, s.Endangered)
		to.ObserveInt64(unrecoverable, s.UnrecoverableCount)
		return nil
	}, pending, endangered, unrecoverable)
	return err
}
