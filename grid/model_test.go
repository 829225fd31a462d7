package grid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
)

// TestRandomOperations runs random calls and faults against what must hold
// whatever happens: an answer answers its own request, a stream that ends
// cleanly was whole and in order, a call fails only where there was a reason,
// nothing hangs and nothing is left behind.
func TestRandomOperations(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 40).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) { runSteps(t, steps) })
	})
}

// modelStep is one operation of the model.
type modelStep struct {
	Kind         string
	From, To     int
	Size, Count  int
	CancelMicros int // 0: not cancelled
}

func drawStep(r *rapid.T) modelStep {
	return modelStep{
		Kind: rapid.SampledFrom([]string{"request", "request", "stream", "stream", "pipe", "reset", "blackhole", "heal", "wait", "restart"}).Draw(r, "kind"),
		From: rapid.IntRange(0, 2).Draw(r, "from"), To: rapid.IntRange(0, 2).Draw(r, "to"),
		Size:         rapid.SampledFrom([]int{0, 1, 500, 20_000, 70_000, 300_000}).Draw(r, "size"),
		Count:        rapid.IntRange(0, 40).Draw(r, "count"),
		CancelMicros: rapid.SampledFrom([]int{0, 0, 1, 1000, 3_000_000}).Draw(r, "cancel"),
	}
}

// model runs the operations and counts the faults, which excuse failures.
type model struct {
	t      *testing.T
	mesh   *gridtest.Mesh
	faults atomic.Int64
	wg     sync.WaitGroup
}

func runSteps(t *testing.T, steps []modelStep) {
	m := &model{t: t, mesh: gridtest.New(t, 3, nil)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for i := range 3 {
		m.serve(i)
	}
	if err := m.mesh.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		m.step(ctx, s)
	}
	m.mesh.HealAll()
	m.wg.Wait()
	if err := m.mesh.WaitConnected(ctx); err != nil {
		t.Error(err)
	}
}

// serve registers an echo in both kinds; each message is checked by its
// sender, who wrote its own number into it.
func (m *model) serve(i int) {
	register(m.t, m.mesh.Node(i), echo(), grid.Handler{ID: floodID, Stream: &grid.StreamHandler{InCapacity: 3, OutCapacity: 5,
		Handle: func(ctx context.Context, _ []byte, in <-chan []byte, out chan<- []byte) error {
			for msg := range in {
				select {
				case out <- msg:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return ctx.Err()
		}}})
}

func (m *model) step(ctx context.Context, s modelStep) {
	switch s.Kind {
	case "reset", "blackhole", "restart":
		m.faults.Add(1)
	}
	switch s.Kind {
	case "reset":
		m.mesh.Reset(s.From, s.To)
	case "blackhole":
		m.mesh.Blackhole(s.From, s.To)
	case "heal":
		m.mesh.Heal(s.From, s.To)
	case "restart":
		m.mesh.Restart(s.To)
		m.serve(s.To)
	case "wait":
		time.Sleep(time.Duration(s.Size) * time.Microsecond) // virtual
	default:
		before := m.faults.Load()
		call, cancel := context.WithCancel(ctx)
		if s.CancelMicros > 0 {
			call, cancel = context.WithTimeout(ctx, time.Duration(s.CancelMicros)*time.Microsecond)
		}
		c := m.mesh.Connection(s.From, s.To)
		m.wg.Go(func() {
			defer cancel()
			err := m.call(call, c, s)
			if err == nil || call.Err() != nil {
				return
			}
			if before == 0 && m.faults.Load() == 0 || !errors.Is(err, grid.ErrDisconnected) {
				m.t.Errorf("%+v failed without a reason: %v", s, err)
			}
		})
	}
}

func (m *model) call(ctx context.Context, c *grid.Connection, s modelStep) error {
	switch s.Kind {
	case "request":
		req := message(s, 0)
		resp, err := c.Request(ctx, echoID, req)
		if err == nil && !bytes.Equal(req, resp) {
			m.t.Errorf("%+v: another answer", s)
		}
		return err
	case "pipe":
		return m.pipe(ctx, c, s)
	}
	st, err := c.NewStream(ctx, floodID, nil)
	if err != nil {
		return err
	}
	m.wg.Go(func() {
		defer close(st.Requests)
		for i := range s.Count {
			select {
			case st.Requests <- message(s, i):
			case <-st.Done():
				return
			case <-ctx.Done():
				return
			}
		}
	})
	got := 0
	for r := range st.Responses {
		if r.Err != nil {
			return r.Err
		}
		m.check(s, got, r.Msg)
		got++
	}
	if got != s.Count && ctx.Err() == nil {
		m.t.Errorf("%+v: a clean end after %d messages", s, got)
	}
	return nil
}

func (m *model) pipe(ctx context.Context, c *grid.Connection, s modelStep) error {
	p, err := c.OpenPipe(ctx, floodID, nil)
	if err != nil {
		return err
	}
	defer p.Cancel()
	m.wg.Go(func() {
		for i := range s.Count {
			if p.Send(ctx, message(s, i)) != nil {
				return
			}
		}
		p.CloseSend()
	})
	for got := 0; ; got++ {
		msg, err := p.Recv(ctx)
		if err == io.EOF {
			if got != s.Count {
				m.t.Errorf("%+v: a clean end after %d messages", s, got)
			}
			return nil
		}
		if err != nil {
			return err
		}
		m.check(s, got, msg)
	}
}

func (m *model) check(s modelStep, i int, msg []byte) {
	if !bytes.Equal(msg, message(s, i)) {
		m.t.Errorf("%+v: message %d is another", s, i)
	}
}

// message is the i-th message of an operation: no two are the same.
func message(s modelStep, i int) []byte {
	text := fmt.Appendf(nil, "%d %d %d %d %d|", s.From, s.To, s.Size, s.Count, i)
	return append(text, bytes.Repeat([]byte{byte(i)}, s.Size)...)
}
