package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// load is puts that go on while things happen. Every writer has its keys, and
// every one of a key's ETags is greater than the one before.
type load struct {
	t       *testing.T
	bucket  *Bucket
	stop    context.CancelFunc
	writers sync.WaitGroup
	from    int // of the ETags

	mu       sync.Mutex // guards what follows
	acked    map[string]string
	unknown  int
	gap      time.Duration // the longest between two acknowledgements
	last     time.Time
	refusals []error
}

// startLoad lets two writers put through each of the nodes.
func startLoad(t *testing.T, nodes ...*Control) *load {
	t.Helper()
	l := &load{t: t, bucket: createBucket(t, nodes[0], "load"), acked: map[string]string{}, last: time.Now()}
	l.again(nodes...)
	return l
}

// again goes on after check.
func (l *load) again(nodes ...*Control) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.stop = cancel
	l.t.Cleanup(func() { cancel(); l.writers.Wait() })
	from := l.from
	for i, c := range nodes {
		for w := range 2 {
			l.writers.Go(func() {
				for n := from; ctx.Err() == nil; n++ {
					l.put(ctx, c, fmt.Sprint(i, "-", w, "-", n%5), fmt.Sprintf("%06d", n))
					pause(100 * time.Millisecond)
				}
			})
		}
	}
	l.from += 1000
}

func (l *load) put(ctx context.Context, c *Control, key, etag string) {
	_, err := c.Propose(ctx, putOf(l.bucket, key, etag))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.acked[key] = etag
		l.gap = max(l.gap, time.Since(l.last))
		l.last = time.Now()
	case fault.KindOf(err) == fault.Unavailable:
		l.unknown++
	case fault.KindOf(err) == fault.Waiting || errors.Is(err, context.Canceled):
	default:
		l.refusals = append(l.refusals, err)
	}
}

// begun tells whether anything was acknowledged.
func (l *load) begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked) > 0
}

// check ends the load and looks for what was acknowledged at every node.
func (l *load) check(m *mesh) {
	l.t.Helper()
	l.stop()
	l.writers.Wait()
	if len(l.refusals) > 0 {
		l.t.Errorf("%d refusals, the first %v", len(l.refusals), l.refusals[0])
	}
	if len(l.acked) == 0 {
		l.t.Error("nothing was acknowledged")
	}
	for _, c := range m.running() {
		for key, etag := range l.acked {
			if got := etagOf(l.t, c, "load", key); got < etag {
				l.t.Errorf("node %s has %s with %s, acknowledged was %s", c.self, key, got, etag)
			}
		}
	}
	m.agree()
}

// A leader is lost again and again under load: nothing that was acknowledged
// is lost, and the next write is through within seconds.
func TestLeadersAreLost(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		l := startLoad(t, m.running()...)
		worst := time.Duration(0)
		for i := range 4 {
			pause(3 * time.Second)
			l.mu.Lock()
			l.gap = 0
			l.mu.Unlock()
			lost := m.index(m.leader(replica.GroupID(i % 2)))
			m.isolate(lost)
			pause(6 * time.Second)
			m.rejoin(lost)
			l.mu.Lock()
			worst = max(worst, l.gap)
			l.mu.Unlock()
		}
		pause(2 * time.Second)
		l.check(m)
		t.Logf("%d puts acknowledged last, %d unknown, longest gap %v", len(l.acked), l.unknown, worst)
		if worst > 4*time.Second {
			t.Errorf("nothing was acknowledged for %v", worst)
		}
	})
}

// A planned stop of the leader costs no election's timeout.
func TestLeadersStopInOrder(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		worst := time.Duration(0)
		for i := range 5 {
			leader := m.leader(dataGroup)
			other := m.running()[0]
			if other == leader {
				other = m.running()[1]
			}
			m.stop(m.index(leader))
			began := time.Now()
			mustPut(t, other, b, fmt.Sprint(i), "e")
			worst = max(worst, time.Since(began))
			ready(t, m.open(m.index(leader), nil))
			pause(3 * time.Second)
		}
		t.Logf("longest wait %v", worst)
		if worst > 200*time.Millisecond {
			t.Errorf("a put took %v after a planned stop", worst)
		}
	})
}

