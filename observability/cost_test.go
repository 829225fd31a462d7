package observability

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// TestSeries holds what doc.go says of how many there are.
func TestSeries(t *testing.T) {
	count := func(r *Resources) int {
		var b bytes.Buffer
		if err := WriteResources(&b, nil, []*Resources{r}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(b.String()) {
			if !strings.HasPrefix(line, "#") {
				n++
			}
		}
		return n
	}
	base := &Resources{Node: "a", Up: true, Mesh: []MeshTraffic{{Via: ViaBulk}, {Via: ViaGrid}}}
	plain := count(base)
	with := func(change func(*Resources)) int {
		r := *base
		change(&r)
		return count(&r) - plain
	}
	for what, c := range map[string]struct{ got, want int }{
		"node":      {plain, 121},
		"interface": {with(func(r *Resources) { r.Networks = []Network{{Interface: "eth0"}} }), 30},
		"core":      {with(func(r *Resources) { r.Cores = []Core{{}} }), 5},
		"API":       {with(func(r *Resources) { r.APIs = []APICalls{{Name: "GetObject"}} }), 5},
		"peer":      {with(func(r *Resources) { r.Peers = []Peer{{Node: "b"}} }), 10},
		"drive":     {with(func(r *Resources) { r.Drives = []Drive{{Device: "sda"}} }), 16},
	} {
		if c.got != c.want {
			t.Errorf("%d series a %s, doc.go says %d", c.got, what, c.want)
		}
	}
}

// TestSizes holds what doc.go says of memory.
func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(window{}); got > 1600 {
		t.Errorf("a window has %d bytes", got)
	}
	if got := unsafe.Sizeof(callHistory{}); got > 4<<10 {
		t.Errorf("a callHistory has %d bytes", got)
	}
	if got := unsafe.Sizeof(callCounts{}); got > 400 {
		t.Errorf("a callCounts has %d bytes", got)
	}
}

// BenchmarkSample is what a second costs a node with 16 cores, 8 interfaces, 40
// APIs under way and 10 peers, but for the reading.
func BenchmarkSample(b *testing.B) {
	tel, err := New(b.Context(), Options{Node: "a"})
	if err != nil {
		b.Fatal(err)
	}
	defer tel.Shutdown(b.Context())
	requests := tel.Requests()
	c := NewCollector(CollectorOptions{Node: "a", Host: NewHost(), Requests: requests, Mesh: func() MeshCounters {
		m := MeshCounters{BulkSent: uint64(time.Now().UnixNano())}
		for i := range 10 {
			m.Peers = append(m.Peers, PeerCounters{Node: fmt.Sprint("peer", i), SentBytes: uint64(time.Now().UnixNano())})
		}
		return m
	}})
	rates := &networkRates{1, 2, 3, 4, 5, 6}
	for b.Loop() {
		for i := range 40 {
			requests.api(&requests.http, fmt.Sprint("API", i)).calls.count(time.Millisecond, classSuccess)
		}
		s := &sample{cpu: &cpuRatios{}, memory: &memoryBytes{}, load: &loads{}, networks: map[string]*networkRates{}}
		for i := range 16 {
			s.busy = append(s.busy, coreBusy{int32(i), 0.5, true})
		}
		for i := range 8 {
			s.networks[fmt.Sprint("eth", i)] = rates
		}
		c.add(s)
	}
}
