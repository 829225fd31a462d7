package object

import (
	"bytes"
	"context"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

// FuzzPeerMessages: what a peer sends is decoded or refused, and never more
// than the limits allow.
func FuzzPeerMessages(f *testing.F) {
	seed := func(m msgp.Marshaler) {
		b, err := m.MarshalMsg(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(&readRequest{Drive: "d", SizeBytes: 1, Length: 1})
	seed(&readResponse{Data: []byte("x")})
	seed(&writeRequest{Drive: "d", Data: []byte("x")})
	seed(&writeResponse{SizeBytes: 1, CRC32C: 1})
	seed(&removeRequest{Items: []removeItem{{Drive: "d"}}})
	seed(&drivesResponse{Drives: []driveReport{{ID: "d", Free: 1}}})
	seed(&copyRequest{Drive: "d", Items: []copyItem{{SizeBytes: 1, From: []string{"e"}}}})
	seed(&copyResponse{Results: []copyResult{{Code: 1, Detail: "x"}}})
	seed(&checkRequest{Drive: "d", Items: []checkItem{{SizeBytes: 1}}, Verify: true})
	seed(&checkResponse{Checked: 1, Bad: []badItem{{Index: 1, Reason: "missing"}}})
	f.Add([]byte{0x81, 0xa1, 'i', 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x81, 0xa1, 'b', 0xc6, 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		read := &readResponse{}
		write := &writeRequest{}
		remove := &removeRequest{}
		for _, m := range []msgp.Unmarshaler{&readRequest{}, read, write, &writeResponse{}, remove,
			&removeResponse{}, &drivesRequest{}, &drivesResponse{}, &copyRequest{}, &copyResponse{}, &checkRequest{}, &checkResponse{}} {
			_, _ = m.UnmarshalMsg(data)
		}
		if len(read.Data) > GridMaxBytes || len(write.Data) > GridMaxBytes || len(remove.Items) > removeMax {
			t.Fatal("over the limits")
		}
	})
}

// TestPeerCalls: what a node asks of another that it shouldn't.
func TestPeerCalls(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	ctx := testContext(t)
	c := m.nodes[0].o.Conn("n1")
	drive := m.nodes[1].drives[0].ID()
	id := dataio.NewID()
	data := randomBytes(1000)
	wantKind := func(what string, err error, kind fault.Kind) {
		t.Helper()
		if err = remoteFault(err, "test"); fault.KindOf(err) != kind {
			t.Errorf("%s: %v, want %v", what, err, kind)
		}
	}
	_, err := writeCall.Call(ctx, c, &writeRequest{Drive: drive, ID: id, Data: data, CRC32C: 1})
	wantKind("damaged on its way", err, fault.Unavailable)
	m.wantFiles(0)
	sums := newSums()
	sums.add(data)
	if _, err = writeCall.Call(ctx, c, &writeRequest{Drive: drive, ID: id, Data: data, CRC32C: sums.crc32c}); err != nil {
		t.Fatal(err)
	}
	_, err = writeCall.Call(ctx, c, &writeRequest{Drive: drive, ID: id, Data: data, CRC32C: sums.crc32c})
	wantKind("written twice", err, fault.Unavailable)
	_, err = writeCall.Call(ctx, c, &writeRequest{Drive: drive, ID: dataio.NewID(), Data: make([]byte, GridMaxBytes+1)})
	wantKind("too large", err, fault.Internal)
	for _, r := range []readRequest{
		{SizeBytes: 1000, Offset: 0, Length: 0}, {SizeBytes: 1000, Offset: 0, Length: GridMaxBytes + 1},
		{SizeBytes: 1000, Offset: -1, Length: 1}, {SizeBytes: 1000, Offset: 1 << 62, Length: 1}, {SizeBytes: 1000, Offset: 1000, Length: 1},
	} {
		r.Drive, r.ID, r.CRC32C = drive, id, sums.crc32c
		_, err = readCall.Call(ctx, c, &r)
		wantKind("bad range", err, fault.Unavailable)
	}
	_, err = readCall.Call(ctx, c, &readRequest{Drive: drive, ID: id, SizeBytes: 999, Length: 1})
	wantKind("another size", err, fault.Corrupted)
	_, err = readCall.Call(ctx, c, &readRequest{Drive: drive, ID: id, SizeBytes: 1000, CRC32C: 1, Length: 1})
	wantKind("another checksum", err, fault.Corrupted)
	resp, err := readCall.Call(ctx, c, &readRequest{Drive: drive, ID: id, SizeBytes: 1000, CRC32C: sums.crc32c, Offset: 990, Length: 10})
	if err != nil || !bytes.Equal(resp.Data, data[990:]) {
		t.Errorf("%v", err)
	}
	must(t, m.nodes[0].removeAt(ctx, "n1", []payloadRef{{drive, id}, {drive, id}, {drive, dataio.NewID()}}))
	m.wantFiles(0)
	if err := m.nodes[0].removeAt(ctx, "n1", []payloadRef{{"unknown", id}}); fault.KindOf(err) != fault.Waiting {
		t.Errorf("an unknown drive: %v", err)
	}
}

// TestWriteForNobody: a payload whose sender has gone is removed by who got it.
func TestWriteForNobody(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	n := m.nodes[1]
	d := n.drives[0]
	data := randomBytes(1000)
	sums := newSums()
	sums.add(data)
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	_, err := n.serveWrite(ctx, &writeRequest{Drive: d.ID(), ID: dataio.NewID(), Data: data, CRC32C: sums.crc32c})
	if fault.KindOf(err) != fault.Canceled {
		t.Errorf("%v", err)
	}
	id := dataio.NewID()
	_, err = n.serveWrite(testContext(t), &writeRequest{Drive: d.ID(), ID: id, Data: data, CRC32C: sums.crc32c})
	must(t, err)
	n.removeUnheard(ctx, d, payloadRef{d.ID(), id})
	m.wantFiles(0)
}

// TestLeavesNothing: only what is certain is forgotten.
func TestLeavesNothing(t *testing.T) {
	there := target{drive: "d"}
	for _, err := range []error{&grid.RemoteError{Code: 1, Message: "no"}, &grid.Error{Err: grid.ErrOverloaded}} {
		if !leavesNothing(there, remoteFault(err, "d")) {
			t.Errorf("%v may leave a file", err)
		}
	}
	if leavesNothing(there, remoteFault(&grid.Error{Err: grid.ErrDisconnected}, "d")) {
		t.Error("a lost connection leaves nothing for certain")
	}
	if !leavesNothing(target{local: new(dataio.Drive)}, context.Canceled) {
		t.Error("a drive here may leave a file")
	}
}
