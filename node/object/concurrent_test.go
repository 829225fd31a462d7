package object

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/fault"
)

// TestConcurrent lets many callers at few keys through all nodes at once.
// Whatever a get finds must be one put's bytes, whole; in the end the files are
// those of the objects that are left.
func TestConcurrent(t *testing.T) {
	m := newMesh(t, meshConfig{options: func(_ int, o *Options) { o.SegmentBytes = modelSegment }})
	m.bucket("crowd")
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range 25 {
				if err := crowdStep(ctx, m.nodes[r.IntN(3)], r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	page, err := m.nodes[0].List(ctx, ListRequest{Bucket: "crowd"})
	must(t, err)
	want := 0
	for _, o := range page.Objects {
		m.nodes[1].get(t, "crowd", o.Key, -1, 0)
		want += len(m.drivesOf(t, "crowd", o.Key))
	}
	for _, n := range m.nodes {
		n.o.ReclaimGrace = 1
		for _, d := range n.drives {
			must(t, n.reclaim(ctx, d))
		}
	}
	m.wantFiles(want)
}

// crowdStep does one random thing to one of four keys.
func crowdStep(ctx context.Context, n *testNode, r *rand.Rand) error {
	key := fmt.Sprintf("key-%d", r.IntN(4))
	data := randomBytes([]int{10, InlineMaxBytes + 1, GridMaxBytes + 1, 2*modelSegment + 1}[r.IntN(4)] + r.IntN(100))
	put := PutRequest{Bucket: "crowd", Key: key, SizeBytes: -1}
	var err error
	switch r.IntN(9) {
	case 0:
		err = n.Delete(ctx, "crowd", key, Conditions{})
	case 1:
		body := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(io.ErrUnexpectedEOF))
		if _, err := n.Put(ctx, put, body, nil); fault.KindOf(err) != fault.IncompleteBody {
			return fmt.Errorf("cut put: %w", err)
		}
	case 2:
		_, err = n.Copy(ctx, CopyRequest{SrcBucket: "crowd", SrcKey: key, Bucket: "crowd", Key: "copy-" + key})
	case 3:
		put.Conditions = Conditions{IfNoneMatch: []string{"*"}}
		if _, err = n.Put(ctx, put, bytes.NewReader(data), nil); fault.KindOf(err) == fault.PreconditionFailed {
			err = nil
		}
	case 4, 5:
		put.SizeBytes = int64(len(data))
		_, err = n.Put(ctx, put, bytes.NewReader(data), nil)
	case 6:
		_, err = n.Move(ctx, MoveRequest{SrcBucket: "crowd", SrcKey: key, Bucket: "crowd", Key: fmt.Sprintf("key-%d", (r.IntN(3)+int(key[4]-'0')+1)%4)})
	default:
		err = crowdGet(ctx, n, key)
	}
	if err != nil && fault.KindOf(err) != fault.ObjectNotFound {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func crowdGet(ctx context.Context, n *testNode, key string) error {
	reader, err := n.Open(ctx, "crowd", key, Conditions{}, 0)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if _, err := reader.Send(ctx, &buf, 0, -1, dataio.Windows{}); err != nil {
		return err
	}
	if shaHex(buf.Bytes()) != reader.Info.ETag {
		return fmt.Errorf("%d bytes that are no put's", buf.Len())
	}
	return nil
}
