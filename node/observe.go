package node

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/grid"
)

// observed declares instruments that are looked at when somebody asks. The
// first error stays, and observe gives it.
type observed struct {
	meter metric.Meter
	all   []metric.Observable
	err   error
}

// observe declares what n has. It is looked at until n is closed (StopMetrics).
func (n *Node) observe(declare func(*observed) metric.Callback) error {
	o := &observed{meter: n.telemetry.Meter()}
	look := declare(o)
	if o.err != nil {
		return o.err
	}
	_, err := o.meter.RegisterCallback(look, o.all...)
	return err
}

func (o *observed) keep(i metric.Observable, err error) {
	if o.err == nil {
		o.err = err
	}
	o.all = append(o.all, i)
}

func (o *observed) counter(name, unit, help string) metric.Int64ObservableCounter {
	i, err := o.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
	o.keep(i, err)
	return i
}

func (o *observed) gauge(name, unit, help string) metric.Int64ObservableGauge {
	i, err := o.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
	o.keep(i, err)
	return i
}

// seconds is a gauge of a time.
func (o *observed) seconds(name, help string) metric.Float64ObservableGauge {
	i, err := o.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(help))
	o.keep(i, err)
	return i
}

// labels makes the attributes of a series.
func labels(pairs ...string) metric.MeasurementOption {
	kvs := make([]attribute.KeyValue, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		kvs = append(kvs, attribute.String(pairs[i], pairs[i+1]))
	}
	return metric.WithAttributeSet(attribute.NewSet(kvs...))
}

// truth is 1 for true.
func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// observeGrid exports the grid's own counters, one series a peer; this node is
// its own peer too.
func (n *Node) observeGrid(o *observed) metric.Callback {
	received := o.counter("gridloom.grid.received", "By", "Bytes received from the peer.")
	sent := o.counter("gridloom.grid.sent", "By", "Bytes sent to the peer.")
	messagesIn := o.counter("gridloom.grid.received.messages", "{message}", "Messages received from the peer.")
	messagesOut := o.counter("gridloom.grid.sent.messages", "{message}", "Messages sent to the peer.")
	sessions := o.counter("gridloom.grid.sessions", "{session}", "Sessions that came up with the peer.")
	reconnects := o.counter("gridloom.grid.reconnects", "{reconnect}", "Sessions that came up with the peer after the first.")
	dials := o.counter("gridloom.grid.dials", "{attempt}", "Attempts to reach the peer, from the end that dials.")
	exhausted := o.counter("gridloom.grid.credits.exhausted", "{wait}",
		"How often something had to wait: a message for its stream's credit (stream), the writer for the session's (session), a call for room in the queue (queue).")
	up := o.gauge("gridloom.grid.up", "1", "Whether a session with the peer is up.")
	queued := o.gauge("gridloom.grid.queued", "By", "Bytes waiting to be written to the peer.")
	waiting := o.gauge("gridloom.grid.queue.waiting", "{call}", "Calls waiting for room in the queue to the peer.")
	callsOut := o.gauge("gridloom.grid.calls.out", "{call}", "Calls to the peer in flight.")
	callsIn := o.gauge("gridloom.grid.calls.in", "{call}", "Calls of the peer being served.")
	rtt := o.seconds("gridloom.grid.rtt", "Round trip of the last ping to the peer.")
	clock := o.seconds("gridloom.grid.clock.offset", "By how much the peer's clock was ahead of this node's when they last connected.")
	return func(_ context.Context, to metric.Observer) error {
		for _, s := range n.grid.Stats() {
			peer := n.nodeName(s.Host)
			at := labels("peer", peer)
			to.ObserveInt64(received, int64(s.BytesIn), at)
			to.ObserveInt64(sent, int64(s.BytesOut), at)
			to.ObserveInt64(messagesIn, int64(s.MessagesIn), at)
			to.ObserveInt64(messagesOut, int64(s.MessagesOut), at)
			to.ObserveInt64(sessions, int64(s.Sessions), at)
			to.ObserveInt64(reconnects, max(int64(s.Sessions)-1, 0), at)
			to.ObserveInt64(dials, int64(s.DialAttempts), at)
			to.ObserveInt64(exhausted, int64(s.StreamWaits), labels("peer", peer, "of", "stream"))
			to.ObserveInt64(exhausted, int64(s.WindowWaits), labels("peer", peer, "of", "session"))
			to.ObserveInt64(exhausted, int64(s.QueueWaits), labels("peer", peer, "of", "queue"))
			to.ObserveInt64(up, truth(s.State == grid.StateConnected), at)
			to.ObserveInt64(queued, s.QueuedBytes, at)
			to.ObserveInt64(waiting, int64(s.QueuedCallers), at)
			to.ObserveInt64(callsOut, int64(s.CallsOut), at)
			to.ObserveInt64(callsIn, int64(s.CallsIn), at)
			to.ObserveFloat64(rtt, s.RTT.Seconds(), at)
			to.ObserveFloat64(clock, s.ClockOffset.Seconds(), at)
		}
		return nil
	}
}

