//go:build soak

package control

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// A node with a million small records is ready again within seconds.
func TestRestartOnAMillion(t *testing.T) {
	const records, clients = 1_000_000, 512
	dir := t.TempDir()
	c, err := Open(t.Context(), Options{Dir: dir, Self: "a"})
	if err != nil {
		t.Fatal(err)
	}
	b := createBucket(t, c, "b")
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for i := next.Add(1); i <= records; i = next.Add(1) {
				if _, err := c.Propose(t.Context(), putOf(b, fmt.Sprintf("%08d", i), "e")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d puts in %v", records, time.Since(began))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	c, err = Open(t.Context(), Options{Dir: dir, Self: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, records / 2, records} {
		if got := etagOf(t, c, "b", fmt.Sprintf("%08d", i)); got != "e" {
			t.Errorf("read %q", got)
		}
	}
	took := time.Since(began)
	t.Logf("ready, and three records read, after %v", took)
	if took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: fmt.Sprintf("%08d", records+1)}}); fault.KindOf(err) != fault.ObjectNotFound {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// Fifty cold starts of five nodes give one id each.
func TestManyColdStarts(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		virtual(t, 5, func(t *testing.T, m *mesh) {
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() { m.open(i, nil) })
			}
			wg.Wait()
			id := m.sameMesh()
			if seen[id] {
				t.Errorf("the id %s is another mesh's", id)
			}
			seen[id] = true
			m.settle("a b c d e", "a b c d e")
		})
	}
}

// Two million steps of the simulation, and a million with users and keys.
func TestSimulationLong(t *testing.T) { simulate(t, dataGroup, 80, 25_000, " -tags soak") }
func TestSimulationOfUsersLong(t *testing.T) {
	simulate(t, systemGroup, 40, 25_000, " -tags soak")
}
