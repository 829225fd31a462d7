package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// lostAfter is in how many of the steward's looks, one after the other, a leader
// hasn't heard of a member that it takes for lost. In one of them that says
// little: a leader forgets who is there whenever it has counted them.
const lostAfter = 4

// membership is what the steward makes of its groups, from look to look, for
// itself and for those who ask.
type membership struct {
	mu     sync.Mutex // guards what follows
	missed map[uint64]int
	groups [2]changing
}

// changing is how the change of a group's members stands.
type changing struct {
	seen  string // why they stayed as they were at the last look, though they shouldn't
	waits string // the same, once two looks have found it
	said  string // the last line of the log about it
}

// attend notes which members of the system group this leader has heard of, and
// gives those that it takes for lost.
func (m *membership) attend(st replica.Status) (lost map[uint64]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	missed := map[uint64]int{}
	for _, member := range st.Members {
		if !member.Active || member.Match+caughtUp < st.Commit {
			missed[member.ID] = m.missed[member.ID] + 1
		}
	}
	m.missed = missed
	return m.lostLocked()
}

func (m *membership) lostLocked() map[uint64]bool {
	lost := map[uint64]bool{}
	for id, n := range m.missed {
		lost[id] = n >= lostAfter
	}
	return lost
}

// lost gives the members that the last look took for lost.
func (m *membership) lost() map[uint64]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lostLocked()
}

// forget is for a group that this node doesn't lead any more.
func (m *membership) forget(g replica.GroupID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.groups[g] = changing{}
	if g == systemGroup {
		m.missed = nil
	}
}

// wait notes why a group's members stay as they are, "" where nothing is in
// their way, and tells whether that is news. What only one look finds is none:
// the next entry of the log, or heartbeat, is on its way.
func (m *membership) wait(g replica.GroupID, why string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &m.groups[g]
	before := c.waits
	if why == "" || why == c.seen {
		c.waits = why
	}
	c.seen = why
	return c.waits != "" && c.waits != before
}

// waits is what was noted last.
func (m *membership) waits(g replica.GroupID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.groups[g].waits
}

// says tells whether a line about a group differs from the one before: what is
// tried with every look is said once.
func (m *membership) says(g replica.GroupID, line string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.groups[g].said
	m.groups[g].said = line
	return line != before
}

// heard is a group's status with those members active alone that are connected,
// too: of a node that was killed the connection tells first.
func (c *Control) heard(st replica.Status) replica.Status {
	st.Members = slices.Clone(st.Members)
	for i := range st.Members {
		m := &st.Members[i]
		m.Active = m.ID == c.raftID || m.Active && c.connected(c.nameOf(m.ID))
	}
	return st
}

// wantedVoters says which of the nodes should vote in the system group. It is nil
// while that can't be said, with the reason: a node that is to be replaced hasn't
// come, and its vote stays with its old self, so that no majority gets smaller by
// it; or votes are to go, and whether one of those who keep theirs is there will be
// known at the next look.
//
// Votes are spread over zones and then over pools; where that is the same, who
// votes already goes on. Who drains, or isn't there, gets one only where nobody
// else is left. A voter that is lost keeps its vote as long as there are votes
// for all voters, and is the first to lose it where there aren't.
func wantedVoters(t *Topology, st replica.Status, lost map[uint64]bool) (want []uint64, why string) {
	members := map[uint64]replica.Member{}
	for _, m := range st.Members {
		members[m.ID] = m
	}
	var bound []*Node
	var awaited []string
	voters, count := 0, 0
	for i := range t.Nodes {
		switch n := &t.Nodes[i]; {
		case n.Leaving:
		case n.RaftID != 0:
			bound = append(bound, n)
			count++
			if members[n.RaftID].Voter {
				voters++
			}
		case n.Awaited:
			awaited = append(awaited, n.Name)
			count++
		}
	}
	if count = voterCount(count); len(bound) < count {
		return nil, nodeNames(awaited) + " to be replaced, and hasn't come anew"
	}
	fewer := voters > count
	class := func(n *Node) int {
		m := members[n.RaftID]
		switch {
		case m.Voter && fewer && lost[n.RaftID], !m.Voter && !m.Active:
			return 2
		case n.Draining:
			return 1
		}
		return 0
	}
	vote := func(n *Node) int {
		if members[n.RaftID].Voter {
			return 0
		}
		return 1
	}
	zones, pools := map[string]int{}, map[string]int{}
	zone := func(n *Node) string {
		if n.Zone == "" {
			return "node " + n.Name
		}
		return "zone " + n.Zone
	}
	for range count {
		n := slices.MinFunc(bound, func(a, b *Node) int {
			return cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(zones[zone(a)], zones[zone(b)]),
				cmp.Compare(pools[a.Pool], pools[b.Pool]), cmp.Compare(vote(a), vote(b)), cmp.Compare(a.Name, b.Name))
		})
		if m := members[n.RaftID]; fewer && m.Voter && !lost[n.RaftID] && (!m.Active || m.Match < st.Commit) {
			return nil, nodeNames([]string{n.Name}) + " to keep its vote, and hasn't been heard of just now"
		}
		zones[zone(n)]++
		pools[n.Pool]++
		want = append(want, n.RaftID)
		bound = slices.DeleteFunc(bound, func(o *Node) bool { return o == n })
	}
	return want, ""
}

