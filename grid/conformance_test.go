package grid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
)

// The conformance tests run every promise of the package at its public API,
// over a network in memory and in virtual time: a test that hangs deadlocks
// the bubble and fails, a goroutine that is left behind too.

const (
	echoID grid.HandlerID = 1000 + iota
	blockID
	floodID
	sinkID
	otherID
)

// mesh runs f in a bubble with n connected nodes.
func mesh(t *testing.T, n int, change func(int, *grid.ManagerOptions), f func(ctx context.Context, m *gridtest.Mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := gridtest.New(t, n, change)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := m.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
		f(ctx, m)
	})
}

func register(t *testing.T, m *grid.Manager, handlers ...grid.Handler) {
	t.Helper()
	for _, h := range handlers {
		if err := m.Register(h); err != nil {
			t.Fatal(err)
		}
	}
}

func echo() grid.Handler {
	return grid.Handler{ID: echoID, Name: "echo", Single: func(_ context.Context, req []byte) ([]byte, error) { return req, nil }}
}

// blocking makes a handler that reports when it is entered and how its
// context ended.
func blocking() (h grid.Handler, entered chan struct{}, left chan error) {
	entered, left = make(chan struct{}, 1000), make(chan error, 1000)
	return grid.Handler{ID: blockID, Name: "block", Single: func(ctx context.Context, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		left <- ctx.Err()
		return nil, ctx.Err()
	}}, entered, left
}

func wantIs(t *testing.T, what string, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func TestUnknownHost(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		c := m.Node(0).Connection("http://stranger:1")
		_, err := c.Request(ctx, echoID, nil)
		wantIs(t, "Request", err, grid.ErrUnknownHost)
		if !grid.NotExecuted(err) {
			t.Error("a request to an unknown host counts as maybe executed")
		}
		_, err = c.NewStream(ctx, echoID, nil)
		wantIs(t, "NewStream", err, grid.ErrUnknownHost)
		wantIs(t, "WaitConnected", c.WaitConnected(ctx), grid.ErrUnknownHost)
		if got := c.State(); got != grid.StateUnknown {
			t.Errorf("state is %v", got)
		}
	})
}

func TestHostNamesAreNormalised(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		for _, name := range []string{"http://node1:80", "HTTP://NODE1", "http://node1/", "http://Node1:80/"} {
			if c := m.Node(0).Connection(name); c != m.Connection(0, 1) {
				t.Errorf("%s is another connection: %s", name, c.Host())
			}
		}
	})
}

