package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// TestRelay: however many watch a node, it is asked once; one that can't be
// reached is reported as down each second, and is back when it is back; the last
// to leave ends it.
func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s watching
		asked, ends := 0, 0
		receive := func(ctx context.Context, publish func(*observability.Resources, int64)) error {
			asked++
			if asked == 2 || asked == 3 {
				return errors.New("no route")
			}
			defer func() { ends++ }()
			for i := range int64(5) {
				publish(&observability.Resources{Node: "b", Up: true, SampledAtUnixNano: i}, 0)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return errors.New("it broke off")
		}
		begin := time.Now()
		one, two := observability.NewWatcher(), observability.NewWatcher()
		stopOne := s.join(t.Context(), "b", one, receive)
		stopTwo := s.join(t.Context(), "b", two, receive)
		next := func(w *observability.Watcher) string {
			got, err := w.Next(t.Context())
			if err != nil || got.Resources.Node != "b" || got.Missed != 0 {
				t.Fatalf("%+v, %v", got, err)
			}
			return strings.TrimSpace(got.Resources.Error + " " + time.Since(begin).String())
		}
		for _, want := range []string{"0s", "1s", "2s", "3s", "4s", "it broke off 5s", "no route 6s", "no route 7s", "8s", "9s"} {
			if got, other := next(one), next(two); got != want || other != want {
				t.Fatalf("%q and %q, want %q", got, other, want)
			}
		}
		if asked != 4 {
			t.Errorf("asked %d times", asked)
		}
		stopTwo()
		if got := next(one); got != "10s" {
			t.Errorf("%q after the other has left", got)
		}
		stopOne()
		if ends != 2 || len(s.relays) != 0 {
			t.Errorf("%d of 2 have ended, %d relays are left", ends, len(s.relays))
		}
	})
}

// TestRelaysComeAndGo has many join and leave at once.
func TestRelaysComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s watching
		var mu sync.Mutex // guards running
		running := 0
		receive := func(ctx context.Context, publish func(*observability.Resources, int64)) error {
			mu.Lock()
			running++
			mu.Unlock()
			publish(&observability.Resources{Node: "b"}, 0)
			<-ctx.Done()
			mu.Lock()
			running--
			mu.Unlock()
			return ctx.Err()
		}
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				for range 10 {
					w := observability.NewWatcher()
					stop := s.join(t.Context(), "b", w, receive)
					if _, err := w.Next(t.Context()); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration(i%7) * time.Millisecond)
					stop()
				}
			})
		}
		wg.Wait()
		if running != 0 || len(s.relays) != 0 {
			t.Errorf("%d run, %d relays are left", running, len(s.relays))
		}
	})
}

func TestWatchesAreBounded(t *testing.T) {
	var s watching
	for range maxWatches {
		if err := s.begin(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.begin(); fault.KindOf(err) != fault.Overloaded {
		t.Errorf("one more: %v", err)
	}
	s.done()
	if err := s.begin(); err != nil {
		t.Errorf("when one has ended: %v", err)
	}
}

// TestProbesAreShared: those who ask at once, and soon after, get the same.
func TestProbesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p probing
		made := 0
		probe := func(context.Context) *probeReply {
			made++
			time.Sleep(time.Second)
			return &probeReply{Version: "v"}
		}
		ask := func(want int) {
			t.Helper()
			if _, err := p.probe(t.Context(), probe); err != nil || made != want {
				t.Errorf("%v, %d made, want %d", err, made, want)
			}
		}
		for range 10 {
			go ask(1)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := p.probe(ctx, probe); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who can't wait: %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		ask(1)
		time.Sleep(probeFresh)
		ask(2)
	})
}

