package object

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/fault"
)

// TestModel does random things through random nodes, and compares what comes
// back with a map. Garbage is collected in between.
func TestModel(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}, options: func(_ int, o *Options) {
		o.SegmentBytes, o.ReclaimGrace, o.Replicas = modelSegment, time.Nanosecond, 2
	}})
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		bucket := fmt.Sprintf("run-%d", run)
		if _, err := m.nodes[0].CreateBucket(testContext(t), bucket); err != nil {
			rt.Fatal(err)
		}
		mm := &model{m: m, t: t, bucket: bucket, objects: map[string][]byte{}}
		rt.Repeat(map[string]func(*rapid.T){
			"put":     mm.put,
			"cut":     mm.cut,
			"get":     mm.get,
			"delete":  mm.delete,
			"many":    mm.deleteMany,
			"copy":    mm.copy,
			"move":    mm.move,
			"list":    mm.list,
			"reclaim": mm.reclaim,
		})
		mm.check(rt)
		mm.empty(rt)
	})
}

// modelSegment is small and no multiple of anything.
const modelSegment = 300_001

type model struct {
	m       *testMesh
	t       *testing.T
	bucket  string
	objects map[string][]byte
	serial  int // makes contents differ
}

func (mm *model) ctx() context.Context { return testContext(mm.t) }

func (mm *model) node(rt *rapid.T) *testNode {
	return mm.m.nodes[rapid.IntRange(0, 2).Draw(rt, "node")]
}

func (mm *model) key(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "a/b", "a/c", "b", "b/é", "c d"}).Draw(rt, "key")
}

func (mm *model) data(rt *rapid.T) []byte {
	size := rapid.SampledFrom([]int{0, 1, 100, InlineMaxBytes, InlineMaxBytes + 1, 50_000,
		GridMaxBytes, GridMaxBytes + 1, modelSegment, modelSegment + 1, 2*modelSegment + 3}).Draw(rt, "size")
	mm.serial++
	data := randomBytes(size)
	copy(data, fmt.Sprint(mm.serial))
	return data
}

// conditions draws conditions, and says whether they hold for what is there.
func (mm *model) conditions(rt *rapid.T, key string) (Conditions, bool) {
	data, there := mm.objects[key]
	switch rapid.IntRange(0, 5).Draw(rt, "conditions") {
	case 0:
		return Conditions{IfNoneMatch: []string{"*"}}, !there
	case 1:
		return Conditions{IfMatch: []string{"*"}}, there
	case 2:
		return Conditions{IfMatch: []string{shaHex(data)}}, there
	case 3:
		return Conditions{IfNoneMatch: []string{"W/" + shaHex(data)}}, !there
	}
	return Conditions{}, true
}

func (mm *model) put(rt *rapid.T) {
	key, data := mm.key(rt), mm.data(rt)
	c, ok := mm.conditions(rt, key)
	req := PutRequest{Bucket: mm.bucket, Key: key, SizeBytes: -1, Conditions: c}
	if rapid.Bool().Draw(rt, "known") {
		req.SizeBytes = int64(len(data))
	}
	info, err := mm.node(rt).Put(mm.ctx(), req, bytes.NewReader(data), nil)
	switch {
	case !ok:
		if fault.KindOf(err) != fault.PreconditionFailed {
			rt.Fatalf("put %s with %+v: %v", key, c, err)
		}
	case err != nil:
		rt.Fatalf("put %s of %d bytes with %+v: %v", key, len(data), c, err)
	case info.ETag != shaHex(data):
		rt.Fatalf("put %s: %+v", key, info)
	default:
		mm.objects[key] = data
	}
}

func (mm *model) cut(rt *rapid.T) {
	data := mm.data(rt)
	body := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(io.ErrUnexpectedEOF))
	_, err := mm.node(rt).Put(mm.ctx(), PutRequest{Bucket: mm.bucket, Key: mm.key(rt), SizeBytes: -1}, body, nil)
	if fault.KindOf(err) != fault.IncompleteBody {
		rt.Fatalf("cut at %d: %v", len(data), err)
	}
}

func (mm *model) get(rt *rapid.T) {
	key, n := mm.key(rt), mm.node(rt)
	data, there := mm.objects[key]
	off := rapid.IntRange(0, len(data)).Draw(rt, "off")
	end := rapid.IntRange(off, len(data)).Draw(rt, "end")
	got, err := n.read(mm.ctx(), mm.bucket, key, int64(off), int64(end-off))
	switch {
	case !there && fault.KindOf(err) != fault.ObjectNotFound:
		rt.Fatalf("get %s, which isn't there: %v", key, err)
	case there && (err != nil || !bytes.Equal(got, data[off:end])):
		rt.Fatalf("get %s %d-%d: %d bytes, %v", key, off, end, len(got), err)
	}
}

func (mm *model) delete(rt *rapid.T) {
	key := mm.key(rt)
	c, ok := mm.conditions(rt, key)
	_, there := mm.objects[key]
	err := mm.node(rt).Delete(mm.ctx(), mm.bucket, key, c)
	switch {
	case !there:
		if fault.KindOf(err) != fault.ObjectNotFound {
			rt.Fatalf("delete %s, which isn't there: %v", key, err)
		}
	case !ok:
		if fault.KindOf(err) != fault.PreconditionFailed {
			rt.Fatalf("delete %s with %+v: %v", key, c, err)
		}
	case err != nil:
		rt.Fatalf("delete %s with %+v: %v", key, c, err)
	default:
		delete(mm.objects, key)
	}
}