// raftTimeout bounds what a scrape waits for the index, which answers at once
// unless its disk hangs.
const raftTimeout = 500 * time.Millisecond

// observeRaft exports how the groups of the index stand, as this node sees it.
func (n *Node) observeRaft(o *observed) metric.Callback {
	leader := o.gauge("gridloom.raft.leader", "", "Whether this node leads the group, 1 or 0.")
	known := o.gauge("gridloom.raft.leader.known", "", "Whether this node knows a leader of the group, 1 or 0.")
	term := o.gauge("gridloom.raft.term", "{term}", "The group's term.")
	commit := o.gauge("gridloom.raft.commit.index", "{entry}", "Last entry of the group's log that is committed, as far as this node knows.")
	applied := o.gauge("gridloom.raft.applied.index", "{entry}", "Last entry of the group's log that this node has applied.")
	behind := o.gauge("gridloom.raft.apply.lag", "{entry}", "Entries that are committed and that this node has not applied yet.")
	size := o.gauge("gridloom.raft.log.size", "By", "Size of the group's log on this node.")
	members := o.gauge("gridloom.raft.members", "{node}", "Members of the group, by role.")
	lag := o.gauge("gridloom.raft.lag", "{entry}", "Entries that the member is behind; from the group's leader.")
	active := o.gauge("gridloom.raft.member.active", "", "Whether the leader has heard of the member of late, 1 or 0; from the group's leader.")
	offset := o.seconds("gridloom.raft.clock.offset", "By how much this node's clock is ahead of the median of all nodes'.")
	mayLead := o.gauge("gridloom.raft.may_lead", "", "Whether this node's clock is right enough for it to lead, 1 or 0.")
	free := o.gauge("gridloom.raft.disk.free", "By", "Free space on the disk that the index is on.")
	full := o.gauge("gridloom.raft.disk.full", "", "Whether that disk has no room for what grows, 1 or 0.")
	return func(ctx context.Context, to metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, raftTimeout)
		defer cancel()
		s, err := n.control.Status(ctx)
		if err != nil {
			return nil // it stops, or its disk hangs: then there is nothing to be said
		}
		to.ObserveFloat64(offset, s.ClockOffset.Seconds())
		to.ObserveInt64(mayLead, truth(s.MayLead))
		to.ObserveInt64(full, truth(s.Full))
		if s.FreeBytes >= 0 {
			to.ObserveInt64(free, s.FreeBytes)
		}
		for i := range s.Groups {
			g := &s.Groups[i]
			at := labels("group", g.Name)
			to.ObserveInt64(leader, truth(g.Leads), at)
			to.ObserveInt64(known, truth(g.Leader != ""), at)
			if !g.Hosted {
				continue
			}
			to.ObserveInt64(term, int64(g.Term), at)
			to.ObserveInt64(commit, int64(g.Commit), at)
			to.ObserveInt64(applied, int64(g.Applied), at)
			to.ObserveInt64(behind, max(int64(g.Commit)-int64(g.Applied), 0), at)
			to.ObserveInt64(size, g.LogBytes, at)
			roles := map[string]int64{"voter": 0, "learner": 0, "leaving": 0}
			for _, member := range g.Members {
				roles[member.Role]++
				if member.Known {
					peer := labels("group", g.Name, "peer", member.Node)
					to.ObserveInt64(lag, int64(member.Lag), peer)
					to.ObserveInt64(active, truth(member.Active), peer)
				}
			}
			for role, n := range roles {
				to.ObserveInt64(members, n, labels("group", g.Name, "role", role))
			}
		}
		return nil
	}
}
