package grid

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"pgregory.net/rapid"
)

// choppyConn gives what there is to read in pieces of any size.
type choppyConn struct {
	net.Conn
	piece func(most int) int
}

func (c choppyConn) Read(b []byte) (int, error) {
	return c.Conn.Read(b[:c.piece(len(b))])
}

// sourceConn reads from bytes.
type sourceConn struct {
	net.Conn
	*bytes.Reader
}

func (c sourceConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

// TestBatchesInPieces has batches of small and large frames read in pieces of
// any size, and wants every batch back as it was.
func TestBatchesInPieces(t *testing.T) {
	noise := make([]byte, 2*maxBatchLen)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	rapid.Check(t, func(r *rapid.T) {
		rng := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(r, "seed")))
		var wire []byte
		var batches [][]byte
		for range rapid.IntRange(1, 6).Draw(r, "batches") {
			n := rapid.OneOf(rapid.IntRange(0, 200), rapid.IntRange(smallRead-20, smallRead+20), rapid.IntRange(0, maxBatchLen)).Draw(r, "bytes")
			at := rng.IntN(len(noise) - n)
			b := noise[at : at+n]
			batches = append(batches, b)
			var room [wsHeaderRoom]byte
			wire = append(append(wire, room[putWSHeader(room[:], len(b), false, [4]byte{}):]...), b...)
		}
		in := batchReader{
			conn:   choppyConn{sourceConn{Reader: bytes.NewReader(wire)}, func(most int) int { return 1 + rng.IntN(most) }},
			small:  make([]byte, smallRead),
			before: func() {}, reads: func(int) {},
		}
		in.buf = in.small
		defer in.giveBack()
		for i, want := range batches {
			if _, got, err := in.next(maxBatchLen); err != nil || !bytes.Equal(got, want) {
				r.Fatalf("batch %d of %d bytes came as %d that differ: %v", i, len(want), len(got), err)
			}
		}
		if _, _, err := in.next(maxBatchLen); !errors.Is(err, io.EOF) {
			r.Fatalf("after the last batch: %v", err)
		}
	})
}

// TestStreamsInPieces sends messages of many sizes, and large requests beside
// them, to a node whose socket gives them in pieces.
func TestStreamsInPieces(t *testing.T) {
	nodes := newTestMesh(t, 2, func(o *ManagerOptions) {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			return choppyConn{conn, func(most int) int { return 1 + rand.IntN(most) }}, err
		}
	})
	for _, node := range nodes {
		registerAll(t, node.Manager)
	}
	fill := func(b []byte, seed int) []byte {
		for i := range b {
			b[i] = byte(i*7 + i>>8 + seed)
		}
		return b
	}
	ctx := testContext(t)
	for i, node := range nodes {
		c := nodes[1-i].Connection(node.Local())
		p, err := c.OpenPipe(ctx, pullID, nil)
		if err != nil {
			t.Fatal(err)
		}
		large := make(chan error, 1)
		req := fill(make([]byte, 900_000), 11)
		go func() {
			resp, err := c.Request(ctx, echoID, req)
			if err == nil && !bytes.Equal(resp, req) {
				err = errors.New("a large answer is not what it should be")
			}
			large <- err
		}()
		for n := 1; n < 300_000; n = n*2 + n/3 + 5 {
			want := fill(make([]byte, n), n)
			for range 3 {
				if err := p.Send(ctx, want); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				if msg, err := p.Recv(ctx); err != nil || !bytes.Equal(msg, want) {
					t.Fatalf("%d of %d bytes, or others: %v", len(msg), n, err)
				}
			}
		}
		if err := <-large; err != nil {
			t.Error(err)
		}
		if err := p.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := p.Recv(ctx); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}
