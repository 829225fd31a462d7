package replica

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// GroupID names a raft group on the wire and in the log.
type GroupID uint32

// Sizes that bound what a group holds in memory beside its log.
const (
	maxMessageBytes     = 1 << 20  // entries of one append message, unless one alone is larger
	maxInflightMessages = 256      // append messages to one follower without an answer
	maxInflightBytes    = 16 << 20 // and their entries
	maxUncommittedBytes = 64 << 20 // entries of a leader that have no majority yet
	maxApplyingBytes    = 8 << 20  // entries handed to a machine and not applied yet
)

// Position is how far a machine has come.
type Position struct {
	Index uint64 // of the last entry applied; a group's first membership counts as entry 1
	Term  uint64 // of that entry
	Conf  []byte // membership after it: a raftpb.ConfState; empty where the group is not known yet
}

// Entry is one committed entry of a group's log.
type Entry struct {
	Index, Term uint64
	Data        []byte // what was proposed, never empty; empty for an entry of raft's own
	Conf        []byte // membership after this entry, where it changes that; else nil
}

// Machine is a group's state machine. Calls don't overlap. An error of any of
// them is final.
type Machine interface {
	// Position is that of the last Apply, Install, or what was on disk.
	Position() Position
	// Apply applies entries, whose indexes follow each other, and keeps the
	// last one's position in the same write. Nothing need be durable.
	Apply(entries []Entry) error
	// Sync makes all that is applied durable.
	Sync() error
	// Checkpoint makes dir, with a consistent copy of the state in it, and
	// returns its position.
	Checkpoint(dir string) (Position, error)
	// Install replaces the state by the copy in dir, durably. The machine
	// owns dir from then on.
	Install(dir string) error
}

// group is one raft group on this node.
type group struct {
	id      GroupID
	name    string
	self    uint64 // this node's raft id
	raw     *raft.RawNode
	storage *storage
	machine Machine

	soft raft.SoftState // as last told
	term uint64
	conf membership

	handed   uint64 // the last entry handed out to be applied
	changing uint64 // the last change of membership in the log, or a later entry
	wary     uint64 // changing, when this node became leader
}

// membership is what raft goes by: that after the last entry handed out, which
// the machine may not have applied yet.
type membership struct {
	since uint64 // index of the entry that made it so, at most
	voter bool   // this node is one
	sole  bool   // and the only one
	alone bool   // and there are no others either
}

// adopt notes a membership.
func (g *group) adopt(cs *pb.ConfState, since uint64) {
	voter := slices.Contains(cs.GetVoters(), g.self)
	sole := voter && len(cs.GetVoters()) == 1 && len(cs.GetVotersOutgoing()) == 0
	g.conf = membership{
		since: since,
		voter: voter,
		sole:  sole,
		alone: sole && len(cs.GetLearners()) == 0 && len(cs.GetLearnersNext()) == 0,
	}
}

// core steps the groups of one node. Its methods must not overlap.
type core struct {
	id     uint64
	groups []*group
}

// outgoing is a message for another node.
type outgoing struct {
	group   GroupID
	message *pb.Message
}

// appending is what a group wants in the log: a MsgStorageAppend.
type appending struct {
	group   *group
	message *pb.Message
}

// applying is what a group wants applied. responses are for the group. Without
// entries it asks for upkeep.
type applying struct {
	group      *group
	entries    []Entry
	responses  []*pb.Message
	checkpoint bool
}

// readable says that a read which was asked for under token may be answered
// once index is applied.
type readable struct {
	group GroupID
	token string
	index uint64
}

// Leadership is what a node knows of a group's leader.
type Leadership struct {
	Term   uint64
	Leader uint64 // raft id; 0: none known
	Leads  bool   // this node does
}

// change is a change of leadership.
type change struct {
	group GroupID
	Leadership
}

// ready is what the groups have to be done, in order for every group.
type ready struct {
	send   []outgoing
	write  []appending
	apply  []applying
	reads  []readable
	change []change
	conf   []*group // whose membership has changed
}

