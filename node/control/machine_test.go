package control

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/fault"
)

// replica is a machine on its store, as one node has it.
type replica struct {
	fs    vfs.FS
	store *store
	m     *machine
	batch *pebble.Batch // what is applied and not committed yet; nil: nothing
}

func newReplica(t require, fs vfs.FS) *replica {
	r := &replica{fs: fs}
	r.open(t)
	return r
}

// require is what testing.T and rapid.T have in common here.
type require interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func (r *replica) open(t require) {
	t.Helper()
	var err error
	if r.store, err = openStore(r.fs, "state", true, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if r.m, err = loadMachine(r.store.db); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) apply(t require, e *entry) *outcome {
	t.Helper()
	if r.batch == nil {
		r.batch = r.store.db.NewIndexedBatch()
	}
	out, err := r.m.apply(r.batch, e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *replica) commit(t require) {
	t.Helper()
	if r.batch == nil {
		return
	}
	if err := errors.Join(r.m.seal(r.batch), r.batch.Commit(pebble.NoSync), r.batch.Close()); err != nil {
		t.Fatal(err)
	}
	r.batch = nil
}

func (r *replica) close(t require) {
	t.Helper()
	r.commit(t)
	if err := r.store.close(); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) view() *view {
	return &view{rows: r.store.db, logTime: r.m.meta.LogTime, deployment: r.m.identity.Deployment, topology: r.m.topology}
}

func (r *replica) checksum(t require) uint64 {
	t.Helper()
	sum, err := checksum(r.store.db)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// commands draws commands over few names, so that they meet.
type commands struct {
	m     *model
	clock int64
	ids   int
}

func (g *commands) draw(t *rapid.T) *entry {
	switch rapid.IntRange(0, 9).Draw(t, "time") {
	case 0:
		g.clock -= int64(rapid.IntRange(0, 300).Draw(t, "back")) * int64(time.Second)
	case 1:
		g.clock += int64(rapid.IntRange(0, 30).Draw(t, "ahead")) * int64(time.Minute)
	default:
		g.clock += int64(rapid.IntRange(0, 40).Draw(t, "on")) * int64(time.Second)
	}
	g.ids++
	id := g.ids
	if g.ids > 1 && rapid.IntRange(0, 5).Draw(t, "retry") == 0 {
		id = rapid.IntRange(max(1, g.ids-20), g.ids-1).Draw(t, "of")
	}
	c := &Command{Version: CommandVersion, RequestID: [16]byte{byte(id >> 8), byte(id), 1}}
	g.fill(t, c)
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	return &entry{Index: g.m.applied + 1, Stamp: g.clock, Command: c}
}

func (g *commands) fill(t *rapid.T, c *Command) {
	bucket := rapid.SampledFrom([]string{"one", "two"}).Draw(t, "bucket")
	keys := rapid.SampledFrom([]string{"a", "a/b", "a/c", "ab", "b"})
	drives := rapid.SampledFrom([]string{"d1", "d2", "d3"})
	tags := rapid.SampledFrom([][]string{nil, nil, nil, nil, {"*"}, {"e1"}, {"e2", "e3"}})
	since := rapid.Custom(func(t *rapid.T) int64 {
		return rapid.SampledFrom([]int64{0, 0, 0, g.m.logTime/1e9 - 60, g.m.logTime / 1e9}).Draw(t, "since")
	})
	switch kind := rapid.IntRange(0, 11).Draw(t, "kind"); kind {
	case 0:
		c.Init = &Init{Deployment: fmt.Sprint("mesh", rapid.IntRange(0, 1).Draw(t, "mesh"))}
	case 1:
		c.CreateBucket = &CreateBucket{Name: bucket, ID: [16]byte{1, byte(g.ids >> 8), byte(g.ids)}}
	case 2:
		c.DeleteBucket = &DeleteBucket{Name: bucket}
	case 3, 4:
		c.DeleteRecords = &DeleteRecords{Bucket: bucket, Keys: rapid.SliceOfNDistinct(keys, 1, 4, rapid.ID).Draw(t, "keys")}
		if len(c.DeleteRecords.Keys) == 1 {
			c.DeleteRecords.IfMatch, c.DeleteRecords.IfUnmodifiedSince = tags.Draw(t, "match"), since.Draw(t, "since")
		}
	case 5:
		c.JoinNode = &JoinNode{
			Node:   rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"),
			URL:    rapid.SampledFrom([]string{"", "http://x"}).Draw(t, "url"),
			Drives: rapid.SliceOfNDistinct(drives, 0, 2, rapid.ID).Draw(t, "drives"),
		}
	case 6, 7:
		c.Reclaim = &Reclaim{Entries: []Garbage{{Drive: "d1", LogTime: 1, ID: [16]byte{9}}}}
		for range rapid.IntRange(0, min(3, len(g.m.garbage))).Draw(t, "entries") {
			c.Reclaim.Entries = append(c.Reclaim.Entries, rapid.SampledFrom(g.m.garbage).Draw(t, "entry"))
		}
	default:
		c.PutRecord = g.put(t, bucket, keys, drives, tags, since)
	}
}

func (g *commands) put(t *rapid.T, bucket string, keys, drives *rapid.Generator[string], tags *rapid.Generator[[]string], since *rapid.Generator[int64]) *PutRecord {
	rec := Record{
		Key:      keys.Draw(t, "key"),
		ETag:     rapid.SampledFrom([]string{"e1", "e2"}).Draw(t, "etag"),
		Metadata: rapid.MapOfN(rapid.StringMatching("[a-z]"), rapid.StringMatching("[a-z]?"), 0, 4).Draw(t, "metadata"),
	}
	old := g.m.records[g.m.buckets[bucket].ID][rec.Key]
	switch shape := rapid.IntRange(0, 5).Draw(t, "shape"); {
	case shape == 0 && len(old.Segments) > 0: // hands some of its segments on
		rec.Segments = old.Segments[:rapid.IntRange(1, len(old.Segments)).Draw(t, "kept")]
		for _, s := range rec.Segments {
			rec.SizeBytes += s.SizeBytes
		}
	case shape <= 1:
		rec.Inline = rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "payload")
		rec.SizeBytes = int64(len(rec.Inline))
	default:
		for _, id := range rapid.SliceOfNDistinct(rapid.IntRange(0, 15), 1, 3, rapid.ID).Draw(t, "segments") {
			rec.Segments = append(rec.Segments, Segment{ID: [16]byte{byte(id)}, SizeBytes: int64(id + 1), Drives: rapid.SliceOfNDistinct(drives, 1, 3, rapid.ID).Draw(t, "on")})
			rec.SizeBytes += int64(id + 1)
		}
	}
	id := g.m.buckets[bucket].ID
	if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
		id = [16]byte{1, 0, 1}
	}
	birth := g.m.logTime - int64(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 1, 59, 61, -61}).Draw(t, "age"))*int64(time.Minute)
	return &PutRecord{
		BucketName: bucket, BucketID: id, Record: rec, Birth: max(birth, 1),
		IfMatch: tags.Draw(t, "match"), IfNoneMatch: tags.Draw(t, "none"), IfUnmodifiedSince: since.Draw(t, "since"),
	}
}

