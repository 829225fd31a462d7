package replica

import (
	"errors"
	"fmt"
	"math"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
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
	// Durable is the index of an entry that, with all before it, a crash
	// doesn't undo: the machine makes entries durable as it likes.
	Durable() (uint64, error)
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

	quiet    int    // ticks since a leader was heard of
	led      bool   // one was, since the start
	handed   uint64 // the last entry handed out to be applied
	commit   uint64 // as last told
	changing uint64 // the last change of membership in the log, or a later entry
	wary     uint64 // changing, when this node became leader
	secret   uint64 // a change that this leader knows to be agreed, which isn't on its disk yet; 0: none
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

// appending is what a group wants in the log: a MsgStorageAppend. Its responses
// are for after that.
type appending struct {
	group   *group
	message *pb.Message
	secret  uint64 // the commit index is to be synced, since it says that this is agreed; 0: it need not be
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
	g.handed, g.commit = at.Index, s.hard.GetCommit()
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

// group finds a group, nil where there is none of that id.
func (c *core) group(id GroupID) *group {
	for _, g := range c.groups {
		if g.id == id {
			return g
		}
	}
	return nil
}

// tick lets time pass. A node that should not lead (stand is false) still counts
// the time, so that it doesn't take a leader that is long gone for a live one.
// It stands only when no leader has been heard of for so long that nobody else
// seems able to win: it may be the one that has the end of the log.
func (c *core) tick(stand bool) {
	for _, g := range c.groups {
		if g.quiet++; g.soft.RaftState == raft.StateLeader {
			g.quiet = 0
		} else if !stand && g.quiet < lastResortTicks {
			g.raw.TickQuiesced()
			continue
		}
		g.raw.Tick()
		if g.conf.sole && g.soft.RaftState == raft.StateFollower {
			_ = g.raw.Campaign() // nobody else could win: don't wait for a timeout
		} else if g.conf.first && !g.led && g.quiet < electionTicks && g.quiet%earlyTicks == 0 {
			_ = g.raw.Campaign() // a mesh that starts has no leader whose silence has to be waited for
		}
		if g.soft.RaftState == raft.StateLeader {
			g.finish()
		}
	}
}

// step takes in a message. Those that aren't for this node, or come from
// nobody the group knows, do nothing.
func (c *core) step(id GroupID, m *pb.Message) {
	g := c.group(id)
	if g == nil || m.GetTo() != c.id || m.GetType() == pb.MsgReadIndex && g.unsure() {
		return
	}
	switch m.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
		g.quiet = 0
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
		g.soft, changed = *rd.SoftState, true
		g.led = g.led || g.soft.Lead != 0
		if g.soft.RaftState == raft.StateLeader {
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
	var secret uint64
	if commit := rd.HardState.GetCommit(); commit > g.commit {
		if g.commit < g.changing && g.changing <= commit && g.soft.RaftState == raft.StateLeader {
			secret, g.secret = g.changing, g.changing
		}
		g.commit = commit
	}
	var send []*pb.Message
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			g.write(r, m, secret)
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
				send = append(send, m)
			}
		}
	}
	if g.secret != 0 && len(send) > 0 {
		r.write = append(r.write, appending{group: g, message: &pb.Message{Responses: send}})
		return
	}
	for _, m := range send {
		r.send = append(r.send, outgoing{g.id, m})
	}
}

// write hands a message on to the log.
func (g *group) write(r *ready, m *pb.Message, secret uint64) {
	if at := m.GetSnapshot().GetMetadata(); at.GetIndex() > 0 {
		g.adopt(at.GetConfState(), at.GetIndex())
		g.handed, g.changing = at.GetIndex(), min(g.changing, at.GetIndex())
		r.conf = append(r.conf, g)
	}
	g.appended(m.GetEntries())
	r.write = append(r.write, appending{g, m, secret})
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