// plan is the next step towards the members that a group should have: want are
// to vote, and the system group has all other nodes as learners. New ones come
// as learners and get a vote when they have caught up; whose vote goes loses it
// in the same change, by joint consensus. A change of who votes needs a majority
// of those before and of those after to come to its end: where the leader doesn't
// hear of one, it isn't begun, and plan says why. Whom it has heard of before may
// be gone by now. But what changes the members of the system group is an entry of
// its log: who has all of that was there after it. The data group follows.
func plan(g replica.GroupID, t *Topology, st replica.Status, want []uint64) (changes []*raftpb.ConfChangeSingle, why string) {
	change := func(kind raftpb.ConfChangeType, id uint64) {
		changes = append(changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(id)})
	}
	members := map[uint64]replica.Member{}
	for _, m := range st.Members {
		members[m.ID] = m
	}
	belongs := map[uint64]bool{}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.RaftID == 0 || n.Leaving || g != systemGroup && !slices.Contains(want, n.RaftID) {
			continue
		}
		belongs[n.RaftID] = true
		if _, in := members[n.RaftID]; !in {
			change(raftpb.ConfChangeAddLearnerNode, n.RaftID)
			return changes, "" // one at a time
		}
	}
	if want == nil {
		return nil, ""
	}
	away := func(id, slack uint64) bool {
		m := members[id]
		return !m.Active || m.Match+slack < st.Commit
	}
	slack := uint64(caughtUp)
	if g == systemGroup {
		slack = 0
	}
	var before, absent []uint64
	voters := false // change
	for _, m := range st.Members {
		if m.Voter {
			before = append(before, m.ID)
			voters = voters || !slices.Contains(want, m.ID)
		}
	}
	for _, id := range want {
		if !members[id].Voter {
			voters = true
			if away(id, caughtUp) {
				absent = append(absent, id)
			}
		}
	}
	if len(absent) > 0 {
		return nil, nodeNames(names(t, absent)) + " to vote, and can't be reached or hasn't caught up"
	}
	for _, all := range [][]uint64{want, before} {
		absent = slices.DeleteFunc(slices.Clone(all), func(id uint64) bool { return !away(id, slack) })
		if voters && len(absent) > (len(all)-1)/2 {
			return nil, fmt.Sprintf("%s among the %d voters that have to agree, and can't be reached or hasn't caught up", nodeNames(names(t, absent)), len(all))
		}
	}
	for _, id := range want {
		if !members[id].Voter {
			change(raftpb.ConfChangeAddNode, id)
		}
	}
	for _, m := range st.Members {
		switch {
		case !belongs[m.ID]:
			change(raftpb.ConfChangeRemoveNode, m.ID)
		case m.Voter && !slices.Contains(want, m.ID):
			change(raftpb.ConfChangeAddLearnerNode, m.ID)
		}
	}
	return changes, ""
}

// names gives the nodes' of raft ids, sorted.
func names(t *Topology, ids []uint64) (all []string) {
	for _, id := range ids {
		name := fmt.Sprintf("%016x", id)
		if i := slices.IndexFunc(t.Nodes, func(n Node) bool { return n.RaftID == id }); i >= 0 {
			name = t.Nodes[i].Name
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// nodeNames is the subject of a sentence: "node a is", "nodes a and b are each".
func nodeNames(all []string) string {
	if len(all) == 1 {
		return "node " + all[0] + " is"
	}
	return "nodes " + strings.Join(all, " and ") + " are each"
}

// mayLeave refuses, at the leader, that a node leaves where the votes could only
// go to nodes that can't be reached: nothing could be agreed any more after that.
func (c *Control) mayLeave(ctx context.Context, name string) error {
	st, err := c.engine.Load().Status(ctx, systemGroup)
	if err != nil {
		return err
	}
	t := *c.Topology()
	t.Nodes = slices.Clone(t.Nodes)
	n := t.Node(name)
	if n == nil || n.Leaving {
		return nil // which the command finds
	}
	n.Leaving = true
	lost := c.members.lost()
	for i := range st.Members {
		m := &st.Members[i]
		at := c.nameOf(m.ID)
		m.Active = m.ID == c.raftID || !lost[m.ID] && at != "" && c.conn(at).State() == grid.StateConnected
		lost[m.ID] = !m.Active
	}
	want, _ := wantedVoters(&t, st, lost)
	absent := slices.DeleteFunc(slices.Clone(want), func(id uint64) bool {
		return slices.ContainsFunc(st.Members, func(m replica.Member) bool { return m.ID == id && m.Active })
	})
	if len(want) == 0 || len(absent) <= (len(want)-1)/2 {
		return nil
	}
	return fault.New(fault.Conflict, nodeSubject(name),
		"can't leave now: the votes would be with %s, of which %s can't be reached, and the mesh would take no writes. Bring those back, or remove those first that are lost for good",
		strings.Join(names(&t, want), ", "), strings.Join(names(&t, absent), " and "))
}