// Two replicas apply the same commands: one in its way, the other in batches
// of other sizes, over restarts, and with every command as it comes out of
// the log. They always agree with each other and with the model.
func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := newReplica(t, vfs.NewMem()), newReplica(t, vfs.NewMem())
		defer func() { a.close(t); b.close(t) }()
		m := newModel()
		g := &commands{m: m, clock: int64(100 * time.Hour)}
		compare := func() {
			a.commit(t)
			b.commit(t)
			if x, y := a.checksum(t), b.checksum(t); x != y {
				t.Fatalf("at %d the states differ: %x and %x", m.applied, x, y)
			}
			m.compare(t, a.view())
		}
		step := func(t *rapid.T, e *entry) {
			want := m.apply(e)
			first, second := a.apply(t, e), b.apply(t, logged(t, e))
			if diff := gocmp.Diff(first, second, allowUnexported); diff != "" {
				t.Fatalf("the replicas' outcomes differ:\n%s", diff)
			}
			seen := *first
			seen.Subject, seen.Detail = "", ""
			if diff := gocmp.Diff(want, &seen, allowUnexported); diff != "" {
				t.Fatalf("%+v: not what the model says:\n%s", e.Command, diff)
			}
		}
		for i, name := range []string{"one", "two"} {
			step(t, &entry{Index: m.applied + 1, Stamp: g.clock, Command: complete(&Command{CreateBucket: &CreateBucket{Name: name, ID: [16]byte{1, 0, byte(i)}}})})
		}
		t.Repeat(map[string]func(*rapid.T){
			"apply":        func(t *rapid.T) { step(t, g.draw(t)) },
			"apply more":   func(t *rapid.T) { step(t, g.draw(t)) },
			"commit one":   func(t *rapid.T) { a.commit(t) },
			"commit other": func(t *rapid.T) { b.commit(t) },
			"restart": func(t *rapid.T) {
				b.close(t)
				b.open(t)
			},
			"compare": func(t *rapid.T) { compare() },
		})
		compare()
	})
}

var allowUnexported = gocmp.AllowUnexported(outcome{})

