package grid_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
)

func TestCloseDrains(t *testing.T) {
	mesh(t, 3, nil, func(ctx context.Context, m *gridtest.Mesh) {
		release := make(chan struct{})
		entered := make(chan struct{}, 10)
		register(t, m.Node(1), grid.Handler{ID: blockID, Single: func(ctx context.Context, req []byte) ([]byte, error) {
			entered <- struct{}{}
			select {
			case <-release:
				return append(req, " done"...), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}})
		type result struct {
			resp []byte
			err  error
		}
		results := make(chan result, 1)
		go func() {
			resp, err := m.Connection(0, 1).Request(ctx, blockID, []byte("is"))
			results <- result{resp, err}
		}()
		<-entered
		closed := make(chan error, 1)
		go func() { closed <- m.Node(1).Close(ctx) }()
		synctest.Wait()
		if st := m.Connection(0, 1).State(); st != grid.StateDraining {
			t.Errorf("state while draining is %v", st)
		}
		_, err := m.Connection(0, 1).Request(ctx, blockID, nil)
		wantIs(t, "a call while draining", err, grid.ErrGoingAway)
		wantIs(t, "a call while draining", err, grid.ErrDisconnected)
		if !grid.NotExecuted(err) {
			t.Error("counts as maybe executed")
		}
		select {
		case err := <-closed:
			t.Fatalf("closed with a call under way: %v", err)
		default:
		}
		close(release)
		if r := <-results; r.err != nil || string(r.resp) != "is done" {
			t.Errorf("the call under way: %q, %v", r.resp, r.err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := m.Node(1).Close(ctx); err != nil {
				t.Errorf("again: %v", err)
			}
		}
		_, err = m.Connection(1, 0).Request(ctx, blockID, nil)
		wantIs(t, "a call by the closed", err, grid.ErrClosed)
		wantIs(t, "a wait by the closed", m.Connection(1, 0).WaitConnected(ctx), grid.ErrClosed)
	})
}

func TestCloseCancelsWhenItsContextEnds(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		h, entered, left := blocking()
		register(t, m.Node(1), h)
		errs := make(chan error, 1)
		go func() {
			_, err := m.Connection(0, 1).Request(ctx, blockID, nil)
			errs <- err
		}()
		<-entered
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := m.Node(1).Close(short); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		wantIs(t, "handler", <-left, context.Canceled)
		wantIs(t, "caller", <-errs, grid.ErrDisconnected)
	})
}

func TestCloseReportsStuckHandlers(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		entered, release := make(chan struct{}), make(chan struct{})
		register(t, m.Node(1), grid.Handler{ID: blockID, Name: "deaf", Single: func(context.Context, []byte) ([]byte, error) {
			close(entered)
			<-release
			return nil, nil
		}})
		errs := make(chan error, 1)
		go func() {
			_, err := m.Connection(0, 1).Request(ctx, blockID, nil)
			errs <- err
		}()
		<-entered
		ended, cancel := context.WithCancel(ctx)
		cancel()
		err := m.Node(1).Close(ended)
		var stuck *grid.StuckError
		if !errors.As(err, &stuck) || !strings.Contains(err.Error(), "deaf") {
			t.Errorf("Close: %v", err)
		}
		wantIs(t, "caller", <-errs, grid.ErrDisconnected)
		close(release)
		if err := m.Node(1).Close(ended); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// TestNothingCrossesARestart makes calls while the peer restarts again and
// again: an answer must be the answer to its own request.
func TestNothingCrossesARestart(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		var ok atomic.Int64
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for worker := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					c := m.Connection(0, 1)
					if c.WaitConnected(ctx) != nil {
						return
					}
					req := []byte{byte(worker), byte(i), byte(i >> 8)}
					resp, err := c.Request(ctx, echoID, req)
					if err == nil {
						if string(resp) != string(req) {
							t.Errorf("asked %v, got %v", req, resp)
						}
						ok.Add(1)
					}
					time.Sleep(time.Millisecond) // virtual: lets the clock go on
				}
			})
		}
		for range 5 {
			register(t, m.Node(1), echo())
			time.Sleep(time.Second)
			m.Restart(1)
		}
		close(stop)
		wg.Wait()
		if ok.Load() == 0 {
			t.Error("no call went through")
		}
	})
}

