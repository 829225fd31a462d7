package object

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// segmentsOf are the payload files of an object.
func (m *testMesh) segmentsOf(t *testing.T, bucket, key string) []control.Segment {
	t.Helper()
	a, err := m.nodes[0].Index().Read(testContext(t), &control.Query{Record: &control.RecordQuery{Bucket: bucket, Key: key}})
	must(t, err)
	return a.Record.Segments
}

func TestMove(t *testing.T) {
	m := newMesh(t, meshConfig{})
	t.Run("sizes", func(t *testing.T) { moveSizes(t, m) })
	t.Run("over another", func(t *testing.T) { moveOver(t, m) })
	t.Run("refused", func(t *testing.T) { moveRefused(t, m) })
	t.Run("one of many", func(t *testing.T) { oneMover(t, m) })
}

// moveSizes moves objects of every size, within and across buckets, through any
// node; the bytes stay in the files that they were in.
func moveSizes(t *testing.T, m *testMesh) {
	m.bucket("from")
	m.bucket("to-here")
	ctx := testContext(t)
	files := 0
	for i, size := range boundaries {
		key := fmt.Sprint(size)
		data := randomBytes(size)
		req := PutRequest{Bucket: "from", Key: key, SizeBytes: int64(size),
			Headers: Headers{ContentType: "x/y"}, Metadata: map[string]string{"a": "b"}}
		src, err := m.nodes[0].Put(ctx, req, bytes.NewReader(data), nil)
		must(t, err)
		segments := m.segmentsOf(t, "from", key)
		files += len(segments) * m.copies()
		r, err := m.nodes[2].Open(ctx, "from", key, Conditions{}, 0) // a reader who came before
		must(t, err)
		bucket := []string{"from", "to-here"}[i%2]
		dst, err := m.nodes[i%3].Move(ctx, MoveRequest{SrcBucket: "from", SrcKey: key, Bucket: bucket, Key: "moved/" + key})
		if err != nil || dst.Bucket != bucket || dst.Key != "moved/"+key || dst.SizeBytes != int64(size) || dst.ETag != src.ETag || dst.Headers != src.Headers ||
			dst.Metadata["a"] != "b" || dst.CRC64NVME != src.CRC64NVME || !bytes.Equal(dst.SHA256, src.SHA256) || dst.Replaced || !dst.ModifiedAt.After(src.ModifiedAt) {
			t.Fatalf("%d bytes: %+v, %v", size, dst, err)
		}
		m.nodes[(i+2)%3].wantGone(t, "from", key)
		if got := m.nodes[(i+1)%3].get(t, bucket, "moved/"+key, -1, 0); !bytes.Equal(got, data) {
			t.Errorf("%d bytes: other bytes", size)
		}
		if got := m.segmentsOf(t, bucket, "moved/"+key); !slices.EqualFunc(got, segments, func(a, b control.Segment) bool { return a.ID == b.ID }) {
			t.Errorf("%d bytes: the files were %v, and are %v", size, segments, got)
		}
		var late bytes.Buffer
		if _, err := r.Send(ctx, &late, 0, -1, dataio.Windows{}); err != nil || !bytes.Equal(late.Bytes(), data) {
			t.Errorf("%d bytes: a reader who came before has %d, %v", size, late.Len(), err)
		}
	}
	m.reclaimNow(t)
	m.wantFiles(files)
}

// reclaimNow removes all garbage.
func (m *testMesh) reclaimNow(t *testing.T) {
	t.Helper()
	for _, n := range m.nodes {
		n.o.ReclaimGrace = 1
		for _, d := range n.drives {
			must(t, n.reclaim(testContext(t), d))
		}
	}
}

// moveOver moves over another object: what the target had is removed, and
// nothing else.
func moveOver(t *testing.T, m *testMesh) {
	m.bucket("over")
	before := len(m.files())
	large := [][]byte{randomBytes(2*testSegment + 1), randomBytes(GridMaxBytes + 1)}
	m.nodes[0].put(t, "over", "a", large[0], true)
	m.nodes[1].put(t, "over", "b", large[1], true)
	left := len(m.segmentsOf(t, "over", "a"))
	info, err := m.nodes[2].Move(testContext(t), MoveRequest{SrcBucket: "over", SrcKey: "a", Bucket: "over", Key: "b"})
	if err != nil || !info.Replaced {
		t.Fatalf("%+v, %v", info, err)
	}
	m.reclaimNow(t)
	m.wantFiles(before + left*m.copies())
	for _, n := range m.nodes {
		if got := n.get(t, "over", "b", -1, 0); !bytes.Equal(got, large[0]) {
			t.Errorf("%s: other bytes", n.name)
		}
		n.wantGone(t, "over", "a")
	}
}