// newGroup starts a group at where its log and machine are.
func newGroup(id uint64, gid GroupID, name string, s *storage, m Machine, c timing, log raft.Logger) (*group, error) {
	at := m.Position()
	if at.Index == 0 && len(at.Conf) > 0 {
		return nil, fmt.Errorf("raft group %s: its first membership must have an index, for others to learn it from a snapshot", name)
	}
	raw, err := raft.NewRawNode(&raft.Config{
		ID:                        id,
		ElectionTick:              c.electionTicks,
		HeartbeatTick:             c.heartbeatTicks,
		Storage:                   s,
		Applied:                   at.Index,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             maxMessageBytes,
		MaxCommittedSizePerReady:  maxApplyingBytes,
		MaxUncommittedEntriesSize: maxUncommittedBytes,
		MaxInflightMsgs:           maxInflightMessages,
		MaxInflightBytes:          maxInflightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		DisableProposalForwarding: true,  // a leader stamps what it proposes
		StepDownOnRemoval:         false, // it hands over: see leave
		Logger:                    log,
	})
	if err != nil {
		return nil, fmt.Errorf("raft group %s: %w", name, err)
	}
	g := &group{id: gid, name: name, self: id, raw: raw, storage: s, machine: m, term: s.hard.GetTerm()}
	g.adopt(&s.conf, at.Index)
	g.handed = at.Index
	last, _ := s.LastIndex() // the memory's: no error comes of it
	if first, _ := s.FirstIndex(); first <= last {
		entries, err := s.Entries(first, last+1, noLimit)
		if err != nil {
			return nil, err
		}
		g.appended(entries)
	}
	return g, nil
}

// appended notes what changes of membership are in the log.
func (g *group) appended(entries []*pb.Entry) {
	if len(entries) > 0 && entries[0].GetIndex() <= g.changing {
		g.changing = entries[0].GetIndex() - 1 // it was overwritten
	}
	for _, e := range entries {
		if e.GetType() != pb.EntryNormal {
			g.changing = e.GetIndex()
		}
	}
}

// group finds a group, nil where there is none of that id.
func (c *core) group(id GroupID) *group {
	for _, g := range c.groups {
		if g.id == id {
			return g
		}
	}
	return nil
}

// tick lets time pass. A node that must not lead (stand is false) still counts
// the time, so that it doesn't take a leader that is long gone for a live one.
func (c *core) tick(stand bool) {
	for _, g := range c.groups {
		if !stand && g.soft.RaftState != raft.StateLeader {
			g.raw.TickQuiesced()
			continue
		}
		g.raw.Tick()
		if g.conf.sole && g.soft.RaftState == raft.StateFollower {
			_ = g.raw.Campaign() // nobody else could win: don't wait for a timeout
		}
		if g.soft.RaftState == raft.StateLeader && !g.conf.voter {
			g.leave()
		}
	}
}

// A leader that may not be a voter for long takes no proposals. Raft goes by a
// change of membership once it knows it to be committed, and those who don't
// may need the vote of a node that is none of them any more: it gives that to
// nobody whose log is shorter than its own. So the log of a node that leaves
// must not go on behind the change, and it leads until somebody has all of it.
// For the same reason it never proposes to leave: it hands over first.

// leaving tells whether this node, which leads, may be about to leave.
func (g *group) leaving() bool { return !g.conf.voter || g.wary > g.handed }

// leave hands leadership over to a voter that has all of the log.
func (g *group) leave() bool {
	to := g.successor(g.raw.Status().Config.Voters[0])
	if to != 0 {
		g.raw.TransferLeader(to)
	}
	return to != 0
}

// successor is who is the first of others to have all of the log, of those that
// the leader has heard of; 0 where there is none.
func (g *group) successor(among map[uint64]struct{}) (best uint64) {
	var match uint64
	s := g.raw.Status()
	for _, id := range slices.Sorted(maps.Keys(among)) {
		_, voter := s.Config.Voters[0][id]
		p := s.Progress[id]
		if voter && id != g.self && p.RecentActive && (best == 0 || p.Match > match) {
			best, match = id, p.Match
		}
	}
	return best
}

// step takes in a message. Those that aren't for this node, or come from
// nobody the group knows, do nothing.
func (c *core) step(id GroupID, m *pb.Message) {
	g := c.group(id)
	if g == nil || m.GetTo() != c.id || m.GetType() == pb.MsgReadIndex && g.unsure() {
		return
	}
	// Refusals are raft's way to say that a message has no meaning here.
	_ = g.raw.Step(m)
}