func (mm *model) deleteMany(rt *rapid.T) {
	keys := rapid.SliceOfNDistinct(rapid.Custom(mm.key), 1, 6, rapid.ID[string]).Draw(rt, "keys")
	var wantDeleted, wantMissing []string
	for _, key := range keys {
		if _, there := mm.objects[key]; there {
			wantDeleted = append(wantDeleted, key)
		} else {
			wantMissing = append(wantMissing, key)
		}
		delete(mm.objects, key)
	}
	deleted, missing, err := mm.node(rt).DeleteMany(mm.ctx(), mm.bucket, keys)
	if err != nil || !slices.Equal(deleted, wantDeleted) || !slices.Equal(missing, wantMissing) {
		rt.Fatalf("delete %q: %q, %q, %v", keys, deleted, missing, err)
	}
}

func (mm *model) copy(rt *rapid.T) {
	from, to := mm.key(rt), mm.key(rt)
	c, ok := mm.conditions(rt, to)
	data, there := mm.objects[from]
	_, err := mm.node(rt).Copy(mm.ctx(), CopyRequest{SrcBucket: mm.bucket, SrcKey: from, Bucket: mm.bucket, Key: to, Conditions: c})
	switch {
	case !there:
		if fault.KindOf(err) != fault.ObjectNotFound {
			rt.Fatalf("copy %s, which isn't there: %v", from, err)
		}
	case !ok:
		if fault.KindOf(err) != fault.PreconditionFailed {
			rt.Fatalf("copy %s to %s with %+v: %v", from, to, c, err)
		}
	case err != nil:
		rt.Fatalf("copy %s to %s: %v", from, to, err)
	default:
		mm.objects[to] = data
	}
}

func (mm *model) move(rt *rapid.T) {
	from, to := mm.key(rt), mm.key(rt)
	src, srcOK := mm.conditions(rt, from)
	dst, dstOK := mm.conditions(rt, to)
	data, there := mm.objects[from]
	info, err := mm.node(rt).Move(mm.ctx(), MoveRequest{
		SrcBucket: mm.bucket, SrcKey: from, SrcConditions: src, Bucket: mm.bucket, Key: to, Conditions: dst,
	})
	_, replaced := mm.objects[to]
	want := fault.Internal // none
	switch {
	case from == to:
		want = fault.InvalidArgument
	case !there:
		want = fault.ObjectNotFound
	case !srcOK || !dstOK:
		want = fault.PreconditionFailed
	}
	switch {
	case want != fault.Internal:
		if fault.KindOf(err) != want {
			rt.Fatalf("move %s with %+v to %s with %+v: %v, want %v", from, src, to, dst, err, want)
		}
	case err != nil || info.Key != to || info.ETag != shaHex(data) || info.Replaced != replaced:
		rt.Fatalf("move %s to %s: %+v, %v", from, to, info, err)
	default:
		delete(mm.objects, from)
		mm.objects[to] = data
	}
}

func (mm *model) list(rt *rapid.T) {
	prefix := rapid.SampledFrom([]string{"", "a", "a/", "b", "x"}).Draw(rt, "prefix")
	delimiter := rapid.SampledFrom([]string{"", "/"}).Draw(rt, "delimiter")
	want := map[string]bool{}
	for key := range mm.objects {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			if i := strings.Index(rest, "/"); delimiter != "" && i >= 0 {
				key = prefix + rest[:i+1]
			}
			want[key] = true
		}
	}
	var got []string
	req := ListRequest{Bucket: mm.bucket, Prefix: prefix, Delimiter: delimiter, Limit: rapid.IntRange(1, 4).Draw(rt, "limit")}
	for range 10 {
		page, err := mm.node(rt).List(mm.ctx(), req)
		if err != nil {
			rt.Fatal(err)
		}
		for _, o := range page.Objects {
			got = append(got, o.Key)
		}
		got = append(got, page.CommonPrefixes...)
		if req.Token = page.NextToken; req.Token == "" {
			break
		}
	}
	slices.Sort(got)
	if w := slices.Sorted(maps.Keys(want)); !slices.Equal(got, w) {
		rt.Fatalf("list %q %q: %q, want %q", prefix, delimiter, got, w)
	}
}

func (mm *model) reclaim(rt *rapid.T) {
	for _, n := range mm.m.nodes {
		for _, d := range n.drives {
			if err := n.Service.reclaim(mm.ctx(), d); err != nil {
				rt.Fatal(err)
			}
		}
	}
}

// check reads everything.
func (mm *model) check(rt *rapid.T) {
	for key, data := range mm.objects {
		n := mm.m.nodes[len(data)%3]
		var buf bytes.Buffer
		r, err := n.Open(mm.ctx(), mm.bucket, key, Conditions{}, 0)
		if err != nil {
			rt.Fatalf("open %s: %v", key, err)
		}
		if _, err := r.Send(mm.ctx(), &buf, 0, -1, dataio.Windows{}); err != nil || !bytes.Equal(buf.Bytes(), data) {
			rt.Fatalf("get %s: %d of %d bytes, %v", key, buf.Len(), len(data), err)
		}
	}
}

// empty removes what is left, and checks that no file outlives its record.
func (mm *model) empty(rt *rapid.T) {
	for key := range mm.objects {
		if err := mm.m.nodes[0].Delete(mm.ctx(), mm.bucket, key, Conditions{}); err != nil {
			rt.Fatal(err)
		}
	}
	if err := mm.m.nodes[0].DeleteBucket(mm.ctx(), mm.bucket); err != nil {
		rt.Fatal(err)
	}
	mm.reclaim(rt)
	if files := mm.m.files(); len(files) != 0 {
		rt.Fatalf("%d files are left: %v", len(files), files)
	}
}
