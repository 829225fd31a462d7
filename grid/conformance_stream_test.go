package grid_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
)

// sink is a stream handler that takes everything and reports what its loop
// saw at the end.
func sink(ended chan<- error) grid.Handler {
	return grid.Handler{ID: sinkID, Name: "sink", Stream: &grid.StreamHandler{InCapacity: 4, OutCapacity: 1,
		Handle: func(ctx context.Context, _ []byte, in <-chan []byte, out chan<- []byte) error {
			for range in {
			}
			ended <- ctx.Err()
			return ctx.Err()
		}}}
}

// flood sends n messages of size bytes, and reports how its loop ended.
func flood(n, size int, sent *atomic.Int64, ended chan<- error) grid.Handler {
	return grid.Handler{ID: floodID, Name: "flood", Stream: &grid.StreamHandler{OutCapacity: 1000,
		Handle: func(ctx context.Context, _ []byte, _ <-chan []byte, out chan<- []byte) error {
			for range n {
				select {
				case out <- make([]byte, size):
					sent.Add(1)
				case <-ctx.Done():
					ended <- ctx.Err()
					return ctx.Err()
				}
			}
			ended <- nil
			return nil
		}}}
}

func TestInputClosesOnLossOnlyAfterContext(t *testing.T) {
	for _, how := range []string{"end", "cancel", "reset", "blackhole"} {
		t.Run(how, func(t *testing.T) {
			mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
				ended := make(chan error, 1)
				register(t, m.Node(1), sink(ended))
				streamCtx, cancel := context.WithCancel(ctx)
				defer cancel()
				st, err := m.Connection(0, 1).NewStream(streamCtx, sinkID, nil)
				if err != nil {
					t.Fatal(err)
				}
				for range 20 {
					st.Requests <- []byte("x")
				}
				switch how {
				case "end":
					close(st.Requests)
				case "cancel":
					cancel()
				case "reset":
					m.Reset(0, 1)
				case "blackhole":
					m.Blackhole(0, 1)
				}
				err = <-ended
				if how == "end" != (err == nil) {
					t.Errorf("after %s the handler's context says %v", how, err)
				}
				var last error
				for r := range st.Responses {
					last = r.Err
				}
				if how == "end" != (last == nil) {
					t.Errorf("after %s the caller got %v", how, last)
				}
				<-st.Done()
				if how == "blackhole" {
					m.Heal(0, 1)
				}
			})
		})
	}
}

func TestHandlersErrorEndsStream(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		register(t, m.Node(1), grid.Handler{ID: floodID, Stream: &grid.StreamHandler{InCapacity: 2, OutCapacity: 2,
			Handle: func(ctx context.Context, _ []byte, in <-chan []byte, out chan<- []byte) error {
				out <- []byte("one")
				out <- nil
				out <- []byte{}
				return &grid.RemoteError{Code: 7, Message: "enough"}
			}}})
		for _, j := range []int{0, 1} {
			if j == 0 {
				continue // the handler is at node 1 alone
			}
			st, err := m.Connection(0, j).NewStream(ctx, floodID, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got [][]byte
			var last error
			for r := range st.Responses {
				if last = r.Err; last == nil {
					got = append(got, r.Msg)
				}
			}
			if len(got) != 3 || string(got[0]) != "one" || got[1] != nil || got[2] == nil {
				t.Errorf("got %q", got)
			}
			var remote *grid.RemoteError
			if !errors.As(last, &remote) || remote.Code != 7 {
				t.Errorf("ended by %v", last)
			}
			// Nobody reads any more: sends go through, and the close is no panic.
			for range 100 {
				st.Requests <- []byte("into the void")
			}
			close(st.Requests)
		}
	})
}

func TestRefusedStreams(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		register(t, m.Node(1), echo(), sink(make(chan error, 10)))
		c := m.Connection(0, 1)
		for _, h := range []grid.HandlerID{999, echoID} {
			_, err := c.NewStream(ctx, h, nil)
			wantIs(t, "NewStream", err, grid.ErrUnknownHandler)
			if !grid.NotExecuted(err) {
				t.Error("counts as maybe executed")
			}
		}
		// Declared here, refused there: the error comes as the response.
		register(t, m.Node(0), grid.Handler{ID: otherID, Stream: &grid.StreamHandler{InCapacity: 1, OutCapacity: 1}})
		st, err := c.NewStream(ctx, otherID, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := <-st.Responses
		wantIs(t, "declared stream", r.Err, grid.ErrUnknownHandler)
		if _, open := <-st.Responses; open {
			t.Error("open after an error")
		}
		close(st.Requests)
	})
}

