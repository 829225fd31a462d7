package replica_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/control/replica/replicatest"
)

const group = replica.GroupID(1)

// cluster is nodes with one group in one process. It runs on the virtual time
// of testing/synctest.
type cluster struct {
	t        *testing.T
	options  func(id uint64, o *replica.Options) // changes what a node is opened with
	requests uint64

	mu      sync.Mutex // guards what follows
	rng     *rand.Rand
	nodes   map[uint64]*node
	cut     map[[2]uint64]bool // links that lose everything, from and to
	sent    map[uint64]int     // batches, by who has sent them
	loss    float64            // of batches on the others
	delay   time.Duration      // at most, of every batch
	batches sync.WaitGroup     // on their way
}

type node struct {
	id     uint64
	disk   vfs.FS
	log    *pebble.DB
	ledger *replicatest.Ledger
	*replica.Engine
	mu       sync.Mutex // guards failure
	failures []error
}

// virtual runs a test on virtual time.
func virtual(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) }

// pause lets virtual time pass.
func pause(d time.Duration) { time.Sleep(d) }

// newCluster founds a group of the first n nodes.
func newCluster(t *testing.T, n int, options func(uint64, *replica.Options)) *cluster {
	c := &cluster{t: t, options: options, rng: rand.New(rand.NewPCG(1, 2)), nodes: map[uint64]*node{}, cut: map[[2]uint64]bool{}, sent: map[uint64]int{}}
	var founders []uint64
	for id := range uint64(n) {
		founders = append(founders, id+1)
	}
	t.Cleanup(func() {
		for _, n := range c.all() {
			c.stop(n)
		}
		c.batches.Wait()
	})
	for _, id := range founders {
		c.start(id, vfs.NewMem(), first(founders...))
	}
	return c
}

// first is where a group begins.
func first(voters ...uint64) replica.Position {
	conf, err := proto.Marshal(&raftpb.ConfState{Voters: voters})
	if err != nil {
		panic(err)
	}
	return replica.Position{Index: 1, Term: 1, Conf: conf}
}

// start starts a node on a disk.
func (c *cluster) start(id uint64, disk vfs.FS, at replica.Position) *node {
	c.t.Helper()
	n := &node{id: id, disk: disk}
	var err error
	var failure atomic.Pointer[error]
	logger := quiet{func(err error) { failure.CompareAndSwap(nil, &err) }}
	if n.log, err = pebble.Open("log", &pebble.Options{FS: disk, Logger: logger}); err != nil {
		c.t.Fatal(err)
	}
	if n.ledger, err = replicatest.OpenLedger(disk, "state", at); err != nil {
		c.t.Fatal(err)
	}
	o := replica.Options{
		ID: id, Log: n.log, FS: disk, SnapshotDir: "snapshots",
		Groups: []replica.GroupOptions{{ID: group, Name: "test", Machine: n.ledger}},
		LogFailed: func() error {
			if err := failure.Load(); err != nil {
				return *err
			}
			return nil
		},
		Send: func(to uint64, batch []byte) { c.send(id, to, batch) },
		Fetch: func(ctx context.Context, from uint64, g replica.GroupID, at replica.Position, dir string) error {
			return c.fetch(n, from, g, at, dir)
		},
		Failed: func(err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.failures = append(n.failures, err)
		},
	}
	if c.options != nil {
		c.options(id, &o)
	}
	if n.Engine, err = replica.OpenStalling(o, time.Second); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = n
	return n
}

// stop stops a node, as a process that ends in good order.
func (c *cluster) stop(n *node) {
	c.t.Helper()
	c.mu.Lock()
	if c.nodes[n.id] == n {
		delete(c.nodes, n.id)
	}
	c.mu.Unlock()
	n.Close()
	if n.Stranded() {
		return
	}
	if err := errors.Join(n.ledger.Close(), n.log.Close()); err != nil && n.Err() == nil {
		c.t.Error(err)
	}
}

// restart starts a node again on its disk.
func (c *cluster) restart(n *node) *node {
	c.stop(n)
	return c.start(n.id, n.disk, replica.Position{})
}

func (c *cluster) all() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*node
	for _, n := range c.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *node) int { return int(a.id) - int(b.id) })
	return all
}