// readIndex asks the leader, under a token.
func (c *core) readIndex(id GroupID, token string) {
	if g := c.group(id); g != nil && !g.unsure() {
		g.raw.ReadIndex([]byte(token))
	}
}

// unsure tells whether this node leads, but can't say what was acknowledged.
// Whoever asks asks again.
//
// That is so where it is the only voter, and may have acknowledged more in an
// earlier term than it knows to be committed, since the commit index isn't
// synced; and where it is no voter any more. Where there is one voter, raft
// answers at once, without a look at whether that is this node, or whether an
// entry of its own term is committed.
func (g *group) unsure() bool {
	if g.conf.voter && !g.conf.sole {
		return false
	}
	s := g.raw.BasicStatus()
	if s.RaftState != raft.StateLeader {
		return false
	}
	term, err := g.storage.Term(s.HardState.GetCommit())
	return !g.conf.voter || err != nil || term != s.HardState.GetTerm()
}

// propose appends to the log of a group that this node leads.
func (c *core) propose(id GroupID, data []byte) error {
	g, err := c.led(id)
	if err != nil {
		return err
	}
	switch {
	case len(data) == 0:
		return errEmpty // it would be taken for one of raft's own
	case g.leaving():
		return ErrBusy
	}
	return refused(g.raw.Propose(data))
}

// change proposes a change of membership. One that makes no membership is
// refused here: in the log it would end every node that applies it. Where this
// node would be no voter any more, leadership is handed over instead.
func (c *core) change(id GroupID, changes []*pb.ConfChangeSingle) error {
	g, err := c.led(id)
	if err != nil {
		return err
	}
	cc := &pb.ConfChangeV2{Changes: changes}
	next, err := g.possible(cc)
	switch {
	case err != nil:
		return err
	case g.leaving():
		return ErrBusy
	}
	if _, voter := next.Voters[0][c.id]; !voter {
		return g.prepare(cc, next)
	}
	return refused(g.raw.ProposeConfChange(cc))
}

// prepare takes one step towards a change that this node can't propose, since
// it would be no voter any more: it hands leadership over, or, where there is
// nobody else to vote, has the change made without itself.
func (g *group) prepare(cc *pb.ConfChangeV2, next tracker.Config) error {
	if to := g.successor(next.Voters[0]); to != 0 {
		g.raw.TransferLeader(to)
		return ErrBusy
	}
	if !g.conf.sole {
		return ErrBusy // nobody answers at the moment
	}
	others := slices.DeleteFunc(slices.Clone(cc.Changes), func(c *pb.ConfChangeSingle) bool { return c.GetNodeId() == g.self })
	if len(others) == 0 {
		return ErrLast
	}
	first := &pb.ConfChangeV2{Changes: others}
	if _, err := g.possible(first); err != nil {
		return err
	}
	if err := refused(g.raw.ProposeConfChange(first)); err != nil {
		return err
	}
	return ErrBusy
}

// possible gives the membership that a change makes of the present one.
func (g *group) possible(cc *pb.ConfChangeV2) (next tracker.Config, err error) {
	s := g.raw.Status()
	switch {
	case len(cc.Changes) == 0:
		return next, errEmpty
	case len(s.Config.Voters[1]) > 0:
		return next, ErrBusy // the last change is not through yet
	}
	members := tracker.ProgressMap{}
	for id, p := range s.Progress {
		members[id] = &p
	}
	for _, c := range cc.Changes {
		if !validID(c.GetNodeId()) {
			return next, fmt.Errorf("replica: %x can't be a node's raft id", c.GetNodeId())
		}
	}
	changer := confchange.Changer{
		Tracker:   tracker.ProgressTracker{Config: s.Config, Progress: members},
		LastIndex: s.HardState.GetCommit(),
	}
	if leave, joint := cc.EnterJoint(); joint {
		next, _, err = changer.EnterJoint(leave, cc.Changes...)
	} else {
		next, _, err = changer.Simple(cc.Changes...)
	}
	if err != nil {
		return next, fmt.Errorf("replica: no membership comes of this change: %w", err)
	}
	return next, nil
}

// led finds a group that this node leads.
func (c *core) led(id GroupID) (*group, error) {
	switch g := c.group(id); {
	case g == nil:
		return nil, ErrNoGroup
	case g.soft.RaftState != raft.StateLeader:
		return nil, &NotLeaderError{Leader: g.soft.Lead}
	default:
		return g, nil
	}
}

