package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// What was acknowledged at one node is read at every other, at once: also at
// one that has no copy of the records, and one that was slow.
func TestReadsAreLinearizable(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				key := fmt.Sprint("k", w)
				for n := range 50 {
					etag := fmt.Sprint(n)
					mustPut(t, m.node((w+n)%4), b, key, etag)
					if got := etagOf(t, m.node((w+3*n+1)%4), "b", key); got != etag {
						t.Errorf("read %s after %s was acknowledged", got, etag)
					}
				}
			})
		}
		wg.Wait()
		for i, c := range m.running() {
			name := fmt.Sprint("bucket-", i)
			createBucket(t, c, name)
			for _, x := range m.running() {
				if _, err := x.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: name}}); err != nil {
					t.Errorf("node %s, of a bucket made at %s: %v", x.self, c.self, err)
				}
			}
		}
	})
}

// A leader that has been cut off doesn't know it for a while. It must not
// answer from what it has: another may lead by now.
func TestDeposedLeaderDoesNotAnswer(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		mustPut(t, m.node(0), b, "k", "old")
		old := m.leader(dataGroup)
		m.isolate(m.index(old))
		answers := make(chan string, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			if a, err := old.Read(ctx, &Query{Record: &RecordQuery{Bucket: "b", Key: "k"}}); err == nil {
				answers <- a.Record.ETag
			}
			close(answers)
		}()
		other := m.node((m.index(old) + 1) % 3)
		mustPut(t, other, b, "k", "new")
		if got, ok := <-answers; ok {
			t.Errorf("a leader that was cut off answered %s", got)
		}
		m.rejoin(m.index(old))
		ready(t, old)
		if got := etagOf(t, old, "b", "k"); got != "new" {
			t.Errorf("read %s", got)
		}
	})
}

// A node in a minority answers from its copy as long as that isn't older than
// the query allows, and then says whom it can't reach.
func TestStaleReads(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		mustPut(t, m.node(0), b, "k", "old")
		c := m.follower(dataGroup)
		pause(10 * time.Second) // copies are brought up to the time without being asked
		m.isolate(m.index(c))
		cut := time.Now()
		mustPut(t, m.leaderBut(dataGroup, c), b, "k", "new")
		queries := map[string]*Query{
			"record":   {Record: &RecordQuery{Bucket: "b", Key: "k"}},
			"records":  {Records: &RecordsQuery{Bucket: "b"}},
			"topology": {Topology: &TopologyQuery{}},
			"buckets":  {Buckets: &BucketsQuery{}},
		}
		read := func(what string, age time.Duration) (*Answer, error) {
			q := *queries[what]
			q.MaxAge = age
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return c.Read(ctx, &q)
		}
		m.eventually("it knows that it has lost the leaders", func() bool { // who asks before that is told so when it does
			_, data := read("record", 0)
			_, system := read("topology", 0)
			return fault.KindOf(data) == fault.Waiting && fault.KindOf(system) == fault.Waiting
		})
		for what := range queries {
			a, err := read(what, 30*time.Second)
			if err != nil {
				t.Errorf("%s, within its age: %v", what, err)
			} else if what == "record" && a.Record.ETag != "old" {
				t.Errorf("read %s", a.Record.ETag)
			}
			if _, err := read(what, 0); fault.KindOf(err) != fault.Waiting {
				t.Errorf("%s, linearizable in a minority: %v", what, err)
			}
		}
		pause(30*time.Second - time.Since(cut))
		for what := range queries {
			_, err := read(what, 30*time.Second)
			var fe *fault.Error
			if !errors.As(err, &fe) || fe.Kind != fault.Waiting || fe.RetryAfter() != time.Second || !strings.Contains(err.Error(), "can't be reached") {
				t.Errorf("%s, beyond its age: %v", what, err)
			}
			if _, err := read(what, time.Hour); err != nil {
				t.Errorf("%s, within an hour: %v", what, err)
			}
		}
		m.rejoin(m.index(c))
		ready(t, c)
		m.eventually("it is up to date again", func() bool {
			a, err := read("record", 20*time.Second)
			return err == nil && a.Record.ETag == "new"
		})
	})
}

// leaderBut waits until another node than without leads a group.
func (m *mesh) leaderBut(g replica.GroupID, without *Control) (leader *Control) {
	m.t.Helper()
	m.eventually("another node leads "+groupName(g), func() bool {
		for _, c := range m.running() {
			if c != without && c.engine.Load().Leader(g).Leads {
				leader = c
			}
		}
		return leader != nil
	})
	return leader
}

// A node that is alone answers at once, also after a restart, and knows all.
func TestReadsAlone(t *testing.T) {
	virtual(t, 1, func(t *testing.T, m *mesh) {
		c := m.openAll()[0]
		b := createBucket(t, c, "b")
		for i := range 20 {
			mustPut(t, c, b, "k", fmt.Sprint(i))
			began := time.Now()
			c = m.restart(0)
			if got := etagOf(t, c, "b", "k"); got != fmt.Sprint(i) {
				t.Errorf("read %s, put was %d", got, i)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
		}
	})
}
