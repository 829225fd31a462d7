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
	Index uint64 // of the last entry applied
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
	raw     *raft.RawNode
	storage *storage
	machine Machine

	soft raft.SoftState // as last told
	term uint64
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

// applying is what a group wants applied. responses are for the group.
type applying struct {
	group     *group
	entries   []Entry
	responses []*pb.Message
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
}

// newGroup starts a group at where its log and machine are.
func newGroup(id uint64, gid GroupID, name string, s *storage, m Machine, c timing, log raft.Logger) (*group, error) {
	raw, err := raft.NewRawNode(&raft.Config{
		ID:                        id,
		ElectionTick:              c.electionTicks,
		HeartbeatTick:             c.heartbeatTicks,
		Storage:                   s,
		Applied:                   m.Position().Index,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             maxMessageBytes,
		MaxCommittedSizePerReady:  maxApplyingBytes,
		MaxUncommittedEntriesSize: maxUncommittedBytes,
		MaxInflightMsgs:           maxInflightMessages,
		MaxInflightBytes:          maxInflightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		DisableProposalForwarding: true, // a leader stamps what it proposes
		StepDownOnRemoval:         true,
		Logger:                    log,
	})
	if err != nil {
		return nil, fmt.Errorf("raft group %s: %w", name, err)
	}
	return &group{id: gid, name: name, raw: raw, storage: s, machine: m}, nil
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
		if stand || g.soft.RaftState == raft.StateLeader {
			g.raw.Tick()
		} else {
			g.raw.TickQuiesced()
		}
	}
}

// step takes in a message. Those that aren't for this node, or come from
// nobody the group knows, do nothing.
func (c *core) step(id GroupID, m *pb.Message) {
	g := c.group(id)
	if g == nil || m.GetTo() != c.id {
		return
	}
	// Refusals are raft's way to say that a message has no meaning here.
	_ = g.raw.Step(m)
}

// propose appends to the log of a group that this node leads.
func (c *core) propose(id GroupID, data []byte) error {
	g := c.group(id)
	switch {
	case g == nil:
		return ErrNoGroup
	case g.soft.RaftState != raft.StateLeader:
		return &NotLeaderError{Leader: g.soft.Lead}
	}
	switch err := g.raw.Propose(data); {
	case errors.Is(err, raft.ErrProposalDropped):
		return ErrBusy // too much is uncommitted, or leadership is being handed over
	default:
		return err
	}
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
	if rd.SoftState != nil {
		g.soft = *rd.SoftState
	}
	if term := g.raw.BasicStatus().HardState.GetTerm(); rd.SoftState != nil || term != g.term {
		g.term = term
		r.change = append(r.change, change{g.id, Leadership{Term: term, Leader: g.soft.Lead, Leads: g.soft.RaftState == raft.StateLeader}})
	}
	for _, s := range rd.ReadStates {
		r.reads = append(r.reads, readable{g.id, string(s.RequestCtx), s.Index})
	}
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			r.write = append(r.write, appending{g, m})
		case raft.LocalApplyThread:
			r.apply = append(r.apply, g.committed(m))
		default:
			r.send = append(r.send, outgoing{g.id, m})
		}
	}
}

// committed makes entries for the machine. Membership changes when an entry is
// handed out, which may be a moment before it is applied: no sooner than it is
// committed, and in the order of the log, is what matters.
func (g *group) committed(m *pb.Message) applying {
	a := applying{group: g, entries: make([]Entry, 0, len(m.GetEntries())), responses: m.GetResponses()}
	for _, e := range m.GetEntries() {
		out := Entry{Index: e.GetIndex(), Term: e.GetTerm()}
		switch e.GetType() {
		case pb.EntryNormal:
			out.Data = e.GetData()
		default:
			cc := new(pb.ConfChangeV2)
			if err := proto.Unmarshal(e.GetData(), cc); err != nil {
				panic(fmt.Sprintf("replica: entry %d of group %s is no membership change: %v", e.GetIndex(), g.name, err))
			}
			out.Conf = marshal(g.raw.ApplyConfChange(cc))
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