// refused makes raft's refusal of a proposal ours: too much is uncommitted,
// leadership is being handed over or was lost this moment.
func refused(err error) error {
	if errors.Is(err, raft.ErrProposalDropped) {
		return ErrBusy
	}
	return err
}

// pump takes everything that is ready.
func (c *core) pump() ready {
	var r ready
	for _, g := range c.groups {
		for g.raw.HasReady() {
			g.take(&r, g.raw.Ready())
		}
	}
	return r
}

func (g *group) take(r *ready, rd raft.Ready) {
	changed := false
	if rd.SoftState != nil {
		if g.soft, changed = *rd.SoftState, true; g.soft.RaftState == raft.StateLeader {
			g.wary = g.changing
		}
	}
	if !raft.IsEmptyHardState(rd.HardState) && rd.HardState.GetTerm() != g.term {
		g.term, changed = rd.HardState.GetTerm(), true
	}
	if changed {
		r.change = append(r.change, change{g.id, Leadership{Term: g.term, Leader: g.soft.Lead, Leads: g.soft.RaftState == raft.StateLeader}})
	}
	for _, s := range rd.ReadStates {
		r.reads = append(r.reads, readable{g.id, string(s.RequestCtx), s.Index})
	}
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			if at := m.GetSnapshot().GetMetadata(); at.GetIndex() > 0 {
				g.adopt(at.GetConfState(), at.GetIndex())
				g.handed, g.changing = at.GetIndex(), min(g.changing, at.GetIndex())
				r.conf = append(r.conf, g)
			}
			g.appended(m.GetEntries())
			r.write = append(r.write, appending{g, m})
		case raft.LocalApplyThread:
			before := g.conf.since
			r.apply = append(r.apply, g.committed(m))
			if g.conf.since != before {
				r.conf = append(r.conf, g)
			}
		default:
			// What was for the leader, and came here for one, is not passed
			// on in the name of who asked: he asks again.
			if m.GetFrom() == g.self && m.GetType() != pb.MsgTransferLeader {
				r.send = append(r.send, outgoing{g.id, m})
			}
		}
	}
}

// committed makes entries for the machine. Membership changes when an entry is
// handed out, which may be a moment before it is applied: no sooner than it is
// committed, and in the order of the log, is what matters.
func (g *group) committed(m *pb.Message) applying {
	a := applying{group: g, entries: make([]Entry, 0, len(m.GetEntries())), responses: m.GetResponses()}
	for _, e := range m.GetEntries() {
		g.handed = e.GetIndex()
		out := Entry{Index: e.GetIndex(), Term: e.GetTerm()}
		switch e.GetType() {
		case pb.EntryNormal:
			out.Data = e.GetData()
		default:
			cc := new(pb.ConfChangeV2)
			if err := proto.Unmarshal(e.GetData(), cc); err != nil {
				panic(fmt.Sprintf("replica: entry %d of group %s is no membership change: %v", e.GetIndex(), g.name, err))
			}
			cs := g.raw.ApplyConfChange(cc)
			g.adopt(cs, e.GetIndex())
			out.Conf = marshal(cs)
		}
		a.entries = append(a.entries, out)
	}
	return a
}

// marshal encodes a message of raft's. It can't fail: they have no required
// fields and no strings.
func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("replica: " + err.Error())
	}
	return b
}

// timing is the length of raft's times in ticks.
type timing struct{ electionTicks, heartbeatTicks int }

// validID tells whether raft can take id for a node's.
func validID(id uint64) bool { return id != 0 && id < math.MaxUint64-1 }

// Errors of Propose and ReadIndex. Nothing has been done then.
var (
	ErrNoGroup = errors.New("replica: this node has no part in the group")
	ErrBusy    = errors.New("replica: the leader takes nothing at the moment")
	ErrClosed  = errors.New("replica: closed")
	// ErrLast refuses a change by which the only voter would be none.
	ErrLast = errors.New("replica: this node is the only voter of the group")

	errEmpty = errors.New("replica: there is nothing in it")
)

// NotLeaderError says who leads instead.
type NotLeaderError struct {
	Leader uint64 // raft id; 0: nobody, or not known
}

// Error implements error.
func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return "replica: the group has no leader"
	}
	return fmt.Sprintf("replica: node %x leads the group", e.Leader)
}
