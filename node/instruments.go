package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// instruments turns what the parts report through their hooks into
// OpenTelemetry instruments. Labels are bounded: peers and drives are those of
// the configuration, paths and kinds are short lists. A counter whose labels
// are known beforehand is there from the start, at 0: what isn't there can't be
// alerted on.
type instruments struct {
	sent       [object.PathGrid + 1]atomic.Int64 // by path: counted for every read, looked at when somebody asks
	bulkConns  metric.Int64UpDownCounter
	reclaimed  metric.Int64Counter
	gcBytes    metric.Int64Counter
	leftBehind metric.Int64Counter
	driveFail  metric.Int64Counter
	limited    metric.Int64Counter

	copiesMissing, failovers, badCopies metric.Int64Counter
	orphans, orphanBytes                metric.Int64Counter
	healed, healedBytes, healFailed     metric.Int64Counter

	raftEntries, raftChanges metric.Int64Counter
	raftCommit, raftApply    metric.Float64Histogram
}

func newInstruments(m metric.Meter) (*instruments, error) {
	var i instruments
	var err error
	counter := func(into *metric.Int64Counter, name, unit, help string) {
		if err == nil {
			*into, err = m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(help))
		}
	}
	histogram := func(into *metric.Float64Histogram, name, help string, bounds ...float64) {
		if err == nil {
			*into, err = m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(help), metric.WithExplicitBucketBoundaries(bounds...))
		}
	}
	counter(&i.reclaimed, "gridloom.payload.reclaimed", "{file}", "Payload files removed because no record refers to them any more.")
	counter(&i.gcBytes, "gridloom.gc.bytes", "By", "Bytes of these files.")
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
	counter(&i.raftEntries, "gridloom.raft.entries", "{entry}", "Entries of the group's log that this node has applied.")
	counter(&i.raftChanges, "gridloom.raft.leader.changes", "{change}", "How often the group had another leader, none, or another term, as this node saw it.")
	histogram(&i.raftCommit, "gridloom.raft.commit.duration", "Time from a command's arrival at the group's leader until a majority had it on disk and it was applied.",
		.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)
	histogram(&i.raftApply, "gridloom.raft.apply.duration", "Time that applying a batch of committed entries took.",
		.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5)
	if err == nil {
		err = i.observeSent(m)
	}
	if err != nil {
		return nil, err
	}
	i.bulkConns, err = m.Int64UpDownCounter("gridloom.bulk.connections", metric.WithUnit("{connection}"),
		metric.WithDescription("Open connections to peers' bulk ports."))
	i.begin()
	return &i, err
}

// observeSent exports sent. An instrument's own counter would cost each read
// several times what an atomic does.
func (i *instruments) observeSent(m metric.Meter) error {
	var paths [len(i.sent)]metric.ObserveOption
	for path := range paths {
		paths[path] = labels("path", object.Path(path).String())
	}
	_, err := m.Int64ObservableCounter("gridloom.payload.sent", metric.WithUnit("By"),
		metric.WithDescription("Payload bytes sent to readers, by the way they took."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for path := range paths {
				o.Observe(i.sent[path].Load(), paths[path])
			}
			return nil
		}))
	return err
}

// begin has the counters begin at 0.
func (i *instruments) begin() {
	ctx := context.Background()
	for _, c := range []metric.Int64Counter{i.reclaimed, i.gcBytes, i.leftBehind, i.copiesMissing, i.orphans, i.orphanBytes, i.healed, i.healedBytes, i.healFailed} {
		c.Add(ctx, 0)
	}
	for _, by := range []string{"read", "check"} {
		i.badCopies.Add(ctx, 0, labels("found_by", by))
	}
	for _, why := range []fault.Kind{fault.Corrupted, fault.Deadline, fault.Internal, fault.Unavailable} {
		i.failovers.Add(ctx, 0, labels("reason", why.Reason()))
	}
	for listener, limits := range map[string][]string{
		"grpc": {"connections", "connections_per_address", "streams", "frames"},
		"http": {"connections", "connections_per_address"},
		"peer": {"connections", "connections_per_address"},
		"any":  {"requests", "failures", "uploads", "uploads_per_identity", "upload_bytes", "upload_bytes_per_identity"},
	} {
		for _, limit := range limits {
			i.limited.Add(ctx, 0, labels("listener", listener, "limit", limit))
		}
	}
	for _, group := range []string{"system", "data-1"} {
		i.raftEntries.Add(ctx, 0, labels("group", group))
		i.raftChanges.Add(ctx, 0, labels("group", group))
	}
}

// controlHooks counts what the index reports; the rest is for node's other parts.
func (i *instruments) controlHooks(rest control.Hooks) control.Hooks {
	ctx := context.Background()
	type options struct { // made once: these are called for every command
		add    []metric.AddOption
		record []metric.RecordOption
	}
	groups := map[string]options{}
	for _, group := range []string{"system", "data-1"} {
		at := labels("group", group)
		groups[group] = options{[]metric.AddOption{at}, []metric.RecordOption{at}}
	}
	rest.Committed = func(group string, entries int, took time.Duration) {
		i.raftEntries.Add(ctx, int64(entries), groups[group].add...)
		i.raftApply.Record(ctx, took.Seconds(), groups[group].record...)
	}
	rest.Proposed = func(group string, took time.Duration) {
		i.raftCommit.Record(ctx, took.Seconds(), groups[group].record...)
	}
	rest.Led = func(group, _ string) { i.raftChanges.Add(ctx, 1, groups[group].add...) }
	return rest
}

// objectHooks counts what the payload service reports.
func (i *instruments) objectHooks() object.Hooks {
	ctx := context.Background()
	read := labels("found_by", "read")
	return object.Hooks{
		Sent: func(path object.Path, n int64) { i.sent[path].Add(n) },
		BulkConns: func(node string, delta int) {
			i.bulkConns.Add(ctx, int64(delta), labels("peer", node))
		},
		Reclaimed: func(files int, bytes int64) {
			i.reclaimed.Add(ctx, int64(files))
			i.gcBytes.Add(ctx, bytes)
		},
		LeftBehind: func(files int) { i.leftBehind.Add(ctx, int64(files)) },

		CopiesMissing: func(copies int) { i.copiesMissing.Add(ctx, int64(copies)) },
		Failover:      func(reason string) { i.failovers.Add(ctx, 1, labels("reason", reason)) },
		BadCopy:       func(string, dataio.ID) { i.badCopies.Add(ctx, 1, read) },
		Orphans: func(files int, bytes int64) {
			i.orphans.Add(ctx, int64(files))
			i.orphanBytes.Add(ctx, bytes)
		},
	}
}

// driveOpened has a drive's counters begin at 0.
func (i *instruments) driveOpened(id string) {
	for op := dataio.OpMkdir; op <= dataio.OpUsage; op++ {
		i.driveFail.Add(context.Background(), 0, labels("drive", id, "operation", op.String()))
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
			n.instruments.driveFail.Add(ctx, 1, labels("drive", d.ID(), "operation", op.Kind.String()))
			n.log.Warn("an operation on a drive failed", "drive", d.ID(), "path", d.Path(), "operation", op.Kind, "error", err)
		},
	}
}
