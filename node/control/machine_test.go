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

	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// applier is a group's machine on its store, as one node has it.
type applier struct {
	group replica.GroupID
	fs    vfs.FS
	store *disk.Store
	m     *machine
	batch *pebble.Batch // what is applied and not committed yet; nil: nothing
	feed  iamFeed
	sizes disk.Options // zero: small ones

	looks  bool // it has an iterator over what was before the batch, as a state has
	before *pebble.Iterator
}

// newApplier makes one where a mesh begins, of one founder.
func newApplier(t require, group replica.GroupID, fs vfs.FS) *applier {
	t.Helper()
	a := &applier{group: group, fs: fs}
	a.open(t)
	s := &state{group: group, store: &openStore{Store: a.store, refs: 1}, machine: a.m, changed: make(chan struct{})}
	if err := s.bootstrap(nil, []Node{{Name: "n0", RaftID: 1}}); err != nil {
		t.Fatal(err)
	}
	s.close()
	a.open(t)
	return a
}

// require is what testing.T and rapid.T have in common here.
type require interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func (a *applier) open(t require) {
	t.Helper()
	var err error
	if a.sizes == (disk.Options{}) {
		a.sizes = disk.Options{CacheBytes: 1 << 20, MemTableBytes: 1 << 20, Comparer: rowOrder}
	}
	if a.store, err = disk.Open(a.fs, "state/1", a.sizes, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if a.m, err = loadMachine(a.group, a.store); err != nil {
		t.Fatal(err)
	}
	a.feed.show(&a.m.iam)
}

func (a *applier) apply(t require, e *entry) *outcome {
	t.Helper()
	if a.batch == nil {
		a.batch = a.store.NewIndexedBatch()
		if a.looks {
			var err error
			if a.before, err = a.store.NewIter(&pebble.IterOptions{UseL6Filters: true}); err != nil {
				t.Fatal(err)
			}
			a.m.look(a.before)
		}
	}
	out, err := a.m.apply(a.batch, e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// next is apply of a command as the next entry.
func (a *applier) next(t require, stamp int64, c *Command) *outcome {
	t.Helper()
	c = complete(c)
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	if a.group != systemGroup {
		c.Slots = a.m.slots.Epoch
	}
	return a.apply(t, &entry{Index: a.m.meta.Applied + 1, Term: 1, Stamp: stamp, Command: c})
}

func (a *applier) commit(t require) {
	t.Helper()
	if a.batch == nil {
		return
	}
	if err := errors.Join(a.m.seal(a.batch), a.batch.Commit(pebble.NoSync), a.batch.Close()); err != nil {
		t.Fatal(err)
	}
	a.batch = nil
	if a.before != nil {
		a.m.look(nil)
		if err := a.before.Close(); err != nil {
			t.Fatal(err)
		}
		a.before = nil
	}
	a.feed.show(&a.m.iam)
}

func (a *applier) close(t require) {
	t.Helper()
	a.commit(t)
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// ask answers a query from what is committed.
func (a *applier) ask(q *Query) (*Answer, error) {
	q.Version = QueryVersion
	if err := q.validate(); err != nil {
		return nil, err
	}
	v := &view{open: &openBuckets{}, rows: a.store.NewSnapshot(), store: &openStore{Store: a.store}, logTime: a.m.meta.LogTime, limited: a.m.totals.Limited, deployment: a.m.identity.Deployment, topology: a.m.topology}
	answer, err := v.answer(q)
	return answer, errors.Join(err, v.close())
}

func (a *applier) checksum(t require) uint64 {
	t.Helper()
	sum, err := checksum(a.store)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// Two nodes apply the same entries: one in its way, the other in batches of
// other sizes, over restarts, and with every command as it comes out of the
// log. They always agree with each other and with the model.
func TestMachine(t *testing.T) {
	for _, group := range []replica.GroupID{systemGroup, dataGroup} {
		t.Run(groupName(group), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkMachine(t, group) })
		})
	}
}

func checkMachine(t *rapid.T, group replica.GroupID) {
	a, b := newApplier(t, group, vfs.NewMem()), newApplier(t, group, vfs.NewMem())
	defer func() { a.close(t); b.close(t) }()
	a.looks = true
	m := newModel(group)
	g := &commands{m: m, clock: int64(100 * time.Hour)}
	compare := func() {
		a.commit(t)
		b.commit(t)
		if x, y := a.checksum(t), b.checksum(t); x != y {
			t.Fatalf("at %d the states differ: %x and %x", m.applied, x, y)
		}
		for _, node := range []*applier{a, b} {
			if diff := sameRows(m.iam.rows(), node.feed.now()); diff != "" {
				t.Fatalf("users and keys (-want +got):\n%s", diff)
			}
		}
		m.compare(t, a)
	}
	step := func(t *rapid.T) {
		e := g.draw(t)
		want := m.apply(e)
		first, second := a.apply(t, e), b.apply(t, logged(t, e))
		if diff := gocmp.Diff(first, second, allowUnexported); diff != "" {
			t.Fatalf("the nodes' outcomes differ:\n%s", diff)
		}
		if first != nil {
			seen := *first
			seen.Subject, seen.Detail = "", ""
			first = &seen
		}
		if diff := gocmp.Diff(want, first, allowUnexported); diff != "" {
			t.Fatalf("%+v: not what the model says:\n%s", e.Command, diff)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"apply":        step,
		"apply more":   step,
		"commit one":   func(t *rapid.T) { a.commit(t) },
		"commit other": func(t *rapid.T) { b.commit(t) },
		"restart": func(t *rapid.T) {
			if rapid.IntRange(0, 3).Draw(t, "restart") > 0 {
				return // they are what takes the time
			}
			b.close(t)
			b.open(t)
		},
		"compare": func(t *rapid.T) { compare() },
	})
	compare()
}

var allowUnexported = gocmp.AllowUnexported(outcome{})

// logged is an entry as it comes out of a log.
func logged(t require, e *entry) *entry {
	t.Helper()
	in := &replica.Entry{Index: e.Index, Term: e.Term, Conf: e.Conf}
	if e.Command != nil {
		var err error
		if in.Data, err = encodeEntry(e.Stamp, e.Command); err != nil {
			t.Fatal(err)
		}
	}
	out, err := decodeEntry(in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What was refused once is refused again, for as long as anybody may retry:
// otherwise a command could be carried out after its caller was told no.
func TestRefusalsAreRemembered(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	stamp := int64(1)
	do := func(c Command, id byte) *outcome {
		c.RequestID = [16]byte{id}
		return a.next(t, stamp, &c)
	}
	create := Command{CreateBucket: &CreateBucket{Name: "b", ID: [16]byte{1}}}
	drain := Command{MarkNode: &MarkNode{Node: "n1", Drain: true}}
	if out := do(drain, 1); fault.Kind(out.Kind) != fault.NotFound {
		t.Fatalf("%+v", out)
	}
	do(Command{AdmitNode: &AdmitNode{Node: "n1", URL: "u"}}, 2)
	stamp += int64(replyWindow)
	if out := do(drain, 1); fault.Kind(out.Kind) != fault.NotFound {
		t.Fatalf("the retry had an outcome of its own: %+v", out)
	}
	stamp++
	if out := do(drain, 1); out.Refused {
		t.Fatalf("remembered for longer than the window: %+v", out)
	}
	// Everything that is over the window is forgotten in the end.
	stamp += int64(2 * replyWindow)
	for id := byte(10); id < 20; id++ {
		do(create, id)
	}
	a.commit(t)
	rows := 0
	for _, kind := range []byte{kindReply, kindIssued} {
		if err := scan(a.store, []byte{kind}, func(_, _ []byte) error { rows++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if rows != 2*10 {
		t.Errorf("%d rows for 10 remembered commands", rows)
	}
}

// What was led by another slot table isn't decided: it may come again, led by
// the present one.
func TestSlotsThatMoved(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	cmd := complete(putOf(&Bucket{Name: "b", ID: [16]byte{1}}, "k", "e"))
	for slots, want := range []fault.Kind{fault.Waiting, 0, 0} {
		cmd.Slots = uint64(slots)
		out := a.apply(t, &entry{Index: a.m.meta.Applied + 1, Stamp: 1, Command: cmd})
		if fault.Kind(out.Kind) != want {
			t.Errorf("led by epoch %d: %+v", slots, out)
		}
	}
}

// A log from a newer program ends the index instead of being guessed at, and
// so does an entry out of its order, or one that isn't what was written.
func TestApplyRefusesWhatItCantKnow(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	b := a.store.NewIndexedBatch()
	defer b.Close()
	cmd := complete(&Command{ForgetNode: &ForgetNode{Node: "n1"}})
	if _, err := a.m.apply(b, &entry{Index: 3, Command: cmd}); err == nil || !strings.Contains(err.Error(), "entry 3 after entry 1") {
		t.Errorf("an entry out of order: %v", err)
	}
	cmd.Version = 9
	_, err := a.m.apply(b, &entry{Index: 2, Command: cmd})
	if err == nil || !strings.Contains(err.Error(), "command version 9 is not known here") {
		t.Errorf("a newer command: %v", err)
	}
	if _, refused := refusal(err); refused {
		t.Error("a newer command in the log is not the proposer's fault")
	}
	for _, data := range [][]byte{{1}, {0, 0, 0, 0, 0, 0, 0, 1}, []byte("12345678\xc1"), append([]byte("12345678"), 0x80, 0x80)} {
		if _, err := decodeEntry(&replica.Entry{Index: 7, Data: data}); err == nil || !strings.Contains(err.Error(), "entry 7") {
			t.Errorf("%q is an entry: %v", data, err)
		}
	}
}

// A command of many keys is carried out in steps of a bounded size.
func TestLargeDeletesAreLeft(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	bucket := [16]byte{1}
	var keys []string
	for i := range 7 {
		rec := Record{Key: fmt.Sprint("k", i), ETag: "e"}
		for range MaxSegments {
			rec.Segments = append(rec.Segments, Segment{ID: randomID(), SizeBytes: 1, Drives: []string{"d"}})
		}
		rec.SizeBytes = MaxSegments
		if out := a.next(t, 1, &Command{PutRecord: &PutRecord{BucketName: "b", BucketID: bucket, Record: rec, Birth: 1}}); out.Refused {
			t.Fatalf("%+v", out)
		}
		keys = append(keys, rec.Key)
	}
	cmd := &Command{DeleteRecords: &DeleteRecords{Bucket: "b", BucketID: bucket, Keys: append(keys, "missing")}}
	out := a.next(t, 1, cmd)
	if want := []byte{1, 1, 1, 1, 1, 2, 2, 2}; !bytes.Equal(out.Fates, want) {
		t.Errorf("fates %v, want %v", out.Fates, want)
	}
	_, rest, err := out.result(cmd)
	if err != nil || !slices.Equal(rest.DeleteRecords.Keys, []string{"k5", "k6", "missing"}) {
		t.Errorf("left %+v, %v", rest, err)
	}
}

// A mesh of as many nodes as there may be takes no more, and still lets those
// it has change.
func TestManyNodes(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	full := &Topology{}
	for i := range maxNodes {
		full.Nodes = append(full.Nodes, Node{Name: fmt.Sprint("n", i)})
	}
	a.m.topology = full
	if out := a.next(t, 1, &Command{AdmitNode: &AdmitNode{Node: "more", URL: "u"}}); fault.Kind(out.Kind) != fault.QuotaExceeded {
		t.Errorf("one too many: %+v", out)
	}
	if out := a.next(t, 1, &Command{JoinNode: &JoinNode{Node: "n0", URL: "v"}}); out.Refused {
		t.Errorf("a known one: %+v", out)
	}
}
