package grid

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
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

// TestPlacing puts batches of small and large frames together, has them read
// in pieces of any size, and wants every frame back as it was.
func TestPlacing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rng := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(r, "seed")))
		var wire []byte
		var batches [][]byte
		for range rapid.IntRange(1, 6).Draw(r, "batches") {
			var b []byte
			for range rapid.IntRange(1, 4).Draw(r, "frames") {
				n := rapid.SampledFrom([]int{0, 8, 500, minPlaced - 1, minPlaced, chunkLen + 9, 40_000, maxChunkLen}).Draw(r, "payload")
				if len(b)+headerLen+n+crcLen > maxBatchLen {
					break
				}
				b = appendHeader(b, header{typ: frameData, length: uint32(n), id: rng.Uint64()})
				for range n {
					b = append(b, byte(rng.Uint32()))
				}
			}
			b = append(b, 1, 2, 3, 4) // for the checksum
			batches = append(batches, b)
			var room [wsHeaderRoom]byte
			wire = append(append(wire, room[putWSHeader(room[:], len(b), false, [4]byte{}):]...), b...)
		}
		in := batchReader{
			conn:   choppyConn{sourceConn{Reader: bytes.NewReader(wire)}, func(most int) int { return 1 + rng.IntN(most) }},
			small:  make([]byte, smallRead),
			before: func() {}, reads: func(int) {},
			place: func(h header, _ []byte) []byte { return newBuffer(int(h.length)) },
			tail:  crcLen,
		}
		in.buf = in.small
		defer in.giveBack()
		for i, want := range batches {
			_, got, err := in.next(maxBatchLen)
			if err != nil {
				r.Fatalf("batch %d: %v", i, err)
			}
			cut := len(got) - crcLen
			whole := append(append(append([]byte(nil), got[:cut]...), in.placed...), got[cut:]...)
			if !bytes.Equal(whole, want) {
				r.Fatalf("batch %d of %d bytes came as %d and %d that differ", i, len(want), len(got), len(in.placed))
			}
			if in.placed != nil && parseHeader(got[cut-headerLen:]).length != uint32(len(in.placed)) {
				r.Fatalf("batch %d: %d bytes were placed, and not what its last header announces", i, len(in.placed))
			}
		}
		if _, _, err := in.next(maxBatchLen); !errors.Is(err, io.EOF) {
			r.Fatalf("after the last batch: %v", err)
		}
	})
}

// TestPlacedPayloadIsChecked changes a byte of a payload that is read into its
// place: the checksum covers it, and nobody gets to see it.
func TestPlacedPayloadIsChecked(t *testing.T) {
	frame := append(appendHeader(nil, header{typ: frameData, length: minPlaced}), make([]byte, minPlaced)...)
	sum := crc32.Checksum(frame, castagnoli)
	s := session{crc: true, count: new(counters)}
	batch := append(frame[:headerLen:headerLen], byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	payload := append([]byte(nil), frame[headerLen:]...)
	payload[minPlaced/2]++
	if err := s.readBatch(batch, payload); !errors.Is(err, errProtocol) {
		t.Errorf("a payload that was changed on its way: %v", err)
	}
}

// TestPlaceForUnfinished gives the rest of a message its place behind what is
// there, unless something in front of it in the batch could add to that.
func TestPlaceForUnfinished(t *testing.T) {
	id := makeID(0, 7, 3)
	p := &partial{h: header{id: id}, total: 3 * minPlaced, buf: make([]byte, minPlaced, 3*minPlaced)}
	s := session{partials: map[uint64]*partial{partialKey(id): p}}
	more := header{typ: frameMore, id: id, length: minPlaced}
	other := append(appendHeader(nil, header{typ: frameMore, id: makeID(0, 7, 4), length: 3}), 1, 2, 3)
	same := appendHeader(append([]byte(nil), other...), header{typ: frameMore, id: id})
	if dst := s.placeFor(more, other); len(dst) != minPlaced || &dst[0] != &p.buf[:minPlaced+1][minPlaced] {
		t.Errorf("%d bytes somewhere else", len(dst))
	}
	stale, long := more, more
	stale.id, long.length = makeID(0, 8, 3), 2*minPlaced+1
	for name, dst := range map[string][]byte{
		"behind another frame of the message": s.placeFor(more, same),
		"of the slot's next message":          s.placeFor(stale, nil),
		"longer than announced":               s.placeFor(long, nil),
	} {
		if dst != nil {
			t.Errorf("a chunk %s was given a place", name)
		}
	}
}

// TestPlacedStreams sends messages of many sizes, and large requests beside
// them, to a node whose socket gives them in pieces.
func TestPlacedStreams(t *testing.T) {
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
