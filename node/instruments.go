package node

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/object"
)

// instruments turns what the parts report through their hooks into
// OpenTelemetry instruments. Labels are bounded: peers and drives are those of
// the configuration, paths and kinds are short lists.
type instruments struct {
	sent       metric.Int64Counter
	bulkConns  metric.Int64UpDownCounter
	reclaimed  metric.Int64Counter
	leftBehind metric.Int64Counter
	driveFail  metric.Int64Counter
	limited    metric.Int64Counter

	copiesMissing, failovers, badCopies metric.Int64Counter
	orphans, orphanBytes                metric.Int64Counter
	healed, healedBytes, healFailed     metric.Int64Counter
}

func newInstruments(m metric.Meter) (*instruments, error) {
	var i instruments
	var err error
	counter := func(into *metric.Int64Counter, name, unit, help string) {
		if err == nil {
			*into, err = m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(help))
		}
	}
	counter(&i.sent, "gridloom.payload.sent", "By", "Payload bytes sent to readers, by the way they took.")
	counter(&i.reclaimed, "gridloom.payload.reclaimed", "{file}", "Payload files removed because no record refers to them any more.")
	counter(&i.leftBehind, "gridloom.payload.left_behind", "{file}", "Payload files that a failed put could not remove.")
	counter(&i.driveFail, "gridloom.drive.failures", "{operation}", "Operations on a drive that failed.")
	counter(&i.limited, "gridloom.limited", "{refusal}", "Connections closed and requests refused because of a limit, by listener (any for what all share) and limit.")
	counter(&i.copiesMissing, "gridloom.put.copies_missing", "{copy}", "Copies that puts were acknowledged without; they are made later.")
	counter(&i.failovers, "gridloom.read.failovers", "{failover}", "Reads that went on with another copy, by reason.")
	counter(&i.badCopies, "gridloom.bad_copies", "{copy}", "Copies found to be missing or wrong, by reads or by the checks of healing.")
	counter(&i.orphans, "gridloom.orphans", "{file}", "Payload files removed that no record has ever known.")
	counter(&i.orphanBytes, "gridloom.orphans.bytes", "By", "Bytes of these files.")
	counter(&i.healed, "gridloom.heal.copies", "{copy}", "Copies made anew or again.")
	counter(&i.healedBytes, "gridloom.heal.bytes", "By", "Bytes of these copies.")
	counter(&i.healFailed, "gridloom.heal.failed", "{segment}", "Segments that healing gave up until its next pass.")
	if err != nil {
		return nil, err
	}
	i.bulkConns, err = m.Int64UpDownCounter("gridloom.bulk.connections", metric.WithUnit("{connection}"),
		metric.WithDescription("Open connections to peers' bulk ports."))
	return &i, err
}

// objectHooks counts what the payload service reports.
func (i *instruments) objectHooks() object.Hooks {
	ctx := context.Background()
	paths := map[object.Path]metric.MeasurementOption{}
	for path, name := range map[object.Path]string{
		object.PathInline: "inline", object.PathSendfile: "sendfile", object.PathSplice: "splice",
		object.PathCopy: "copy", object.PathGrid: "grid",
	} {
		paths[path] = metric.WithAttributeSet(attribute.NewSet(attribute.String("path", name)))
	}
	read := metric.WithAttributeSet(attribute.NewSet(attribute.String("found_by", "read")))
	return object.Hooks{
		Sent: func(path object.Path, n int64) { i.sent.Add(ctx, n, paths[path]) },
		BulkConns: func(node string, delta int) {
			i.bulkConns.Add(ctx, int64(delta), metric.WithAttributes(attribute.String("peer", node)))
		},
		Reclaimed:  func(files int, _ int64) { i.reclaimed.Add(ctx, int64(files)) },
		LeftBehind: func(files int) { i.leftBehind.Add(ctx, int64(files)) },

		CopiesMissing: func(copies int) { i.copiesMissing.Add(ctx, int64(copies)) },
		Failover: func(reason string) {
			i.failovers.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
		},
		BadCopy: func(string, dataio.ID) { i.badCopies.Add(ctx, 1, read) },
		Orphans: func(files int, bytes int64) {
			i.orphans.Add(ctx, int64(files))
			i.orphanBytes.Add(ctx, bytes)
		},
	}
}

