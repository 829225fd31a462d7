package object

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// TestReclaim: the files of what was deleted and replaced go, and no others;
// a drive that can't remove them now does it later.
func TestReclaim(t *testing.T) {
	var faults datatest.Faults
	m := newMesh(t, meshConfig{
		options: func(_ int, o *Options) { o.ReclaimGrace, o.ReclaimEvery = time.Millisecond, 20*time.Millisecond },
		drive:   func(int) dataio.Options { return dataio.Options{Interceptor: &faults} },
	})
	m.bucket("garbage")
	data := randomBytes(2*testSegment + 1)
	for i := range 10 {
		m.nodes[i%3].put(t, "garbage", fmt.Sprint(i), data, true)
		if i >= 3 {
			m.nodes[i%3].put(t, "garbage", fmt.Sprint(i), data[:GridMaxBytes], true)
		}
	}
	for i := range 3 {
		must(t, m.nodes[0].Delete(testContext(t), "garbage", fmt.Sprint(i), Conditions{}))
	}
	m.wantFiles(3 * (30 + 7))
	faults.Add(datatest.Fault{Op: dataio.OpRemove, Times: 5, Err: syscall.EBUSY})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, n := range m.nodes {
		wg.Go(func() {
			if err := n.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	m.wantFiles(3 * 7)
	reclaimed := 0
	for ctx := testContext(t); reclaimed < 3*30; { // which is told when the index has heard of it
		if pause(ctx) != nil {
			break
		}
		reclaimed = 0
		for _, n := range m.nodes {
			n.recorded.mu.Lock()
			reclaimed += n.recorded.reclaimed
			n.recorded.mu.Unlock()
		}
	}
	cancel()
	wg.Wait()
	if reclaimed != 3*30 {
		t.Errorf("%d files reported reclaimed, want 90", reclaimed)
	}
	for i := 3; i < 10; i++ {
		m.nodes[i%3].get(t, "garbage", fmt.Sprint(i), -1, 0)
	}
	if more, err := m.nodes[0].reclaimSome(testContext(t), m.nodes[0].drives[0]); more || err != nil {
		t.Errorf("the index still tells of garbage: %v, %v", more, err)
	}
}

// TestReclaimGrace: what was deleted a moment ago stays for those who read it.
func TestReclaimGrace(t *testing.T) {
	m := onlyOn(t, 0, meshConfig{})
	m.bucket("grace")
	m.nodes[0].put(t, "grace", "k", randomBytes(testSegment), true)
	r, err := m.nodes[0].Open(testContext(t), "grace", "k", Conditions{}, 0)
	must(t, err)
	must(t, m.nodes[0].Delete(testContext(t), "grace", "k", Conditions{}))
	must(t, m.nodes[0].reclaim(testContext(t), m.nodes[0].drives[0]))
	if sent, err := r.Send(testContext(t), discard{}, 0, -1, dataio.Windows{}); err != nil || sent != testSegment {
		t.Errorf("%d bytes, %v", sent, err)
	}
	m.wantFiles(1)
}

// discard takes everything, and has no ReadFrom.
type discard struct{}

func (discard) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, errors.New("an empty write")
	}
	return len(p), nil
}
