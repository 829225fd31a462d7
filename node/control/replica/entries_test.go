package replica

import (
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// What is encoded by hand is what protobuf encodes, both ways.
func TestEntriesAreProtobuf(t *testing.T) {
	m := base(pb.MsgApp)
	m.Index, m.LogTerm, m.Commit = new(uint64(1)), new(uint64(1)), new(uint64(300))
	for _, e := range []*pb.Entry{
		{},
		{Index: new(uint64(2)), Term: new(uint64(5)), Data: []byte("data")},
		{Index: new(uint64(1) << 40), Term: new(^uint64(0)), Type: pb.EntryConfChangeV2.Enum(), Data: make([]byte, 300)},
		{Index: new(uint64(0)), Data: []byte{}},
	} {
		m.Entries = append(m.Entries, e)
		ours := appendBody(nil, m)
		if n := sizeMessage(m); n != len(ours) {
			t.Fatalf("%d bytes, and %d were asked for", len(ours), n)
		}
		read := new(pb.Message)
		if err := proto.Unmarshal(ours, read); err != nil || !proto.Equal(read, m) {
			t.Fatalf("%v: protobuf reads %v of %v", err, read, m)
		}
		theirs, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if read, err := parseMessage(theirs); err != nil || !proto.Equal(read, m) {
			t.Fatalf("%v: reads %v of protobuf's %v", err, read, m)
		}
		if len(appendEntry(nil, e)) != sizeEntry(e) {
			t.Errorf("the size of %v is %d", e, sizeEntry(e))
		}
	}

	// A field that a newer program has is passed over.
	newer := appendEntry(nil, m.Entries[1])
	newer = protowire.AppendBytes(protowire.AppendTag(newer, 9, protowire.BytesType), []byte("more"))
	body := protowire.AppendBytes(protowire.AppendTag(nil, messageEntries, protowire.BytesType), newer)
	if read, err := parseMessage(body); err != nil || len(read.Entries) != 1 || !proto.Equal(read.Entries[0], m.Entries[1]) {
		t.Errorf("%v: reads %v of a newer program's %v", err, read, m.Entries[1])
	}
	for _, bad := range [][]byte{{0xff}, {entryData<<3 | 2, 5, 'x'}, {entryIndex << 3, 0xff}, {9<<3 | 2, 5}} {
		body := protowire.AppendBytes(protowire.AppendTag(nil, messageEntries, protowire.BytesType), bad)
		if read, err := parseMessage(body); err == nil {
			t.Errorf("reads %v of an entry that is %x", read, bad)
		}
	}
}

// An entry that has come keeps nothing but its own data from being overwritten by
// who appends to it.
func TestEntriesShareNoRoom(t *testing.T) {
	m := base(pb.MsgApp)
	m.Entries = []*pb.Entry{{Data: []byte("one")}, {Data: []byte("two")}}
	read, err := parseMessage(appendBody(nil, m))
	if err != nil {
		t.Fatal(err)
	}
	_ = append(read.Entries[0].Data, "xxxxxxxx"...)
	if got := string(read.Entries[1].Data); got != "two" {
		t.Errorf("the second entry has become %q", got)
	}
}