// driveEvents counts what the drives report, and logs what an operator must
// know.
func (n *Node) driveEvents() dataio.Events {
	ctx := context.Background()
	return dataio.Events{
		StateChanged: func(d *dataio.Drive, from, to dataio.State, cause error) {
			if to == dataio.Offline && cause == nil { // closed, by us
				return
			}
			level := slog.LevelWarn
			if cause == nil { // well again
				level = slog.LevelInfo
			}
			n.log.Log(ctx, level, "a drive changed its state", "drive", d.ID(), "path", d.Path(), "from", from, "to", to, "cause", cause)
		},
		Failed: func(d *dataio.Drive, op dataio.Op, err error) {
			n.instruments.driveFail.Add(ctx, 1, metric.WithAttributes(
				attribute.String("drive", d.ID()), attribute.String("operation", op.Kind.String())))
			n.log.Warn("an operation on a drive failed", "drive", d.ID(), "path", d.Path(), "operation", op.Kind, "error", err)
		},
	}
}

// observeGrid exports the grid's own counters, one series a peer.
func observeGrid(m metric.Meter, stats func() []grid.ConnectionStats, name func(host string) string) error {
	type family struct {
		name, unit, help string
		value            func(s grid.ConnectionStats) int64
	}
	counters := []family{
		{"gridloom.grid.received", "By", "Bytes received from the peer.", func(s grid.ConnectionStats) int64 { return int64(s.BytesIn) }},
		{"gridloom.grid.sent", "By", "Bytes sent to the peer.", func(s grid.ConnectionStats) int64 { return int64(s.BytesOut) }},
		{"gridloom.grid.received.messages", "{message}", "Messages received from the peer.", func(s grid.ConnectionStats) int64 { return int64(s.MessagesIn) }},
		{"gridloom.grid.sent.messages", "{message}", "Messages sent to the peer.", func(s grid.ConnectionStats) int64 { return int64(s.MessagesOut) }},
		{"gridloom.grid.sessions", "{session}", "Sessions that came up with the peer.", func(s grid.ConnectionStats) int64 { return int64(s.Sessions) }},
	}
	gauges := []family{
		{"gridloom.grid.up", "1", "Whether a session with the peer is up.", func(s grid.ConnectionStats) int64 {
			if s.State == grid.StateConnected {
				return 1
			}
			return 0
		}},
		{"gridloom.grid.queued", "By", "Bytes waiting to be written to the peer.", func(s grid.ConnectionStats) int64 { return s.QueuedBytes }},
		{"gridloom.grid.calls.out", "{call}", "Calls to the peer in flight.", func(s grid.ConnectionStats) int64 { return int64(s.CallsOut) }},
		{"gridloom.grid.calls.in", "{call}", "Calls of the peer being served.", func(s grid.ConnectionStats) int64 { return int64(s.CallsIn) }},
	}
	var observables []metric.Observable
	var observe []func(metric.Observer, grid.ConnectionStats, metric.ObserveOption)
	for _, f := range counters {
		o, err := m.Int64ObservableCounter(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.help))
		if err != nil {
			return err
		}
		observables = append(observables, o)
		observe = append(observe, func(to metric.Observer, s grid.ConnectionStats, at metric.ObserveOption) {
			to.ObserveInt64(o, f.value(s), at)
		})
	}
	for _, f := range gauges {
		o, err := m.Int64ObservableGauge(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.help))
		if err != nil {
			return err
		}
		observables = append(observables, o)
		observe = append(observe, func(to metric.Observer, s grid.ConnectionStats, at metric.ObserveOption) {
			to.ObserveInt64(o, f.value(s), at)
		})
	}
	rtt, err := m.Float64ObservableGauge("gridloom.grid.rtt", metric.WithUnit("s"), metric.WithDescription("Round trip of the last ping to the peer."))
	if err != nil {
		return err
	}
	_, err = m.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		for _, s := range stats() {
			at := metric.WithAttributeSet(attribute.NewSet(attribute.String("peer", name(s.Host))))
			for _, f := range observe {
				f(to, s, at)
			}
			to.ObserveFloat64(rtt, float64(s.RTT)/float64(time.Second), at)
		}
		return nil
	}, append(observables, rtt)...)
	return err
}
