package replica

import (
	"errors"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// noting is a machine that notes what it is to apply.
type noting struct {
	still
	applied []uint64
	synced  int
}

func (n *noting) Position() Position { return n.at }

func (n *noting) Apply(entries []Entry) error {
	for _, e := range entries {
		n.applied = append(n.applied, e.Index)
		n.at.Index, n.at.Term = e.Index, e.Term
		if e.Conf != nil {
			n.at.Conf = e.Conf
		}
	}
	return nil
}

func (n *noting) Sync() error { n.synced++; return nil }

// bench is a node with which nothing happens but what a test says.
type bench struct {
	t       *testing.T
	s       *Stepper
	machine *noting
	sent    []*pb.Message
}

// newBench starts node 1 with a membership from entry 1 on, and entries behind.
func newBench(t *testing.T, conf *pb.ConfState, hard *pb.HardState, entries ...*pb.Entry) *bench {
	t.Helper()
	book := newBook(t)
	b := &bench{t: t, machine: &noting{still: still{Position{Index: 1, Term: 1, Conf: marshal(conf)}}}}
	g := book.open(1, 1)
	m := &pb.Message{Entries: entries, Term: hard.Term, Vote: hard.Vote, Commit: hard.Commit}
	if _, err := book.log.write([]appending{{group: g, message: m}}, nil); err != nil {
		t.Fatal(err)
	}
	var err error
	b.s, err = OpenStepped(Options{
		ID: 1, Log: book.db, FS: book.disk, SnapshotDir: "snapshots",
		Groups: []GroupOptions{{ID: 7, Name: "test", Machine: b.machine}},
		Send: func(_ uint64, batch []byte) {
			all, err := parseMessages(batch)
			if err != nil {
				t.Error(err)
			}
			for _, out := range all {
				b.sent = append(b.sent, out.message)
			}
		},
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.s.Close)
	return b
}

// work does all there is to do, but for writing where that is left out.
func (b *bench) work(write bool) {
	b.t.Helper()
	for busy := true; busy; {
		busy = b.s.Step()
		did, err := b.s.Apply(7)
		busy = busy || did
		if err == nil && write {
			did, err = b.s.Write()
			busy = busy || did
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// from brings a message from node 2.
func (b *bench) from(m *pb.Message) {
	b.t.Helper()
	if err := b.s.Deliver(2, appendMessage(nil, outgoing{7, m})); err != nil {
		b.t.Fatal(err)
	}
}

// took gives what was sent of a type since it was last asked, and forgets all.
func (b *bench) took(kind pb.MessageType) *pb.Message {
	defer func() { b.sent = nil }()
	if i := slices.IndexFunc(b.sent, func(m *pb.Message) bool { return m.GetType() == kind }); i >= 0 {
		return b.sent[i]
	}
	return nil
}

// elect makes it leader, by the vote of node 2.
func (b *bench) elect() {
	b.t.Helper()
	for range 100 {
		b.s.Tick()
		b.work(true)
		sent := b.sent
		b.sent = nil
		for _, m := range sent {
			if m.GetType() == pb.MsgPreVote || m.GetType() == pb.MsgVote {
				yes := base(pb.MsgVoteResp)
				if m.GetType() == pb.MsgPreVote {
					yes = base(pb.MsgPreVoteResp)
				}
				yes.Term = m.Term
				b.from(yes)
			}
		}
		b.work(true)
		if b.s.Leader(7).Leads {
			return
		}
	}
	b.t.Fatal("it isn't elected")
}

// has lets node 2 say that it has all up to an entry.
func (b *bench) has(index uint64) {
	b.t.Helper()
	m := base(pb.MsgAppResp)
	m.Term, m.Index = new(b.s.Leader(7).Term), new(index)
	b.from(m)
}

// change proposes a change of membership.
func (b *bench) change(text string) {
	b.t.Helper()
	changes, err := pb.ConfChangesFromString(text)
	if err == nil {
		err = b.s.Change(b.t.Context(), 7, changes)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func question() *pb.Message {
	m := base(pb.MsgReadIndex)
	m.Term, m.Entries = nil, []*pb.Entry{{Data: []byte("token")}}
	return m
}

// An only voter that has lost its commit index in a crash answers no read with
// an old one.
func TestOnlyVoterKnowsBeforeItAnswers(t *testing.T) {
	b := newBench(t, &pb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}, hardState(1, 1, 2), entriesOf(2, 1, 1, 1)...)
	b.work(true)
	if !b.s.Leader(7).Leads {
		t.Fatal("it doesn't lead at once")
	}
	b.s.Close()

	b = newBench(t, &pb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}, hardState(1, 1, 2), entriesOf(2, 1, 1, 1)...)
	for range 10 { // step by step, with the question at every moment
		b.from(question())
		answered := b.s.Ask(7)
		b.work(false)
		if m := b.took(pb.MsgReadIndexResp); m != nil && m.GetIndex() < 4 {
			t.Errorf("a learner is told of entry %d", m.GetIndex())
		}
		if index, ok := answered(); ok && index < 4 {
			t.Errorf("it reads at entry %d", index)
		}
		if _, err := b.s.Write(); err != nil {
			t.Fatal(err)
		}
	}
	b.from(question())
	b.work(true)
	if m := b.took(pb.MsgReadIndexResp); m == nil || m.GetIndex() < 5 {
		t.Errorf("at last it answers %v", m)
	}
	if b.s.Alone(7) {
		t.Error("it takes itself for alone")
	}
}

// A leader whose predecessor has proposed that it goes takes nothing into its
// log behind that, answers no reads once it is gone, and hands over.
func TestRemovedLeader(t *testing.T) {
	goes := &pb.Entry{Index: new(uint64(2)), Term: new(uint64(1)), Type: pb.EntryConfChangeV2.Enum(), Data: marshal(&pb.ConfChangeV2{
		Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(1))}},
	})}
	b := newBench(t, &pb.ConfState{Voters: []uint64{1, 2}}, hardState(1, 2, 1), goes)
	b.elect()
	if err := b.s.Propose(t.Context(), 7, []byte("data")); !errors.Is(err, ErrBusy) {
		t.Errorf("before the change is agreed, it takes a proposal with %v", err)
	}
	b.has(3)
	b.work(true)
	if got := b.machine.Position(); got.Index != 3 || b.machine.synced == 0 {
		t.Fatalf("it has applied %+v, and synced %d times", got, b.machine.synced)
	}
	if !b.s.Leader(7).Leads {
		t.Fatal("it leads no more, and nobody else knows that the change is agreed")
	}
	if s, err := b.s.Status(t.Context(), 7); err != nil || !s.Joint {
		t.Errorf("it says that the change is through: %+v, %v", s, err)
	}
	if err := b.s.Propose(t.Context(), 7, []byte("data")); !errors.Is(err, ErrBusy) {
		t.Errorf("it takes a proposal with %v", err)
	}
	b.sent = nil
	b.from(question())
	answered := b.s.Ask(7)
	b.work(true)
	if m := b.took(pb.MsgReadIndexResp); m != nil {
		t.Errorf("it answers a read: %v", m)
	}
	if index, ok := answered(); ok {
		t.Errorf("it reads at entry %d", index)
	}
	b.s.Tick()
	b.work(true)
	if m := b.took(pb.MsgTimeoutNow); m == nil || m.GetTo() != 2 {
		t.Errorf("it hands over with %v", m)
	}
}

// A leader doesn't propose that it goes.
func TestLeaderDoesNotRemoveItself(t *testing.T) {
	b := newBench(t, &pb.ConfState{Voters: []uint64{1, 2}}, hardState(1, 2, 1))
	b.elect()
	b.has(2)
	b.work(true)
	b.sent = nil
	for _, text := range []string{"r1", "l1", "v3 r1"} {
		changes, err := pb.ConfChangesFromString(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.s.Change(t.Context(), 7, changes); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: %v", text, err)
		}
	}
	b.work(true)
	if p := b.s.Progress(7); p.Last != 2 {
		t.Errorf("its log ends with entry %d", p.Last)
	}
	if m := b.took(pb.MsgTimeoutNow); m == nil || m.GetTo() != 2 {
		t.Errorf("it hands over with %v", m)
	}
}

// Nobody is told that a change is agreed before that is on the leader's disk.
func TestChangeIsDurableBeforeItIsTold(t *testing.T) {
	b := newBench(t, &pb.ConfState{Voters: []uint64{1, 2}}, hardState(1, 2, 1))
	b.elect()
	b.has(2)
	b.work(true)
	b.change("l2")
	b.work(true)
	b.sent = nil
	b.has(3)
	for range 5 {
		b.s.Tick()
		b.work(false)
	}
	for _, m := range b.sent {
		if m.GetCommit() >= 3 {
			t.Errorf("a %v says that entry %d is agreed", m.GetType(), m.GetCommit())
		}
	}
	b.sent = nil
	b.work(true)
	if !slices.ContainsFunc(b.sent, func(m *pb.Message) bool { return m.GetCommit() == 3 }) {
		t.Errorf("after the write, it sends %v", b.sent)
	}
	b.s.Tick()
	b.s.Tick()
	b.sent = nil
	b.has(3)
	b.s.Tick()
	b.s.Tick()
	b.work(false)
	if len(b.sent) == 0 {
		t.Error("messages wait for writes for ever")
	}
}

// A joint membership is left, too, if leadership was being handed over when its
// last entry was applied, and nobody proposes anything.
func TestJointIsLeft(t *testing.T) {
	b := newBench(t, &pb.ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{1}, AutoLeave: new(true)}, hardState(1, 2, 1))
	b.elect()
	if err := b.s.Transfer(t.Context(), 7, 2); err != nil {
		t.Fatal(err)
	}
	b.has(2)
	b.work(true)
	if p := b.s.Progress(7); p.Applied != 2 || p.Last != 2 {
		t.Fatalf("it is at %+v", p)
	}
	for range 2 * electionTicks {
		b.s.Tick()
		beat := base(pb.MsgHeartbeatResp)
		beat.Term = new(b.s.Leader(7).Term)
		b.from(beat)
		b.has(b.s.Progress(7).Last)
		b.work(true)
	}
	s, err := b.s.Status(t.Context(), 7)
	if err != nil || s.Joint || len(s.Members) != 2 || !s.Leads {
		t.Errorf("it says %+v, %v", s, err)
	}
	if s.Last > 4 {
		t.Errorf("that took the entries up to %d", s.Last)
	}
}

// A leader without others is alone once it has applied that.
func TestAloneIsApplied(t *testing.T) {
	b := newBench(t, &pb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}, hardState(1, 1, 1))
	b.work(true)
	if b.s.Alone(7) {
		t.Fatal("a learner reads, too")
	}
	b.change("r2")
	for b.s.Progress(7).Commit < 3 {
		_, err := b.s.Write()
		if err != nil {
			t.Fatal(err)
		}
		b.s.Step()
	}
	if s, err := b.s.Status(t.Context(), 7); err != nil || len(s.Members) != 1 || !s.Joint {
		t.Errorf("a change that isn't applied is through: %+v, %v", s, err)
	}
	if b.s.Alone(7) {
		t.Error("it takes itself for alone, and who left may have seen more")
	}
	b.work(true)
	if !b.s.Alone(7) {
		t.Error("it isn't alone at last")
	}
}

// What a snapshot has brought is not applied again.
func TestAdvance(t *testing.T) {
	n := &noting{still: still{Position{Index: 10, Term: 2}}}
	r := &running{group: &group{machine: n}}
	for _, c := range []struct{ first, last uint64 }{{5, 8}, {9, 12}, {12, 12}, {13, 13}} {
		var entries []Entry
		for i := c.first; i <= c.last; i++ {
			entries = append(entries, Entry{Index: i, Term: 2, Data: []byte("data")})
		}
		if err := r.advance(entries); err != nil {
			t.Fatal(err)
		}
	}
	if want := []uint64{11, 12, 13}; !slices.Equal(n.applied, want) || r.applied.Load() != 13 {
		t.Errorf("it applied %v, up to %d", n.applied, r.applied.Load())
	}
}
