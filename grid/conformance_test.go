package grid_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/gridloom/gridloom/grid"
)

// The conformance tests say, sentence by sentence, what the package promises,
// and try it at the public API. Every case is run
//
//   - on gridtest: connections in memory, virtual time
//   - on loopback TCP, with a secret
//   - on loopback TCP with TLS, the certificates being the only proof
//
// each with GOMAXPROCS 1, 2 and 8. Cases marked slow, which wait for real time
// or move many bytes, run with 2 alone; where a case needs a particular
// network (a socket to be half open, a clock to be exact), it says so. On TCP
// every link goes through a proxy that loses, holds, delays and resets.
//
// The number in front of a name is the promise's in the list that the package
// was built from: 00 the contract, 01 to 11 correctness, 12 to 17 scheduling,
// 18 to 20 safety, 21 to 23 the rest.
type conformance struct {
	name   string
	on     networks // everywhere, if 0
	slow   bool
	nodes  int                             // 2, if 0
	change func(int, *grid.ManagerOptions) // of node i's options
	apart  bool                            // the nodes need not connect first
	run    func(b *bed)
	// prepare makes change and run together, where they share something.
	prepare func() (change func(int, *grid.ManagerOptions), run func(b *bed))
}

type networks uint8

const (
	memory networks = 1 << iota
	plain
	secure
	sockets    = plain | secure
	everywhere = memory | sockets
)

func (n networks) String() string {
	return map[networks]string{memory: "gridtest", plain: "tcp", secure: "tls"}[n]
}

func TestConformance(t *testing.T) {
	ca := newAuthority(t)
	var cases []conformance
	for _, part := range [][]conformance{
		contractCases(), streamCases(), sessionCases(), callCases(), memoryCases(), closeCases(),
		flowCases(), faultCases(), identityCases(), garbageCases(), observeCases(), shareCases(),
	} {
		cases = append(cases, part...)
	}
	for _, procs := range []int{1, 2, 8} {
		t.Run(fmt.Sprint("procs=", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			for _, on := range []networks{memory, plain, secure} {
				t.Run(on.String(), func(t *testing.T) {
					for _, c := range cases {
						if c.on != 0 && c.on&on == 0 || c.slow && procs != 2 {
							continue
						}
						t.Run(c.name, func(t *testing.T) { c.try(t, on, ca) })
					}
				})
			}
		})
	}
}

func (c conformance) try(t *testing.T, on networks, ca *authority) {
	if c.prepare != nil {
		c.change, c.run = c.prepare()
	}
	f := func(b *bed) {
		if !c.apart {
			if err := b.WaitConnected(b.ctx); err != nil {
				b.t.Fatal(err)
			}
		}
		c.run(b)
	}
	n := max(c.nodes, 2)
	switch on {
	case memory:
		inMemory(t, n, c.change, f)
	case plain:
		onTCP(t, n, nil, c.change, f)
	case secure:
		onTCP(t, n, ca, c.change, f)
	}
}

const (
	echoID grid.HandlerID = 1000 + iota
	blockID
	floodID
	sinkID
	otherID
	relayID
)

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

// single makes a handler of a function.
func single(id grid.HandlerID, f grid.SingleHandler) grid.Handler {
	return grid.Handler{ID: id, Name: fmt.Sprint("single ", id), Single: f}
}

// pull makes a stream handler of a function, with the windows in messages.
func pull(id grid.HandlerID, in, out int, f func(ctx context.Context, payload []byte, p *grid.Pipe) error) grid.Handler {
	return grid.Handler{ID: id, Name: fmt.Sprint("pull ", id), Stream: &grid.StreamHandler{InCapacity: in, OutCapacity: out, Pull: f}}
}

// channels makes a stream handler of the channel form.
func channels(id grid.HandlerID, in, out int, f func(ctx context.Context, payload []byte, in <-chan []byte, out chan<- []byte) error) grid.Handler {
	return grid.Handler{ID: id, Name: fmt.Sprint("channels ", id), Stream: &grid.StreamHandler{InCapacity: in, OutCapacity: out, Handle: f}}
}

// echoPull sends everything back.
func echoPull(id grid.HandlerID, in, out int) grid.Handler {
	return pull(id, in, out, func(ctx context.Context, _ []byte, p *grid.Pipe) error {
		for {
			msg, err := p.Recv(ctx)
			if err != nil {
				return unlessEnd(err)
			}
			if err := p.Send(ctx, msg); err != nil {
				return err
			}
		}
	})
}

func wantIs(t *testing.T, what string, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// wantCode wants the handler's own error.
func wantCode(t *testing.T, what string, err error, code uint32) {
	t.Helper()
	var remote *grid.RemoteError
	if !errors.As(err, &remote) || remote.Code != code || !grid.IsRemote(err) {
		t.Errorf("%s: got %v, want a remote error with code %d", what, err, code)
	}
}

// wantNotExecuted wants an error that says that the call was not executed.
func wantNotExecuted(t *testing.T, what string, err error, want bool) {
	t.Helper()
	if err == nil || grid.NotExecuted(err) != want {
		t.Errorf("%s: NotExecuted is %v for %v", what, grid.NotExecuted(err), err)
	}
}
