package grid_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
)

// Num is what msgp would generate for a struct with one field, by hand.
type Num struct{ N int64 }

func (n *Num) MarshalMsg(b []byte) ([]byte, error) { return msgp.AppendInt64(b, n.N), nil }
func (n *Num) Msgsize() int                        { return msgp.Int64Size }
func (n *Num) UnmarshalMsg(b []byte) (rest []byte, err error) {
	n.N, rest, err = msgp.ReadInt64Bytes(b)
	return rest, err
}

var (
	double = grid.NewSingle[Num, Num](1000, "double")
	upTo   = grid.NewStreamOf[Num, Num, Num](1001, "up to")
)

func registerTyped(m *grid.Manager) error {
	return errors.Join(
		double.Register(m, func(_ context.Context, req *Num) (*Num, error) { return &Num{2 * req.N}, nil }),
		upTo.Register(m, 4, 4, func(ctx context.Context, open *Num, p *grid.TypedPipe[Num, Num, *Num, *Num]) error {
			for {
				in, err := p.Recv(ctx)
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				if in.N > open.N {
					return &grid.RemoteError{Code: 1, Message: "too much"}
				}
				if err := p.Send(ctx, &Num{-in.N}); err != nil {
					return err
				}
			}
		}),
	)
}

func TestTyped(t *testing.T) {
	mesh(t, 2, nil, func(ctx context.Context, m *gridtest.Mesh) {
		if err := registerTyped(m.Node(1)); err != nil {
			t.Fatal(err)
		}
		c := m.Connection(0, 1)
		if resp, err := double.Call(ctx, c, &Num{21}); err != nil || resp.N != 42 {
			t.Errorf("got %v, %v", resp, err)
		}
		p, err := upTo.Open(ctx, c, &Num{10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(10) {
			if err := p.Send(ctx, &Num{i}); err != nil {
				t.Fatal(err)
			}
			if out, err := p.Recv(ctx); err != nil || out.N != -i {
				t.Fatal(out, err)
			}
		}
		if err := p.Send(ctx, &Num{11}); err != nil {
			t.Fatal(err)
		}
		var remote *grid.RemoteError
		if _, err := p.Recv(ctx); !errors.As(err, &remote) || remote.Code != 1 {
			t.Errorf("got %v", err)
		}
		// Not a number, nested too deeply, and something left over.
		for _, bad := range [][]byte{{0xa1, 'x'}, deep(100), {1, 2}} {
			_, err := c.Request(ctx, double.ID(), bad)
			if !errors.As(err, &remote) || remote.Code != grid.CodeMalformed {
				t.Errorf("% x: %v", bad[:1], err)
			}
		}
	})
}

// deep nests n arrays of one element.
func deep(n int) []byte {
	b := make([]byte, n+1)
	for i := range n {
		b[i] = 0x91
	}
	return b
}

// Typed requests are described once, as a variable that both ends use. The
// messages' methods come from github.com/tinylib/msgp.
func ExampleSingle() {
	a, b, stop := exampleNodes(nil)
	defer stop()
	if err := registerTyped(b); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	c := a.Connection(b.Local())
	if err := c.WaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	resp, err := double.Call(ctx, c, &Num{4})
	fmt.Println(resp.N, err)
	// Output: 8 <nil>
}