// moveRefused is what a move is refused for; it changes nothing then.
func moveRefused(t *testing.T, m *testMesh) {
	m.bucket("refused")
	n := m.nodes[1]
	a := n.put(t, "refused", "a", []byte("a"), true)
	b := n.put(t, "refused", "b", []byte("b"), true)
	hour := a.ModifiedAt.Add(-time.Hour)
	for name, tc := range map[string]struct {
		change  func(*MoveRequest)
		kind    fault.Kind
		subject string
	}{
		"onto itself":            {func(r *MoveRequest) { r.Key = "a" }, fault.InvalidArgument, `object "refused/a"`},
		"no bucket":              {func(r *MoveRequest) { r.Bucket = "" }, fault.InvalidArgument, "bucket"},
		"a bad source bucket":    {func(r *MoveRequest) { r.SrcBucket = "X" }, fault.InvalidArgument, "bucket"},
		"a bad key":              {func(r *MoveRequest) { r.Key = "a//b" }, fault.InvalidArgument, "key"},
		"a bad source key":       {func(r *MoveRequest) { r.SrcKey = "/" }, fault.InvalidArgument, "key"},
		"a quoted tag":           {func(r *MoveRequest) { r.Conditions.IfMatch = []string{`"x"`} }, fault.InvalidArgument, "if_match"},
		"a quoted source tag":    {func(r *MoveRequest) { r.SrcConditions.IfNoneMatch = []string{`"x"`} }, fault.InvalidArgument, "if_none_match"},
		"no source":              {func(r *MoveRequest) { r.SrcKey = "none" }, fault.ObjectNotFound, `object "refused/none"`},
		"no source bucket":       {func(r *MoveRequest) { r.SrcBucket = "nowhere" }, fault.BucketNotFound, `bucket "nowhere"`},
		"no target bucket":       {func(r *MoveRequest) { r.Bucket = "nowhere" }, fault.BucketNotFound, `bucket "nowhere"`},
		"another source":         {func(r *MoveRequest) { r.SrcConditions.IfMatch = []string{b.ETag} }, fault.PreconditionFailed, `object "refused/a"`},
		"a weak source tag":      {func(r *MoveRequest) { r.SrcConditions.IfMatch = []string{"W/" + a.ETag} }, fault.PreconditionFailed, `object "refused/a"`},
		"a source that is known": {func(r *MoveRequest) { r.SrcConditions.IfNoneMatch = []string{"W/" + a.ETag} }, fault.PreconditionFailed, `object "refused/a"`},
		"a newer source":         {func(r *MoveRequest) { r.SrcConditions.IfUnmodifiedSince = hour }, fault.PreconditionFailed, `object "refused/a"`},
		"a target":               {func(r *MoveRequest) { r.Conditions.IfNoneMatch = []string{"*"} }, fault.PreconditionFailed, `object "refused/b"`},
		"another target":         {func(r *MoveRequest) { r.Conditions.IfMatch = []string{a.ETag} }, fault.PreconditionFailed, `object "refused/b"`},
		"no target":              {func(r *MoveRequest) { r.Key, r.Conditions.IfMatch = "c", []string{"*"} }, fault.PreconditionFailed, `object "refused/c"`},
	} {
		t.Run(name, func(t *testing.T) {
			req := MoveRequest{SrcBucket: "refused", SrcKey: "a", Bucket: "refused", Key: "b"}
			tc.change(&req)
			_, err := n.Move(testContext(t), req)
			wantFault(t, err, tc.kind, tc.subject)
		})
	}
	page, err := m.nodes[2].List(testContext(t), ListRequest{Bucket: "refused"})
	if err != nil || len(page.Objects) != 2 || page.Objects[0].ETag != a.ETag || page.Objects[1].ETag != b.ETag {
		t.Errorf("%+v, %v", page, err)
	}
}

// oneMover has 64 move one object to places of their own, through all nodes, of
// whom exactly one does; the bytes are at that one place, whole, and in the
// files that they were in. Whoever looks meanwhile finds it once.
func oneMover(t *testing.T, m *testMesh) {
	m.bucket("movers")
	ctx := testContext(t)
	for round, size := range []int{100, 2*testSegment + 7} {
		data := randomBytes(size)
		key := fmt.Sprintf("source-%d", round)
		m.nodes[round].put(t, "movers", key, data, true)
		before := m.files()
		const movers = 64
		errs := make([]error, movers)
		var all sync.WaitGroup
		done, begin := make(chan struct{}), make(chan struct{})
		looks := 0
		var looker sync.WaitGroup
		looker.Go(func() {
			for {
				page, err := m.nodes[looks%3].List(ctx, ListRequest{Bucket: "movers"})
				if err != nil || len(page.Objects) != round+1 {
					t.Errorf("a look at the bucket: %+v, %v", page, err)
				}
				looks++
				select {
				case <-done:
					return
				default:
				}
			}
		})
		for i := range movers {
			all.Go(func() {
				<-begin
				_, errs[i] = m.nodes[i%3].Move(ctx, MoveRequest{SrcBucket: "movers", SrcKey: key, Bucket: "movers", Key: fmt.Sprintf("to-%d-%d", round, i)})
			})
		}
		close(begin)
		all.Wait()
		close(done)
		looker.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("%d and %d have moved it", winner, i)
			case err == nil:
				winner = i
			case fault.KindOf(err) != fault.ObjectNotFound:
				t.Errorf("%d: %v", i, err)
			}
		}
		page, err := m.nodes[2].List(ctx, ListRequest{Bucket: "movers", Prefix: fmt.Sprintf("to-%d-", round)})
		if err != nil || len(page.Objects) != 1 || page.Objects[0].Key != fmt.Sprintf("to-%d-%d", round, winner) {
			t.Fatalf("%d has moved it, and there is %+v, %v", winner, page, err)
		}
		for _, n := range m.nodes {
			if got := n.get(t, "movers", page.Objects[0].Key, -1, 0); !bytes.Equal(got, data) {
				t.Errorf("%s: other bytes", n.name)
			}
			n.wantGone(t, "movers", key)
		}
		m.reclaimNow(t)
		if after := m.files(); !slices.Equal(after, before) {
			t.Errorf("the files were %s, and are %s", strings.Join(before, " "), strings.Join(after, " "))
		}
		t.Logf("%d bytes: %d has moved it, seen %d times meanwhile", size, winner, looks)
	}
}
