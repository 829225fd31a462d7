package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFailover kills the leader under load, and stops it as planned; make soak
// does so thirty times, and measures.
func TestFailover(t *testing.T) {
	f := startFleet(t, 3)
	mustRun(t, f.env(1), "mb", "failover")
	w := newWriters(t, f)
	for _, gap := range []time.Duration{w.kill(t), w.kill(t), w.planned(t)} {
		if gap > time.Minute {
			t.Errorf("nothing was committed for %v", gap)
		}
	}
}

// writers put small objects through all nodes, and note when each put that was
// acknowledged was asked for and answered.
type writers struct {
	fleet *fleet

	mu   sync.Mutex // guards acks
	acks []ack
}

type ack struct{ asked, answered time.Time }

// newWriters starts eight of them, until the test ends.
func newWriters(t *testing.T, f *fleet) *writers {
	t.Helper()
	w := &writers{fleet: f}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { w.write(ctx, i) })
	}
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	return w
}

func (w *writers) write(ctx context.Context, writer int) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := 0; ctx.Err() == nil; i++ {
		node := 1 + (writer+i)%w.fleet.size
		asked := time.Now()
		url := dataDoor{w.fleet.meshUnderTest}.at(node, "failover", fmt.Sprintf("%d/%d", writer, i%100))
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader("some bytes"))
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+w.fleet.key)
		resp, err := client.Do(req)
		if err != nil {
			// The node isn't there, and the next one is asked: not at once, as
			// the time of the others is measured.
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode < 300 {
			w.mu.Lock()
			w.acks = append(w.acks, ack{asked, time.Now()})
			w.mu.Unlock()
		}
	}
}

// quiet waits until a put that was asked for after a moment is acknowledged,
// and then for a second more. It returns the longest time between two
// acknowledgements since the last before the moment.
func (w *writers) quiet(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	limit := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !w.acknowledged(since) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("nothing was committed for two minutes")
		}
	}
	wait(t, time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.acks, func(a, b ack) int { return a.answered.Compare(b.answered) })
	longest := time.Duration(0)
	for i, a := range w.acks {
		if a.answered.After(since) && i > 0 {
			longest = max(longest, a.answered.Sub(w.acks[i-1].answered))
		}
	}
	w.acks = nil
	return longest
}

func (w *writers) acknowledged(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.acks, func(a ack) bool { return a.asked.After(since) })
}

// steady waits until the load runs on a mesh that is whole.
func (w *writers) steady(t *testing.T) {
	t.Helper()
	w.fleet.waitReady(t)
	w.quiet(t, time.Now())
	wait(t, time.Duration(rand.IntN(300))*time.Millisecond)
}

// kill ends the leader with SIGKILL, and returns for how long nothing was
// committed. Then the node is started again.
func (w *writers) kill(t *testing.T) time.Duration {
	t.Helper()
	w.steady(t)
	leader := w.fleet.leader(t)
	at := time.Now()
	w.fleet.kill(leader)
	gap := w.quiet(t, at)
	t.Logf("the leader n%d was killed: nothing committed for %v", leader, gap.Round(time.Millisecond))
	w.fleet.start(t, leader)
	return gap
}

// planned is the same for a leader that is told to stop.
func (w *writers) planned(t *testing.T) time.Duration {
	t.Helper()
	w.steady(t)
	leader := w.fleet.leader(t)
	at := time.Now()
	w.fleet.stop(t, leader)
	gap := w.quiet(t, at)
	t.Logf("the leader n%d was stopped: nothing committed for %v", leader, gap.Round(time.Millisecond))
	w.fleet.start(t, leader)
	return gap
}
