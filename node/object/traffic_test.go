package object

import (
	"bytes"
	"testing"
)

// TestBulkTraffic: what one end of the bulk port has sent, the other has
// received, each byte of payload once.
func TestBulkTraffic(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 0}})
	a, b := m.nodes[1], m.nodes[0]
	m.bucket("photos")
	data := randomBytes(3 << 20) // what is short goes by the grid
	check := func(when string, aReceived, aSent int64) {
		t.Helper()
		if received, sent := a.BulkTraffic(); received != aReceived || sent != aSent {
			t.Errorf("%s: the one that asks received %d and sent %d, want %d and %d", when, received, sent, aReceived, aSent)
		}
		if received, sent := b.BulkTraffic(); received != aSent || sent != aReceived {
			t.Errorf("%s: the owner received %d and sent %d, want %d and %d", when, received, sent, aSent, aReceived)
		}
	}
	size := int64(len(data))
	a.put(t, "photos", "known", data, true)
	check("after a put", 0, size)
	a.put(t, "photos", "chunked", data, false)
	check("after one of unknown size", 0, 2*size)
	if got := a.get(t, "photos", "known", -1, 0); !bytes.Equal(got, data) {
		t.Error("other bytes came back")
	}
	check("after a get", size, 2*size)
	b.get(t, "photos", "known", -1, 0)
	check("after a get where it is", size, 2*size)
	a.get(t, "photos", "known", 0, 2<<20)
	check("after a range", size+2<<20, 2*size)
}