// logged is an entry as it comes out of a log.
func logged(t require, e *entry) *entry {
	t.Helper()
	b, err := e.Command.MarshalMsg(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := new(Command)
	if _, err := c.UnmarshalMsg(b); err != nil {
		t.Fatal(err)
	}
	return &entry{Index: e.Index, Stamp: e.Stamp, Command: c}
}

// What was refused once is refused again, for as long as anybody may retry:
// otherwise a command could be carried out after its caller was told no.
func TestRefusalsAreRemembered(t *testing.T) {
	r := newReplica(t, vfs.NewMem())
	defer r.close(t)
	index, stamp := uint64(0), int64(1)
	do := func(c Command, id byte) *outcome {
		index++
		c.Version, c.RequestID = CommandVersion, [16]byte{id}
		return r.apply(t, &entry{Index: index, Stamp: stamp, Command: &c})
	}
	create := Command{CreateBucket: &CreateBucket{Name: "b", ID: [16]byte{1}}}
	remove := Command{DeleteBucket: &DeleteBucket{Name: "b"}}
	if out := do(remove, 1); fault.Kind(out.Kind) != fault.BucketNotFound {
		t.Fatalf("%+v", out)
	}
	do(create, 2)
	stamp += int64(replyWindow)
	if out := do(remove, 1); fault.Kind(out.Kind) != fault.BucketNotFound {
		t.Fatalf("the retry had an outcome of its own: %+v", out)
	}
	stamp++
	if out := do(remove, 1); out.Refused {
		t.Fatalf("remembered for longer than the window: %+v", out)
	}
	// Everything that is over the window is forgotten in the end.
	stamp += int64(2 * replyWindow)
	for id := byte(10); id < 20; id++ {
		do(create, id)
	}
	r.commit(t)
	rows := 0
	for _, kind := range []byte{kindReply, kindIssued} {
		if err := scan(r.store.db, []byte{kind}, func(_, _ []byte) error { rows++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if rows != 2*10 {
		t.Errorf("%d rows for 10 remembered commands", rows)
	}
}

// A log from a newer program ends the index instead of being guessed at, and
// so does an entry out of its order.
func TestApplyRefusesWhatItCantKnow(t *testing.T) {
	r := newReplica(t, vfs.NewMem())
	defer r.close(t)
	b := r.store.db.NewIndexedBatch()
	defer b.Close()
	cmd := complete(&Command{DeleteBucket: &DeleteBucket{Name: "b"}})
	if _, err := r.m.apply(b, &entry{Index: 2, Command: cmd}); err == nil || !strings.Contains(err.Error(), "entry 2 after entry 0") {
		t.Errorf("an entry out of order: %v", err)
	}
	cmd.Version = 9
	_, err := r.m.apply(b, &entry{Index: 1, Command: cmd})
	if err == nil || !strings.Contains(err.Error(), "command version 9 is not known here") {
		t.Errorf("a newer command: %v", err)
	}
	if _, refused := refusal(err); refused {
		t.Error("a newer command in the log is not the proposer's fault")
	}
}

// A command of many keys is carried out in steps of a bounded size.
func TestLargeDeletesAreLeft(t *testing.T) {
	r := newReplica(t, vfs.NewMem())
	defer r.close(t)
	index := uint64(0)
	do := func(c *Command) *outcome {
		index++
		c = complete(c)
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		return r.apply(t, &entry{Index: index, Stamp: 1, Command: c})
	}
	bucket := do(&Command{CreateBucket: &CreateBucket{Name: "b"}}).Bucket.ID
	var keys []string
	for i := range 7 {
		rec := Record{Key: fmt.Sprint("k", i), ETag: "e"}
		for range MaxSegments {
			rec.Segments = append(rec.Segments, Segment{ID: randomID(), SizeBytes: 1, Drives: []string{"d"}})
		}
		rec.SizeBytes = MaxSegments
		if out := do(&Command{PutRecord: &PutRecord{BucketName: "b", BucketID: bucket, Record: rec, Birth: 1}}); out.Refused {
			t.Fatalf("%+v", out)
		}
		keys = append(keys, rec.Key)
	}
	cmd := &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: append(keys, "missing")}}
	out := do(cmd)
	if want := []byte{1, 1, 1, 1, 1, 2, 2, 2}; !bytes.Equal(out.Fates, want) {
		t.Errorf("fates %v, want %v", out.Fates, want)
	}
	_, left, err := out.result(cmd)
	if err != nil || !slices.Equal(left, []string{"k5", "k6", "missing"}) {
		t.Errorf("left %q, %v", left, err)
	}
}

// A mesh of as many nodes as there may be takes no more, and still lets those
// it has change.
func TestManyNodes(t *testing.T) {
	r := newReplica(t, vfs.NewMem())
	defer r.close(t)
	join := func(i int, url string) *outcome {
		c := complete(&Command{JoinNode: &JoinNode{Node: fmt.Sprint("n", i), URL: url}})
		return r.apply(t, &entry{Index: r.m.meta.Applied + 1, Stamp: 1, Command: c})
	}
	full := &Topology{}
	for i := range maxNodes {
		full.Nodes = append(full.Nodes, Node{Name: fmt.Sprint("n", i)})
	}
	r.m.topology = full
	if out := join(maxNodes, ""); fault.Kind(out.Kind) != fault.QuotaExceeded {
		t.Errorf("one too many: %+v", out)
	}
	if out := join(0, "v"); out.Refused {
		t.Errorf("a known one: %+v", out)
	}
}