func TestSlowConsumerStallsItsProducerOnly(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		var sent atomic.Int64
		ended := make(chan error, 1)
		const size = 10_000
		register(t, m.Node(1), flood(1_000_000, size, &sent, ended), echo())
		streamCtx, cancel := context.WithCancel(ctx)
		st, err := m.Connection(0, 1).NewStream(streamCtx, floodID, nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stalled := sent.Load()
		if bytes := stalled * size; bytes > 4<<20 {
			t.Errorf("%d bytes were sent to a consumer that does not read", bytes)
		}
		for range 100 {
			if _, err := m.Connection(0, 1).Request(ctx, echoID, make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if sent.Load() != stalled {
			t.Error("the producer went on")
		}
		for range 500 {
			if r := <-st.Responses; r.Err != nil || len(r.Msg) != size {
				t.Fatal(r.Err)
			}
		}
		synctest.Wait()
		if sent.Load() == stalled {
			t.Error("the producer did not go on")
		}
		cancel()
		wantIs(t, "producer", <-ended, context.Canceled)
		for range st.Responses {
		}
	})
}

// TestStreamsLeaveNothingBehind ends streams in every way without reading
// them, and counts goroutines.
func TestStreamsLeaveNothingBehind(t *testing.T) {
	for _, how := range []string{"finished", "half-closed", "cancelled", "peer gone", "remote error"} {
		t.Run(how, func(t *testing.T) {
			mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
				ended := make(chan error, 100)
				var sent atomic.Int64
				register(t, m.Node(1), sink(ended), flood(1_000, 1000, &sent, ended))
				synctest.Wait()
				streamCtx, cancel := context.WithCancel(ctx)
				warm, err := m.Connection(0, 1).NewStream(streamCtx, sinkID, nil)
				if err != nil {
					t.Fatal(err)
				}
				close(warm.Requests)
				for range warm.Responses {
				}
				before := runtime.NumGoroutine()
				h := sinkID
				if how == "cancelled" || how == "peer gone" {
					h = floodID
				}
				for range 10 {
					st, err := m.Connection(0, 1).NewStream(streamCtx, h, nil)
					if err != nil {
						t.Fatal(err)
					}
					if st.Requests != nil && how != "remote error" {
						close(st.Requests)
					}
				}
				synctest.Wait()
				switch how {
				case "cancelled", "half-closed", "remote error":
					cancel()
				case "peer gone":
					m.Reset(0, 1)
				}
				synctest.Wait()
				if err := m.WaitConnected(ctx); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				// Workers are parked, not gone: give them the time to be let go.
				time.Sleep(time.Minute)
				synctest.Wait()
				if after := runtime.NumGoroutine(); after > before {
					buf := make([]byte, 1<<20)
					t.Errorf("%d goroutines before, %d after\n%s", before, after, buf[:runtime.Stack(buf, true)])
				}
				cancel()
			})
		})
	}
}

func TestPipeOrderAndEnds(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		for i := range 2 {
			register(t, m.Node(i), grid.Handler{ID: floodID, Stream: &grid.StreamHandler{InCapacity: 1, OutCapacity: 1,
				Pull: func(ctx context.Context, _ []byte, p *grid.Pipe) error {
					for {
						msg, err := p.Recv(ctx)
						if err == io.EOF {
							return nil
						}
						if err != nil {
							return err
						}
						if err := p.Send(ctx, msg); err != nil {
							return err
						}
					}
				}}})
		}
		for j := range 2 {
			p, err := m.Connection(0, j).OpenPipe(ctx, floodID, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				if err := p.Send(ctx, []byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
				if msg, err := p.RecvAppend(ctx, []byte("x")); err != nil || len(msg) != 2 || msg[1] != byte(i) {
					t.Fatal(msg, err)
				}
			}
			short, cancel := context.WithTimeout(ctx, time.Second)
			_, err = p.Recv(short)
			wantIs(t, "bounded Recv", err, context.DeadlineExceeded)
			cancel()
			if err := p.CloseSend(); err != nil {
				t.Fatal(err)
			}
			wantIs(t, "Send after CloseSend", p.Send(ctx, nil), grid.ErrStreamDone)
			if _, err := p.Recv(ctx); err != io.EOF {
				t.Errorf("end is %v", err)
			}
			<-p.Done()
			wantIs(t, "Send after the end", p.Send(ctx, nil), grid.ErrStreamDone)
		}
	})
}

func TestNoInput(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		ended := make(chan error, 1)
		var sent atomic.Int64
		register(t, m.Node(1), flood(3, 3, &sent, ended))
		st, err := m.Connection(0, 1).NewStream(ctx, floodID, nil)
		if err != nil || st.Requests != nil {
			t.Fatalf("Requests is %v, %v", st.Requests, err)
		}
		n := 0
		for r := range st.Responses {
			if r.Err != nil {
				t.Error(r.Err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("got %d", n)
		}
	})
}

func TestPanicInStreamHandler(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		register(t, m.Node(1), echo(), grid.Handler{ID: floodID, Stream: &grid.StreamHandler{InCapacity: 1, OutCapacity: 1,
			Handle: func(context.Context, []byte, <-chan []byte, chan<- []byte) error { panic("oops") }}})
		st, err := m.Connection(0, 1).NewStream(ctx, floodID, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := <-st.Responses
		var remote *grid.RemoteError
		if !errors.As(r.Err, &remote) || remote.Code != grid.CodePanic {
			t.Errorf("got %v", r.Err)
		}
		close(st.Requests)
		if _, err := m.Connection(0, 1).Request(ctx, echoID, nil); err != nil {
			t.Error(err)
		}
	})
}