// Answers get lost after the leader has applied a command: the retry has the
// same request id, so the command is carried out once, and its caller learns
// what it came to.
func TestRetryAfterLostAnswer(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		var armed atomic.Bool
		var lost atomic.Int64
		for i := range 3 {
			m.open(i, func(o *Options) {
				o.Hooks.Committed = func(group string, _ int, _ time.Duration) {
					if c := m.node(i); group == "system" && c != nil && c.leader(systemGroup) == c.self && armed.Swap(false) {
						lost.Add(1)
						for j := range 3 {
							if j != i {
								m.Reset(i, j)
							}
						}
					}
				}
			})
		}
		ready(t, m.running()...)
		for i := range 10 {
			follower := m.follower(systemGroup)
			m.eventually("the links are back", func() bool { return follower.viewable() })
			armed.Store(true)
			createBucket(t, follower, fmt.Sprint("bucket-", i)) // AlreadyExists if it were carried out twice
			armed.Store(false)
		}
		if lost.Load() < 10 {
			t.Errorf("only %d answers were lost", lost.Load())
		}
		list, err := m.node(0).Read(t.Context(), &Query{Buckets: &BucketsQuery{}})
		if err != nil || len(list.Buckets) != 10 {
			t.Errorf("%d buckets, %v", len(list.Buckets), err)
		}
	})
}

// viewable tells whether this node reaches the leader of the system group.
func (c *Control) viewable() bool {
	name := c.leader(systemGroup)
	return name != "" && (name == c.self || c.conn(name).State() == grid.StateConnected)
}

// Once a try may have been carried out, and no answer is had afterwards, the
// error says so.
func TestUnknownOutcome(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		leader := m.leader(systemGroup)
		from := m.follower(systemGroup)
		// The command reaches the leader, and then nobody reaches anybody.
		for i := range 3 {
			if i != m.index(leader) {
				m.Blackhole(m.index(leader), i)
			}
		}
		time.AfterFunc(500*time.Millisecond, func() { m.isolate(0); m.isolate(1); m.isolate(2) })
		began := time.Now()
		_, err := from.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "open"}})
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "whether it was carried out isn't known") || Refused(err) || grid.NotExecuted(err) {
			t.Errorf("%v, refused %t, not executed %t", err, Refused(err), grid.NotExecuted(err))
		}
		if took := time.Since(began); took > 2*patience {
			t.Errorf("it took %v to say so", took)
		}
		m.HealAll()
		ready(t, m.running()...)
	})
}

// Once a try may have been carried out, no error of a later one is taken for
// the whole command's: only the outcome itself is.
func TestErrorsAfterALostAnswer(t *testing.T) {
	virtual(t, 1, func(t *testing.T, m *mesh) {
		c := m.openAll()[0]
		says := func(kind fault.Kind) error {
			return tryError(&grid.Error{Op: "request", Host: "a", Remote: true, Err: ToWire(fault.New(kind, "index", "says no"))})
		}
		lost := tryError(&grid.Error{Op: "request", Host: "a", Err: grid.ErrDisconnected})
		if !errors.Is(lost, errLost) {
			t.Fatalf("a call that was cut off: %v", lost)
		}
		for _, kind := range []fault.Kind{fault.Canceled, fault.Deadline} { // the try ended there before it ended here
			if err := says(kind); !errors.Is(err, errLost) {
				t.Errorf("a handler that was %v: %v", kind, err)
			}
		}
		ended, end := context.WithCancel(t.Context())
		end()
		_, err := proposeCall.Call(ended, c.conn("a"), complete(&Command{CreateBucket: &CreateBucket{Name: "b"}}))
		if !grid.NotExecuted(err) || !passing(tryError(err)) || errors.Is(tryError(err), errLost) {
			t.Errorf("a try that ended before it was sent: %v", err)
		}
		for _, kind := range []fault.Kind{fault.Conflict, fault.WrongMesh, fault.InvalidArgument, fault.PermissionDenied, fault.NoSpace, fault.Overloaded} {
			first := tries{c: c, ctx: t.Context(), inner: t.Context(), group: systemGroup}
			if first.again(says(kind), nil) {
				t.Errorf("%v is tried again", kind)
			}
			if err := first.err(says(kind)); fault.KindOf(err) != kind || Refused(err) {
				t.Errorf("at the first try: %v", err)
			}
			second := tries{c: c, ctx: t.Context(), inner: t.Context(), group: systemGroup}
			if !second.again(lost, nil) {
				t.Error("a lost answer isn't asked for again")
			}
			if err := second.err(says(kind)); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "isn't known") {
				t.Errorf("%v after a lost answer: %v", kind, err)
			}
		}
	})
}

