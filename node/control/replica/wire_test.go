package replica

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// still is a machine that does nothing.
type still struct{ at Position }

func (s still) Position() Position                  { return s.at }
func (s still) Apply([]Entry) error                 { return nil }
func (s still) Sync() error                         { return nil }
func (s still) Durable() (uint64, error)            { return s.at.Index, nil }
func (s still) Checkpoint(string) (Position, error) { return s.at, nil }
func (s still) Install(string) error                { return nil }

// stepped opens an engine of node 1 of three, in which nothing runs.
func stepped(t *testing.T) *Engine {
	t.Helper()
	db, err := pebble.Open("log", &pebble.Options{FS: vfs.NewMem(), Logger: quietLog{t}})
	if err != nil {
		t.Fatal(err)
	}
	conf := marshal(&pb.ConfState{Voters: []uint64{1, 2, 3}})
	e, err := newEngine(Options{
		ID: 1, Log: db, FS: vfs.NewMem(), SnapshotDir: "snapshots", Send: func(uint64, []byte) {},
		Groups: []GroupOptions{{ID: 7, Name: "test", Machine: still{Position{Index: 1, Term: 1, Conf: conf}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// base is what every message from node 2 to node 1 has.
func base(kind pb.MessageType) *pb.Message {
	return &pb.Message{Type: kind.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5))}
}

func TestDeliver(t *testing.T) {
	e := stepped(t)
	entry := func(index, term uint64, kind pb.EntryType, data string) *pb.Entry {
		return &pb.Entry{Index: new(index), Term: new(term), Type: kind.Enum(), Data: []byte(data)}
	}
	appends := func(entries ...*pb.Entry) *pb.Message {
		m := base(pb.MsgApp)
		m.Index, m.LogTerm, m.Entries = new(uint64(1)), new(uint64(1)), entries
		return m
	}
	change := func(m *pb.Message, f func(*pb.Message)) *pb.Message { f(m); return m }
	for _, c := range []struct {
		name string
		m    *pb.Message
		bad  bool
	}{
		{"heartbeat", base(pb.MsgHeartbeat), false},
		{"append", appends(entry(2, 4, pb.EntryNormal, "a"), entry(3, 5, pb.EntryNormal, "")), false},
		{"question", change(base(pb.MsgReadIndex), func(m *pb.Message) { m.Term, m.Entries = nil, []*pb.Entry{{Data: []byte("x")}} }), false},
		{"for another node", change(base(pb.MsgHeartbeat), func(m *pb.Message) { m.To = new(uint64(3)) }), false},
		{"in another's name", change(base(pb.MsgHeartbeat), func(m *pb.Message) { m.From = new(uint64(3)) }), true},
		{"in raft's own", change(base(pb.MsgStorageAppendResp), func(m *pb.Message) { m.From = new(raft.LocalAppendThread) }), true},
		{"a local one", base(pb.MsgHup), true},
		{"a proposal", change(base(pb.MsgProp), func(m *pb.Message) { m.Term, m.Entries = nil, []*pb.Entry{{Data: []byte("x")}} }), true},
		{"a transfer", base(pb.MsgTransferLeader), true},
		{"with responses", change(base(pb.MsgHeartbeat), func(m *pb.Message) { m.Responses = []*pb.Message{base(pb.MsgHup)} }), true},
		{"without a term", change(base(pb.MsgHeartbeat), func(m *pb.Message) { m.Term = nil }), true},
		{"question without a token", change(base(pb.MsgReadIndex), func(m *pb.Message) { m.Term = nil }), true},
		{"half a context", change(base(pb.MsgHeartbeatResp), func(m *pb.Message) { m.Context = []byte("1234") }), true},
		{"a gap", appends(entry(2, 4, pb.EntryNormal, ""), entry(4, 4, pb.EntryNormal, "")), true},
		{"another first", appends(entry(9, 4, pb.EntryNormal, "")), true},
		{"terms backwards", appends(entry(2, 4, pb.EntryNormal, ""), entry(3, 3, pb.EntryNormal, "")), true},
		{"a later term", appends(entry(2, 6, pb.EntryNormal, "")), true},
		{"an old change", appends(entry(2, 5, pb.EntryConfChange, "")), true},
		{"no change", appends(entry(2, 5, pb.EntryConfChangeV2, "\xff")), true},
		{"no snapshot", base(pb.MsgSnap), true},
	} {
		// A good message before it isn't taken either.
		batch := appendMessage(appendMessage(nil, outgoing{7, base(pb.MsgHeartbeat)}), outgoing{7, c.m})
		err := e.Deliver(2, batch)
		if c.bad != errors.Is(err, errBatch) {
			t.Errorf("%s: %v", c.name, err)
		}
		if taken := len(e.inbox.take()) > 0; taken == c.bad {
			t.Errorf("%s: something was taken: %v", c.name, taken)
		}
		if c.bad {
			continue
		}
		if err := e.Deliver(2, batch[:len(batch)-1]); !errors.Is(err, errBatch) {
			t.Errorf("%s, cut short: %v", c.name, err)
		}
	}
	if err := e.Deliver(2, appendMessage(nil, outgoing{8, base(pb.MsgHeartbeat)})); err != nil || len(e.inbox.take()) > 0 {
		t.Errorf("a message for no group: %v", err)
	}
	for range maxInbox + 10 {
		if err := e.Deliver(2, appendMessage(nil, outgoing{7, base(pb.MsgHeartbeat)})); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(e.inbox.take()); n != maxInbox {
		t.Errorf("the inbox takes %d", n)
	}
}

// What is parsed and written again is the same, and anything can be checked.
func FuzzParseMessages(f *testing.F) {
	heartbeat := appendMessage(nil, outgoing{7, base(pb.MsgHeartbeat)})
	f.Add(heartbeat)
	m := base(pb.MsgApp)
	m.Index, m.LogTerm = new(uint64(1)), new(uint64(1))
	m.Entries = []*pb.Entry{{Index: new(uint64(2)), Term: new(uint64(5)), Data: []byte("data")}}
	f.Add(appendMessage(heartbeat, outgoing{7, m}))
	f.Add(appendMessage(nil, outgoing{1 << 30, base(pb.MsgVote)}))
	f.Add([]byte{7, 0})
	f.Add([]byte{7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, batch []byte) {
		all, err := parseMessages(bytes.Clone(batch))
		if err != nil {
			if !errors.Is(err, errBatch) || all != nil {
				t.Fatalf("%v with %d messages", err, len(all))
			}
			return
		}
		var again []byte
		for _, out := range all {
			again = appendMessage(again, out)
		}
		twice, err := parseMessages(again)
		if err != nil || !slices.EqualFunc(all, twice, func(a, b outgoing) bool {
			return a.group == b.group && proto.Equal(a.message, b.message)
		}) {
			t.Fatalf("%v: %v became %v", err, all, twice)
		}
		for _, out := range all {
			_ = check(2, out.message) // mustn't panic
		}
	})
}