func TestLostConnectionFailsCallsAtOnce(t *testing.T) {
	for _, fault := range []string{"reset", "stop", "restart"} {
		t.Run(fault, func(t *testing.T) {
			mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
				h, entered, left := blocking()
				register(t, m.Node(1), h)
				errs := make(chan error, 1)
				go func() {
					_, err := m.Connection(0, 1).Request(ctx, blockID, nil)
					errs <- err
				}()
				<-entered
				start := time.Now()
				switch fault {
				case "reset":
					m.Reset(0, 1)
				case "stop":
					m.Stop(1)
				case "restart":
					m.Restart(1)
				}
				err := <-errs
				wantIs(t, "Request", err, grid.ErrDisconnected)
				if grid.NotExecuted(err) {
					t.Error("an entered handler counts as not executed")
				}
				wantIs(t, "handler", <-left, context.Canceled)
				if took := time.Since(start); took != 0 {
					t.Errorf("took %v of virtual time", took)
				}
				if fault != "stop" {
					if err := m.Connection(0, 1).WaitConnected(ctx); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

func TestDisconnectedFailsAtOnce(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		m.Cut(0, 1)
		synctest.Wait()
		for _, c := range []*grid.Connection{m.Connection(0, 1), m.Connection(1, 0)} {
			_, err := c.Request(ctx, echoID, nil)
			wantIs(t, "Request", err, grid.ErrDisconnected)
			if !grid.NotExecuted(err) {
				t.Error("counts as maybe executed")
			}
			short, cancel := context.WithTimeout(ctx, time.Minute)
			wantIs(t, "WaitConnected", c.WaitConnected(short), context.DeadlineExceeded)
			cancel()
		}
		m.Heal(0, 1)
		start := time.Now()
		if err := m.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("reconnecting took %v", took)
		}
	})
}

func TestBlackholeIsDetected(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		h, entered, _ := blocking()
		register(t, m.Node(1), h)
		errs := make(chan error, 1)
		go func() {
			_, err := m.Connection(0, 1).Request(ctx, blockID, nil)
			errs <- err
		}()
		<-entered
		m.Blackhole(0, 1)
		start := time.Now()
		wantIs(t, "Request", <-errs, grid.ErrDisconnected)
		if took := time.Since(start); took < 9*time.Second || took > 13*time.Second {
			t.Errorf("detected after %v, DeadAfter is 10 s", took)
		}
		m.Heal(0, 1)
		if err := m.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestQuietSessionLives(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		time.Sleep(10 * time.Minute) // virtual
		for _, c := range []*grid.Connection{m.Connection(0, 1), m.Connection(1, 0)} {
			if st := c.Stats(); st.Sessions != 1 || st.State != grid.StateConnected {
				t.Errorf("%d sessions, state %v", st.Sessions, st.State)
			}
		}
	})
}

// TestInputIsFreeOnReturn overwrites the request as soon as a cancelled call
// has returned: the handler must never see the overwritten bytes.
func TestInputIsFreeOnReturn(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		var mu sync.Mutex
		bad := 0
		register(t, m.Node(1), grid.Handler{ID: echoID, Single: func(ctx context.Context, req []byte) ([]byte, error) {
			if bytes.IndexByte(req, 0xFF) >= 0 {
				mu.Lock()
				bad++
				mu.Unlock()
			}
			return nil, nil
		}})
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				req := make([]byte, 100+worker*30_000)
				for range 50 {
					clear(req)
					short, cancel := context.WithCancel(ctx)
					go cancel()
					_, _ = m.Connection(0, 1).Request(short, echoID, req)
					cancel()
					for i := range req {
						req[i] = 0xFF
					}
				}
			})
		}
		wg.Wait()
		if bad > 0 {
			t.Errorf("%d requests were overwritten under way", bad)
		}
		if _, err := m.Connection(0, 1).Request(ctx, echoID, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestRapidResetKeepsSlotsTaken(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		stop := make(chan struct{})
		entered := make(chan struct{}, 100)
		register(t, m.Node(1), grid.Handler{ID: blockID, MaxConcurrent: 2, Single: func(ctx context.Context, _ []byte) ([]byte, error) {
			entered <- struct{}{}
			<-stop // ignores its context
			return nil, nil
		}})
		c := m.Connection(0, 1)
		for range 2 {
			short, cancel := context.WithCancel(ctx)
			go func() {
				<-entered
				cancel()
			}()
			_, err := c.Request(short, blockID, nil)
			wantIs(t, "Request", err, context.Canceled)
		}
		_, err := c.Request(ctx, blockID, nil)
		wantIs(t, "third", err, grid.ErrOverloaded)
		if retry, ok := grid.RetryAfter(err); !ok || retry <= 0 || !grid.NotExecuted(err) || !grid.IsRemote(err) {
			t.Errorf("retry after %v, %v", retry, err)
		}
		close(stop)
		synctest.Wait()
		if _, err := c.Request(ctx, blockID, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestDeadlineTravels(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		got := make(chan time.Duration, 1)
		register(t, m.Node(1), grid.Handler{ID: echoID, Single: func(ctx context.Context, _ []byte) ([]byte, error) {
			deadline, ok := ctx.Deadline()
			if !ok {
				t.Error("no deadline")
			}
			got <- time.Until(deadline)
			return nil, nil
		}})
		short, cancel := context.WithTimeout(ctx, 1234*time.Millisecond)
		defer cancel()
		if _, err := m.Connection(0, 1).Request(short, echoID, nil); err != nil {
			t.Fatal(err)
		}
		if d := <-got; d != 1234*time.Millisecond {
			t.Errorf("%v remained", d)
		}
	})
}

func TestMetadataAndPeer(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		for i := range 2 {
			register(t, m.Node(i), grid.Handler{ID: echoID, Single: func(ctx context.Context, _ []byte) ([]byte, error) {
				return fmt.Appendf(nil, "%s %d %s", grid.PeerFrom(ctx), grid.HandlerFrom(ctx), grid.MetadataFrom(ctx)["traceparent"]), nil
			}})
		}
		traced := grid.WithMetadata(ctx, grid.Metadata{"traceparent": "00-ab-cd-01"})
		for j := range 2 {
			resp, err := m.Connection(0, j).Request(traced, echoID, nil)
			if want := m.Name(0) + " 1000 00-ab-cd-01"; err != nil || string(resp) != want {
				t.Errorf("got %q, %v; want %q", resp, err, want)
			}
		}
		_, err := m.Connection(0, 1).Request(grid.WithMetadata(ctx, grid.Metadata{"k": string(make([]byte, 5000))}), echoID, nil)
		wantIs(t, "large metadata", err, grid.ErrTooLarge)
	})
}