func TestHandshakeRefusals(t *testing.T) {
	other := []byte("another secret altogether, longer")
	for _, tc := range []struct {
		name   string
		change func(int, *grid.ManagerOptions)
		want   string
	}{
		{"wrong secret", func(i int, o *grid.ManagerOptions) {
			if i == 1 {
				o.Secrets = func() [][]byte { return [][]byte{other} }
			}
		}, "secret"},
		{"no secret", func(i int, o *grid.ManagerOptions) {
			if i == 1 {
				o.Secrets, o.Insecure = nil, true
			}
		}, "secret"},
		{"realm", func(i int, o *grid.ManagerOptions) {
			o.Realm = func() string { return []string{"a", "b"}[i] }
		}, "realm"},
		{"unknown to the other", func(i int, o *grid.ManagerOptions) {
			if i == 1 {
				o.Hosts = nil
			}
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := gridtest.New(t, 2, tc.change)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				err := m.Connection(0, 1).WaitConnected(ctx)
				wantIs(t, "WaitConnected", err, context.DeadlineExceeded)
				dialler := m.Connection(0, 1)
				if !dialler.Stats().Dialler {
					dialler = m.Connection(1, 0)
				}
				st := dialler.Stats()
				if tc.want != "" && (st.LastError == nil || !strings.Contains(st.LastError.Error(), tc.want)) {
					t.Errorf("the dialling end says %v", st.LastError)
				}
				if st.DialAttempts > 100 {
					t.Errorf("%d attempts in a minute: no backoff", st.DialAttempts)
				}
			})
		})
	}
}

func TestSecretRotation(t *testing.T) {
	a, b := []byte("the old secret, known to everybody"), []byte("the new secret, known to everybody")
	change := func(i int, o *grid.ManagerOptions) {
		o.Secrets = func() [][]byte {
			if i == 0 {
				return [][]byte{a, b}
			}
			return [][]byte{b, a}
		}
	}
	mesh(t, 2, change, func(ctx context.Context, m *gridtest.Mesh) {})
}

func TestRealmAgreedLater(t *testing.T) {
	var realms [2]atomic.Value
	for i := range realms {
		realms[i].Store("")
	}
	change := func(i int, o *grid.ManagerOptions) { o.Realm = func() string { return realms[i].Load().(string) } }
	mesh(t, 2, change, func(ctx context.Context, m *gridtest.Mesh) {
		realms[0].Store("one")
		time.Sleep(time.Minute)
		if m.Connection(0, 1).Stats().Sessions != 1 {
			t.Error("one realm alone ended the session")
		}
		realms[1].Store("another")
		time.Sleep(time.Minute)
		if st := m.Connection(0, 1).State(); st == grid.StateConnected {
			t.Error("the session outlives a difference in realms")
		}
		realms[1].Store("one")
		if err := m.WaitConnected(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestHooksSeeCalls(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		seen[what]++
	}
	change := func(i int, o *grid.ManagerOptions) {
		o.Hooks = grid.Hooks{
			SessionUp: func(grid.SessionInfo) { note("up") },
			CallStart: func(ctx context.Context, c grid.CallInfo) context.Context {
				note("call " + c.Name)
				return grid.WithMetadata(ctx, grid.Metadata{"traceparent": "T"})
			},
			CallEnd: func(_ context.Context, c grid.CallInfo, r grid.CallResult) { note("called " + c.Name) },
			ServeStart: func(ctx context.Context, c grid.CallInfo) context.Context {
				note("serve " + grid.MetadataFrom(ctx)["traceparent"])
				return context.WithValue(ctx, t, "v")
			},
			ServeEnd:     func(_ context.Context, c grid.CallInfo, r grid.CallResult) { note("served") },
			HandlerPanic: func(grid.CallInfo, any, []byte) { note("panic") },
		}
	}
	mesh(t, 2, change, func(ctx context.Context, m *gridtest.Mesh) {
		register(t, m.Node(0), grid.Handler{ID: echoID, Name: "echo"})
		register(t, m.Node(1), grid.Handler{ID: echoID, Name: "echo", Single: func(ctx context.Context, _ []byte) ([]byte, error) {
			if ctx.Value(t) != "v" {
				t.Error("the handler has not the hook's context")
			}
			panic("x")
		}})
		_, _ = m.Connection(0, 1).Request(ctx, echoID, nil)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for _, what := range []string{"up", "call echo", "called echo", "serve T", "served", "panic"} {
			if seen[what] == 0 {
				t.Errorf("%q was not seen: %v", what, seen)
			}
		}
	})
}

func TestEvenDialling(t *testing.T) {
	var total int
	synctest.Test(t, func(t *testing.T) {
		m := gridtest.New(t, 8, nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			for j := range 8 {
				if i == j {
					continue
				}
				if m.Connection(i, j).Stats().Dialler == m.Connection(j, i).Stats().Dialler {
					t.Errorf("%d and %d do not agree on who dials", i, j)
				}
				if m.Connection(i, j).Stats().Dialler {
					total++
				}
			}
		}
	})
	if total != 28 {
		t.Errorf("%d diallers for 28 links", total)
	}
}