// recordIn is a complete query of a record in a bucket.
func recordIn(b *Bucket) *Query {
	return &Query{Version: QueryVersion, Record: &RecordQuery{Bucket: b.Name, Key: "k"}, BucketID: b.ID}
}

// TestSilentLeader: a leader that is cut off without a sign is waited for no longer
// than leaves time for an answer.
func TestSilentLeader(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		for i := range 3 {
			for k := range i {
				m.Blackhole(i, k)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for _, c := range m.running() {
			for what, call := range map[string]func() error{
				"reading": func() error { _, err := c.readData(ctx, recordIn(b)); return err },
				"writing": func() error { _, err := c.Propose(ctx, putOf(b, "k", "e")); return err },
			} {
				wg.Go(func() {
					began := time.Now()
					err := call()
					if kind := fault.KindOf(err); kind != fault.Waiting && kind != fault.Unavailable || time.Since(began) > 1800*time.Millisecond {
						t.Errorf("%s at %s: %v after %v", what, c.self, err, time.Since(began))
					}
				})
			}
		}
		wg.Wait()
		m.HealAll()
		ready(t, m.running()...)
	})
}

// A minority is asked to write: it says that it waits, for whom, and when to
// come again, and nothing of it happens behind the caller's back once that was
// said.
func TestMinority(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		log := &lines{}
		for i := range 3 {
			m.open(i, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		}
		ready(t, m.running()...)
		b := createBucket(t, m.node(0), "b")
		mustPut(t, m.node(0), b, "k", "before")
		m.isolate(1)
		m.isolate(2)
		a := m.node(0)
		m.eventually("a has no leader", func() bool { return a.leader(dataGroup) == "" && a.leader(systemGroup) == "" })
		short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		shorter, cancelShorter := context.WithTimeout(t.Context(), time.Second)
		defer cancelShorter()
		var wg sync.WaitGroup
		for _, tc := range []struct {
			ctx  context.Context
			want time.Duration
		}{{t.Context(), patience}, {short, 2750 * time.Millisecond}, {shorter, 900 * time.Millisecond}} { // before the caller has given up
			for what, call := range map[string]func() error{
				"data-1": func() error { _, err := a.Propose(tc.ctx, putOf(b, "k", "never")); return err },
				"system": func() error {
					_, err := a.Propose(tc.ctx, &Command{CreateBucket: &CreateBucket{Name: "never"}})
					return err
				},
				"data-1 (read)": func() error { _, err := a.readData(tc.ctx, recordIn(b)); return err },
				"system (read)": func() error {
					_, err := a.Read(tc.ctx, &Query{Bucket: &BucketQuery{Name: "b"}})
					return err
				},
			} {
				wg.Go(func() {
					begun := time.Now()
					err := call()
					var fe *fault.Error
					group, _, _ := strings.Cut(what, " ")
					if !errors.As(err, &fe) || fe.Kind != fault.Waiting || fe.Subject != "group "+group || fe.RetryAfter() != time.Second || !strings.Contains(err.Error(), "b and c can't be reached") {
						t.Errorf("%v", err)
					}
					if took := time.Since(begun); took < tc.want-retryMax || took > tc.want {
						t.Errorf("%s waited for %v, want %v at most", what, took, tc.want)
					}
				})
			}
		}
		wg.Wait()
		if err := a.Ready(); fault.KindOf(err) != fault.Waiting || !strings.Contains(err.Error(), "b and c") {
			t.Errorf("ready: %v", err)
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if _, err := a.Propose(gone, putOf(b, "k", "never")); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that left: %v", err)
		}
		// What waits is served as soon as there is a majority again.
		served := make(chan error, 1)
		go func() {
			_, err := a.Propose(t.Context(), putOf(b, "l", "waited"))
			served <- err
		}()
		pause(3 * time.Second)
		m.HealAll()
		healed := time.Now()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if took := time.Since(healed); took > 6*time.Second { // of it 5 s at most are the grid's, until it dials again
			t.Errorf("served %v after the links came back", took)
		}
		ready(t, m.running()...)
		for _, c := range m.running() {
			if got := etagOf(t, c, "b", "k"); got != "before" {
				t.Errorf("node %s has %q", c.self, got)
			}
		}
		if _, err := a.Read(t.Context(), &Query{Bucket: &BucketQuery{Name: "never"}}); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("the bucket that was refused: %v", err)
		}
		m.agree()
	})
}