func TestTooLarge(t *testing.T) {
	small := func(_ int, o *grid.ManagerOptions) { o.MaxMessage = 100_000 }
	mesh(t, 2, small, func(ctx context.Context, m *gridtest.Mesh) {
		register(t, m.Node(1), echo(), grid.Handler{ID: otherID, Single: func(context.Context, []byte) ([]byte, error) {
			return make([]byte, 100_001), nil
		}})
		c := m.Connection(0, 1)
		_, err := c.Request(ctx, echoID, make([]byte, 100_001))
		wantIs(t, "request", err, grid.ErrTooLarge)
		_, err = c.Request(ctx, otherID, nil)
		wantIs(t, "answer", err, grid.ErrTooLarge)
		if !grid.IsRemote(err) {
			t.Error("the answer's failure is not remote")
		}
		if _, err := c.Request(ctx, echoID, make([]byte, 100_000)); err != nil {
			t.Error(err)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	small := func(_ int, o *grid.ManagerOptions) { o.QueueLimit = 1 << 20 }
	mesh(t, 2, small, func(ctx context.Context, m *gridtest.Mesh) {
		register(t, m.Node(1), echo())
		m.Blackhole(0, 1)
		c := m.Connection(0, 1)
		var wg sync.WaitGroup
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		for range 64 {
			wg.Go(func() {
				_, err := c.Request(short, echoID, make([]byte, 100_000))
				wantIs(t, "Request", err, context.DeadlineExceeded)
			})
		}
		synctest.Wait()
		if q := c.Stats().QueuedBytes; q > 1<<20 {
			t.Errorf("%d bytes queued", q)
		}
		_, err := c.Request(grid.NoWait(ctx), echoID, make([]byte, 100_000))
		wantIs(t, "NoWait", err, grid.ErrOverloaded)
		wg.Wait()
		m.Heal(0, 1)
		if _, err := c.Request(ctx, echoID, make([]byte, 100_000)); err != nil {
			t.Error(err)
		}
	})
}

func TestAddAndRemoveHost(t *testing.T) {
	alone := func(i int, o *grid.ManagerOptions) { o.Hosts = nil }
	synctest.Test(t, func(t *testing.T) {
		m := gridtest.New(t, 2, alone)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		register(t, m.Node(1), echo())
		c := m.Connection(0, 1)
		_, err := c.Request(ctx, echoID, nil)
		wantIs(t, "before", err, grid.ErrUnknownHost)
		for i := range 2 {
			if err := m.Node(i).AddHost(m.Name(1 - i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Request(ctx, echoID, nil); err != nil { // by the old handle
			t.Error(err)
		}
		if err := m.Node(0).RemoveHost(m.Name(1)); err != nil {
			t.Fatal(err)
		}
		_, err = m.Connection(0, 1).Request(ctx, echoID, nil)
		wantIs(t, "after", err, grid.ErrUnknownHost)
		synctest.Wait()
		_, err = m.Connection(1, 0).Request(ctx, echoID, nil)
		wantIs(t, "from the other side", err, grid.ErrDisconnected)
	})
}

func TestRecvEndsCleanlyOnlyOnEnd(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		register(t, m.Node(1), grid.Handler{ID: floodID, Stream: &grid.StreamHandler{OutCapacity: 4, Pull: func(ctx context.Context, payload []byte, p *grid.Pipe) error {
			for range 3 {
				if err := p.Send(ctx, []byte("x")); err != nil {
					return err
				}
			}
			if len(payload) > 0 {
				return nil
			}
			<-ctx.Done()
			return nil
		}}})
		for _, clean := range []bool{true, false} {
			payload := []byte(nil)
			if clean {
				payload = []byte("end")
			}
			p, err := m.Connection(0, 1).OpenPipe(ctx, floodID, payload)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := p.Recv(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if clean {
				if _, err := p.Recv(ctx); err != io.EOF {
					t.Errorf("clean end is %v", err)
				}
				continue
			}
			m.Reset(0, 1)
			_, err = p.Recv(ctx)
			wantIs(t, "cut stream", err, grid.ErrDisconnected)
		}
	})
}
