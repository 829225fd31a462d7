package observability

import (
	"cmp"
	"slices"
	"time"
)

// maxPeers bounds the peers that are reported: the first by name.
const maxPeers = 256

// MeshCounters are what a node has exchanged with the others, since its start.
type MeshCounters struct {
	// BulkReceived and BulkSent are the bulk port's bytes of payload.
	BulkReceived, BulkSent uint64
	Peers                  []PeerCounters
}

// PeerCounters are those of the connection with one other node.
type PeerCounters struct {
	Node                           string
	Up                             bool
	RTT                            time.Duration // of the last ping
	ReceivedBytes, SentBytes       uint64
	ReceivedMessages, SentMessages uint64
	QueuedBytes                    int64
	CallsOut, CallsIn              int
	Sessions                       uint64
}

// meshRates makes rates of MeshCounters, for one collector.
type meshRates struct {
	at    time.Time
	last  MeshCounters
	peers map[string]PeerCounters // of last
}

// bytesRates is traffic, a second.
type bytesRates struct{ received, sent float64 }

// sample returns the rates since the last counters. Those that went back give
// none, like a peer that is new; grid and bulk are nil where nothing is known
// yet.
func (m *meshRates) sample(now time.Time, c MeshCounters) (peers []Peer, grid, bulk *bytesRates) {
	first, seconds := m.at.IsZero(), now.Sub(m.at).Seconds()
	before, beforePeers := m.last, m.peers
	m.at, m.last, m.peers = now, c, make(map[string]PeerCounters, len(c.Peers))
	if !first && seconds > 0 {
		grid = new(bytesRates)
		rate := rater{seconds: seconds}
		bulk = &bytesRates{rate.of(c.BulkReceived, before.BulkReceived), rate.of(c.BulkSent, before.BulkSent)}
		if !rate.valid() {
			bulk = nil
		}
	}
	for i := range c.Peers {
		p := &c.Peers[i]
		m.peers[p.Node] = *p
		out := Peer{
			Node: p.Node, Up: p.Up, RTTSeconds: p.RTT.Seconds(), QueuedBytes: p.QueuedBytes,
			CallsOut: int64(p.CallsOut), CallsIn: int64(p.CallsIn), Sessions: int64(p.Sessions),
		}
		if old, known := beforePeers[p.Node]; known && grid != nil {
			out.addRates(p, &old, seconds)
			grid.received += out.ReceivedBytesPerSecond
			grid.sent += out.SentBytesPerSecond
		}
		peers = append(peers, out)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	return peers[:min(len(peers), maxPeers)], grid, bulk
}

func (p *Peer) addRates(now, before *PeerCounters, seconds float64) {
	rate := rater{seconds: seconds}
	receivedBytes, sentBytes := rate.of(now.ReceivedBytes, before.ReceivedBytes), rate.of(now.SentBytes, before.SentBytes)
	receivedMessages, sentMessages := rate.of(now.ReceivedMessages, before.ReceivedMessages), rate.of(now.SentMessages, before.SentMessages)
	if !rate.valid() {
		return
	}
	p.ReceivedBytesPerSecond, p.SentBytesPerSecond = receivedBytes, sentBytes
	p.ReceivedMessagesPerSecond, p.SentMessagesPerSecond = receivedMessages, sentMessages
}