// TestWatchOneNode: a watch of one node goes on after it would have looked which
// others there are.
func TestWatchOneNode(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	r.mesh.watching.every = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, enough := map[int64]bool{}, errors.New("enough")
	err := r.mesh.Watch(ctx, "local", func(w observability.Watched) error {
		if seen[w.Resources.SampledAtUnixNano] = true; len(seen) == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("%d samples, %v", len(seen), err)
	}
}

// watchedLine is what the test below reads of a line.
type watchedLine struct {
	Result struct {
		Node struct {
			Node, State, Error string
			Peers              []struct {
				Node string
				Up   bool
			}
			Apis []struct{ API string }
			Cpu  struct{ PerCore []struct{ Core int } }
		}
	}
}

// TestWatchMesh watches the whole mesh by one node: each tells of itself, and one
// that stops is down while the others go on.
func TestWatchMesh(t *testing.T) {
	nodes := startMesh(t, t.TempDir(), 3)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, nodes[0].url("/v1/metrics/watch"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testKey.String())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	// until reads lines until one is as wanted.
	until := func(what string, wanted func(*watchedLine) bool) {
		t.Helper()
		for lines.Scan() {
			var l watchedLine
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatalf("%v: %s", err, lines.Text())
			}
			if wanted(&l) {
				return
			}
		}
		t.Fatalf("the stream ended (%v) before %s", lines.Err(), what)
	}
	seen := map[string]bool{}
	until("all nodes were there", func(l *watchedLine) bool {
		n := &l.Result.Node
		peers := slices.ContainsFunc(n.Peers, func(p struct {
			Node string
			Up   bool
		}) bool {
			return p.Up && p.Node != n.Node
		})
		if n.State == "NODE_STATE_UP" && len(n.Peers) == 2 && peers && len(n.Cpu.PerCore) > 0 {
			seen[n.Node] = true
		}
		return len(seen) == 3
	})
	nodes[2].stop(t)
	until("it was down", func(l *watchedLine) bool {
		n := &l.Result.Node
		return n.Node == nodes[2].cfg.Name && n.State == "NODE_STATE_DOWN" && n.Error != ""
	})
	until("another went on", func(l *watchedLine) bool {
		return l.Result.Node.Node == nodes[1].cfg.Name && l.Result.Node.State == "NODE_STATE_UP"
	})

	var d struct {
		Nodes []struct {
			Node, State string
			Drives      []struct {
				Seconds float64
				Error   string
			}
			Peers []struct {
				Node, Error string
				RttSeconds  *float64
			}
		}
	}
	body := expect(t, http.StatusOK, http.MethodPost, nodes[0].url("/v1/metrics:diagnose"), strings.NewReader("{}"))
	if err := json.Unmarshal(body, &d); err != nil || len(d.Nodes) != 3 {
		t.Fatalf("%v: %s", err, body)
	}
	for _, n := range d.Nodes {
		if up := n.Node != nodes[2].cfg.Name; up != (n.State == "NODE_STATE_UP") {
			t.Errorf("%s is %s", n.Node, n.State)
		}
		for _, drive := range n.Drives {
			if drive.Error != "" || drive.Seconds <= 0 {
				t.Errorf("%s: drive %+v", n.Node, drive)
			}
		}
		for _, p := range n.Peers {
			if there := p.Node != nodes[2].cfg.Name; there != (p.RttSeconds != nil) || there != (p.Error == "") {
				t.Errorf("%s: peer %+v", n.Node, p)
			}
		}
	}
	expect(t, http.StatusBadRequest, http.MethodGet, nodes[0].url("/v1/metrics/watch?node=x"), nil)
	nodes[0].stop(t) // with the watch still open
}

// TestSilentNode has a node go silent whose connection is up as far as anybody
// knows: it is reported within the deadline, and another is not held up.
func TestSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := gridtest.New(t, 2, func(_ int, o *grid.ManagerOptions) { o.PingInterval, o.DeadAfter = time.Hour, 2*time.Hour })
		err := watchCall.Register(nodes.Node(1), 0, watchAhead, func(ctx context.Context, _ *watchRequest, p *grid.TypedPipe[watchReply, watchRequest, *watchReply, *watchRequest]) error {
			for i := range int64(3) {
				if err := p.Send(ctx, &watchReply{Resources: &observability.Resources{Node: "b", Up: true}, Missed: i}); err != nil {
					return err
				}
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := nodes.WaitConnected(t.Context()); err != nil {
			t.Fatal(err)
		}
		m := &mesh{self: "a", grid: nodes.Node(0), urls: func() map[string]string {
			return map[string]string{"a": nodes.Name(0), "b": nodes.Name(1)}
		}}
		w := observability.NewWatcher()
		stop := m.watchNode(t.Context(), "b", w)
		begin := time.Now()
		for want := range int64(3) {
			if got, err := w.Next(t.Context()); err != nil || !got.Resources.Up || got.Missed != want {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		got, err := w.Next(t.Context())
		if err != nil || got.Resources.Up || got.Resources.Node != "b" || !strings.Contains(got.Resources.Error, "no sample for 3s") {
			t.Fatalf("%+v, %v", got.Resources, err)
		}
		if took := time.Since(begin); took != 2*time.Second+silentAfter {
			t.Errorf("reported as down after %v", took)
		}
		if got, err := w.Next(t.Context()); err != nil || !got.Resources.Up {
			t.Errorf("asked again: %+v, %v", got.Resources, err)
		}
		stop()
	})
}