func (c *cluster) node(id uint64) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

func (c *cluster) send(from, to uint64, batch []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[from]++
	if c.cut[[2]uint64{from, to}] || c.rng.Float64() < c.loss {
		return
	}
	delay := time.Duration(0)
	if c.delay > 0 {
		delay = time.Duration(c.rng.Int64N(int64(c.delay)))
	}
	c.batches.Add(1)
	time.AfterFunc(delay, func() {
		defer c.batches.Done()
		n := c.node(to)
		if n == nil {
			return
		}
		if err := n.Deliver(from, batch); err != nil {
			c.t.Error(err)
		}
	})
}

func (c *cluster) fetch(n *node, from uint64, g replica.GroupID, at replica.Position, dir string) error {
	peer := c.node(from)
	if peer == nil {
		return errors.New("it isn't there")
	}
	source, release, ok := peer.Snapshot(g, n.id, at.Index)
	if !ok {
		return errors.New("it has no such snapshot")
	}
	defer release()
	return replicatest.CopyDir(peer.disk, source, n.disk, dir)
}

// isolate cuts a node off, or, undone, the links of all.
func (c *cluster) isolate(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range uint64(8) {
		c.cut[[2]uint64{id, other}], c.cut[[2]uint64{other, id}] = true, true
	}
}

func (c *cluster) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.cut)
}

// eventually waits until a condition holds.
func (c *cluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	for range 15000 { // five minutes
		if holds() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatalf("it is not so within five minutes: %s", what)
}

// leader waits for one that all of the given nodes, or all nodes, follow.
func (c *cluster) leader(among ...*node) (leader *node) {
	c.t.Helper()
	if among == nil {
		among = c.all()
	}
	c.eventually("all have the same leader", func() bool {
		l := among[0].Leader(group)
		leader = c.node(l.Leader)
		return leader != nil && leader.Leader(group).Leads &&
			!slices.ContainsFunc(among, func(n *node) bool { return n.Leader(group).Leader != l.Leader || n.Leader(group).Term != l.Term })
	})
	return leader
}

// put proposes a request wherever the leader is until a majority has it, and
// that node has applied it.
func (c *cluster) put(key string) (request uint64) {
	c.t.Helper()
	c.requests++
	request = c.requests
	for range 200 {
		for _, n := range c.all() {
			if !n.Leader(group).Leads || n.Propose(c.t.Context(), group, replicatest.Proposal(request, key)) != nil {
				continue
			}
			for range 50 {
				if times(n, request) == 1 {
					return request
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatalf("request %d finds no leader", request)
	return 0
}

// read reads a key, linearizably, at a node.
func (c *cluster) read(n *node, key string) uint64 {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	index, err := n.ReadIndex(ctx, group)
	if err != nil {
		c.t.Fatalf("node %d: %v", n.id, err)
	}
	c.eventually(fmt.Sprintf("node %d has entry %d", n.id, index), func() bool { return n.ledger.Position().Index >= index })
	return n.ledger.Value(key)
}

// agree waits until all nodes have the same state.
func (c *cluster) agree() {
	c.t.Helper()
	c.eventually("all states are the same", func() bool {
		all := c.all()
		for _, n := range all {
			if n.ledger.Position().Index != all[0].ledger.Position().Index || sum(n) != sum(all[0]) {
				return false
			}
		}
		return true
	})
}

// status is a node's, when its engine answers.
func (c *cluster) status(n *node) replica.Status {
	c.t.Helper()
	s, err := n.Status(c.t.Context(), group)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// quiet is a logger for stores whose disks fail.
type quiet struct{ fatal func(error) }

// Infof implements pebble.Logger.
func (quiet) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (quiet) Errorf(string, ...any) {}

// Fatalf implements pebble.Logger.
func (q quiet) Fatalf(format string, args ...any) { q.fatal(fmt.Errorf(format, args...)) }

func sum(n *node) uint64 {
	sum, _ := n.ledger.Sum() // a ledger's has no errors
	return sum
}

func times(n *node, request uint64) int {
	times, _ := n.ledger.Times(request) // a ledger's has no errors
	return times
}
