package object

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

// segment is an object's only one.
func (m *testMesh) segment(t *testing.T, key string) *control.Segment {
	t.Helper()
	a, err := m.nodes[0].ctl.Read(testContext(t), &control.Query{Record: &control.RecordQuery{Bucket: "near", Key: key}})
	if err != nil || len(a.Record.Segments) != 1 {
		t.Fatalf("%s: it isn't of one segment: %v", key, err)
	}
	return &a.Record.Segments[0]
}

// now has a reader send what leaves at once, to memory.
func (n *testNode) now(t *testing.T, key string, before func() error) ([]byte, error) {
	t.Helper()
	r, err := n.Open(testContext(t), "near", key, Conditions{}, 0)
	must(t, err)
	var buf bytes.Buffer
	sent, err := r.SendNow(&buf, dataio.FirstWindowBytes, before)
	if sent != int64(buf.Len()) {
		t.Errorf("SendNow says %d bytes, and wrote %d", sent, buf.Len())
	}
	return buf.Bytes(), err
}

// TestSendNow: what was sent a moment ago is sent by SendNow, and only that: else
// it sends nothing, and asks nobody.
func TestSendNow(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{2, 1}, options: func(_ int, o *Options) { o.Replicas = 2 }})
	m.bucket("near")
	n, other := m.nodes[0], m.nodes[1]
	data := randomBytes(dataio.FirstWindowBytes)
	var asked int
	before := func() error { asked++; return nil }
	for key, content := range map[string][]byte{
		"inline": data[:100], "large": randomBytes(dataio.FirstWindowBytes + 1), "segments": randomBytes(testSegment + 1),
	} {
		n.put(t, "near", key, content, true)
		n.get(t, "near", key, 0, -1)
		if got, err := n.now(t, key, before); len(got) != 0 || err != nil {
			t.Errorf("%s: %d bytes were sent, %v", key, len(got), err)
		}
	}
	large, err := n.Open(testContext(t), "near", "large", Conditions{}, 0)
	must(t, err)
	const window = dataio.FirstWindowBytes + 1
	var buf bytes.Buffer
	_, err = large.Send(testContext(t), &buf, 0, -1, dataio.Windows{FirstBytes: window})
	must(t, err)
	if sent, err := large.SendNow(&buf, window, before); sent != window || err != nil || asked != 1 {
		t.Errorf("%d bytes were sent of what fits a larger window, asked for %d times, %v", sent, asked, err)
	}
	asked = 0

	n.put(t, "near", "k", data, true)
	seg := m.segment(t, "k")
	first := n.nearest(seg)
	if first == nil {
		t.Fatal("no copy is here, of two on three drives")
	}
	if got, err := n.now(t, "k", before); len(got) != 0 || err != nil || asked != 0 {
		t.Errorf("%d bytes were sent of what nobody has opened, %v", len(got), err)
	}
	n.get(t, "near", "k", 0, -1)
	if got, err := n.now(t, "k", before); !bytes.Equal(got, data) || err != nil || asked != 1 {
		t.Fatalf("%d bytes were sent of what was opened a moment ago, asked for %d times, %v", len(got), asked, err)
	}
	refused := errors.New("refused")
	if got, err := n.now(t, "k", func() error { return refused }); len(got) != 0 || err != refused {
		t.Errorf("%d bytes were sent of what may not be, %v", len(got), err)
	}
	if underWay, _ := n.reads.look(first.ID()); underWay != 0 {
		t.Errorf("%d reads are under way at the end", underWay)
	}

	wrong := *seg
	wrong.CRC32C++
	r, err := n.Open(testContext(t), "near", "k", Conditions{}, 0)
	must(t, err)
	record := *r.record
	record.Segments = append(record.Segments[:0:0], wrong)
	r.record = &record
	if sent, err := r.SendNow(io.Discard.(io.ReaderFrom), dataio.FirstWindowBytes, before); sent != 0 || err != nil {
		t.Errorf("%d bytes were sent of another payload than the record's, %v", sent, err)
	}

	n.reads.failed(first.ID())
	if again := n.nearest(seg); again == first {
		t.Error("a drive in trouble is read from")
	}
	if there := other.nearest(seg); there != nil && !bytes.Equal(other.get(t, "near", "k", 0, -1), data) {
		t.Error("another node has another payload")
	}
}

// sentBefore has a node with the object k, which was sent a moment ago.
func sentBefore(t *testing.T) (m *testMesh, n *testNode, data []byte) {
	m = newMesh(t, meshConfig{drives: []int{1}})
	m.bucket("near")
	n, data = m.nodes[0], randomBytes(dataio.FirstWindowBytes)
	n.put(t, "near", "k", data, true)
	n.get(t, "near", "k", 0, -1)
	return m, n, data
}

// TestSendNowOfWhatIsGone: a payload whose copy was removed is not sent from what
// was kept open.
func TestSendNowOfWhatIsGone(t *testing.T) {
	m, n, data := sentBefore(t)
	none := func() error { return nil }
	if got, err := n.now(t, "k", none); !bytes.Equal(got, data) || err != nil {
		t.Fatalf("%d bytes were sent of what was opened a moment ago, %v", len(got), err)
	}
	must(t, n.drives[0].Remove(testContext(t), m.segment(t, "k").ID))
	if got, err := n.now(t, "k", none); len(got) != 0 || err != nil {
		t.Errorf("%d bytes were sent of a payload that was removed, %v", len(got), err)
	}
}

// halfway takes some bytes, and fails.
type halfway struct{ bytes.Buffer }

func (h *halfway) ReadFrom(src io.Reader) (int64, error) {
	n, err := h.Buffer.ReadFrom(io.LimitReader(src, 1000))
	return n, errors.Join(err, io.ErrClosedPipe)
}

// TestSendNowInPart: Send goes on behind what SendNow has sent.
func TestSendNowInPart(t *testing.T) {
	_, n, data := sentBefore(t)
	r, err := n.Open(testContext(t), "near", "k", Conditions{}, 0)
	must(t, err)
	var w halfway
	sent, err := r.SendNow(&w, dataio.FirstWindowBytes, func() error { return nil })
	if sent != 1000 || err != nil {
		t.Fatalf("%d bytes were sent, %v", sent, err)
	}
	if _, err := r.Send(testContext(t), &w.Buffer, sent, -1, dataio.Windows{}); err != nil || !bytes.Equal(w.Bytes(), data) {
		t.Errorf("%d bytes at the end, %v", w.Len(), err)
	}
}

// TestSendNowAllocates nothing.
func TestSendNowAllocates(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1}})
	m.bucket("near")
	n := m.nodes[0]
	n.put(t, "near", "k", randomBytes(dataio.FirstWindowBytes), true)
	r, err := n.Open(testContext(t), "near", "k", Conditions{}, 0)
	must(t, err)
	before := func() error { return nil }
	var none took
	fewest := 100.0
	for range 20 { // the looks of 100 ms ago may be over in the middle of one
		n.get(t, "near", "k", 0, -1)
		fewest = min(fewest, testing.AllocsPerRun(10, func() { _, _ = r.SendNow(&none, dataio.FirstWindowBytes, before) }))
	}
	if fewest != 0 || none == 0 {
		t.Errorf("%v allocations for each, %d sent", fewest, none)
	}
}

// took counts what it is to read from.
type took int

func (c *took) ReadFrom(io.Reader) (int64, error) { *c++; return 0, nil }
