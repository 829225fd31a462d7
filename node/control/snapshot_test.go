package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// putMuch puts more than the log of a group holds.
func putMuch(t *testing.T, c *Control, b *Bucket, name string) {
	t.Helper()
	payload := bytes.Repeat([]byte("0123456789abcdef"), MaxInlineBytes/16)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 6 {
				cmd := putOf(b, fmt.Sprint(name, "-", w, "-", i), "e")
				cmd.PutRecord.Record.Inline, cmd.PutRecord.Record.SizeBytes = payload, int64(len(payload))
				if _, err := c.Propose(t.Context(), cmd); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// cutBehind waits until the leader's log of the data group begins behind index.
func (m *mesh) cutBehind(index uint64) {
	m.t.Helper()
	m.eventually("the log is cut", func() bool {
		s, err := m.leader(dataGroup).Status(m.t.Context())
		return err == nil && s.Groups[1].First > index
	})
}

// A node that was away for so long that the log doesn't go back as far gets a
// snapshot, also where that comes in pieces: no byte of it comes twice.
func TestSnapshotInPieces(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		for i := range 3 {
			m.open(i, func(o *Options) { o.logBytes = 1 << 20 })
		}
		ready(t, m.running()...)
		b := createBucket(t, m.node(0), "b")
		mustPut(t, m.node(0), b, "first", "e")
		m.agree()
		v := m.node(2).data.acquire()
		had := v.applied
		m.node(2).data.release(v)
		m.kill(2)
		putMuch(t, m.node(0), b, "while away")
		if _, err := m.node(0).Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: []string{"first"}}}); err != nil {
			t.Fatal(err)
		}
		m.cutBehind(had + 1)

		p := &pieces{m: m, got: map[string]int64{}}
		c := m.open(2, func(o *Options) { o.Fetch = p.fetch })
		ready(t, c)
		m.agree()
		if _, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "first"}}); fault.KindOf(err) != fault.ObjectNotFound {
			t.Errorf("what was deleted meanwhile: %v", err)
		}
		p.check(t)
		// The old state's directory is gone, and the new one is found again.
		dirs, err := m.disks[2].List("state/data-1")
		if err != nil || len(dirs) != 1 || dirs[0] == "1" {
			t.Errorf("directories %q, %v", dirs, err)
		}
		ready(t, m.restart(2))
		m.agree()
	})
}

// pieces is a Fetch that is cut off in every file, three times.
type pieces struct {
	m *mesh

	mu      sync.Mutex // guards what follows
	got     map[string]int64
	cuts    int
	twice   []string
	resumed int
}

func (p *pieces) fetch(_ context.Context, node, path string, offset, size int64, to io.Writer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if offset != p.got[path] {
		p.twice = append(p.twice, fmt.Sprintf("%s from %d, %d bytes had come", path, offset, p.got[path]))
	}
	if offset > 0 {
		p.resumed++
	}
	n := size
	cut := p.cuts < 3 && size > 1
	if cut {
		p.cuts++
		n = size / 2
	}
	if err := p.m.fetch(node, path, offset, n, to); err != nil {
		return err
	}
	p.got[path] = offset + n
	if cut {
		return errors.New("cut off")
	}
	return nil
}

func (p *pieces) check(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cuts != 3 || p.resumed == 0 || len(p.twice) > 0 {
		t.Errorf("cut off %d times, resumed %d times, not where it was: %q", p.cuts, p.resumed, p.twice)
	}
}

// A file of a snapshot that comes damaged is fetched again.
func TestDamagedSnapshot(t *testing.T) {
	virtualOf(t, 1, 2, func(t *testing.T, m *mesh) {
		a := m.openAll()[0]
		b := createBucket(t, a, "b")
		mustPut(t, a, b, "k", "e")
		if err := a.AdmitNode(t.Context(), "b", m.Name(1)); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		damaged := 0
		c := m.open(1, func(o *Options) {
			fetch := o.Fetch
			o.Fetch = func(ctx context.Context, node, path string, offset, size int64, to io.Writer) error {
				mu.Lock()
				defer mu.Unlock()
				if damaged < 2 && size > 0 {
					damaged++
					_, err := to.Write(bytes.Repeat([]byte{0xff}, int(size)))
					return err
				}
				return fetch(ctx, node, path, offset, size, to)
			}
		})
		ready(t, c)
		m.agree()
		if damaged != 2 {
			t.Errorf("damaged %d times", damaged)
		}
		if got := etagOf(t, c, "b", "k"); got != "e" {
			t.Errorf("read %q", got)
		}
	})
}

// Only files of a snapshot that is offered are given away.
func TestSnapshotFiles(t *testing.T) {
	virtual(t, 1, func(t *testing.T, m *mesh) {
		c := m.openAll()[0]
		for _, path := range []string{"", "1", "0/1/1/../../raft-id", "0/1/1/..", "0/1/1/.", "0/1/1/", "x/1/1/f", "0/x/1/f", "0/1/x/f", "0/1/1/f", "99/1/1/f", "0/1/1/a/b"} {
			file, release, err := c.SnapshotFile(path)
			if fault.KindOf(err) != fault.NotFound || release != nil || file != "" {
				t.Errorf("%q: %q, %v", path, file, err)
			}
		}
	})
}

// A node whose clock is an hour off doesn't lead while others can, says so, and
// log time goes its way all the same.
func TestClockThatIsOff(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		virtual(t, 3, func(t *testing.T, m *mesh) {
			for i := range 3 {
				m.open(i, func(o *Options) {
					if i == 1 {
						o.Clock = func() time.Time { return time.Now().Add(off) }
					}
				})
			}
			ready(t, m.running()...)
			wrong := m.node(1)
			b := createBucket(t, wrong, "b")
			last := int64(0)
			for round := range 4 {
				pause(5 * time.Second)
				for _, c := range m.running() {
					res, err := c.Propose(t.Context(), putOf(b, fmt.Sprint(round, c.self), "e"))
					if err != nil || res.LogTime < last {
						t.Fatalf("log time %d after %d, %v", res.LogTime, last, err)
					}
					last = res.LogTime
				}
				for _, g := range []*Control{m.leader(systemGroup), m.leader(dataGroup)} {
					if g == wrong {
						t.Error("the node with the wrong clock leads")
					}
				}
				// Whoever leads is lost; the other good one takes over.
				lost := m.index(m.leader(dataGroup))
				m.kill(lost)
				mustPut(t, m.running()[0], b, fmt.Sprint("without ", lost), "e")
				ready(t, m.open(lost, nil))
			}
			s, err := wrong.Status(t.Context())
			if err != nil || s.MayLead || (s.ClockOffset-off).Abs() > time.Second {
				t.Errorf("%+v, %v", s, err)
			}
			for _, c := range []*Control{m.node(0), m.node(2)} {
				s, err := c.Status(t.Context())
				if err != nil || !s.MayLead || s.ClockOffset.Abs() > time.Second {
					t.Errorf("node %s: %+v, %v", c.self, s, err)
				}
			}
			if behind := time.Since(time.Unix(0, last)); behind.Abs() > time.Minute {
				t.Errorf("log time is %v off", behind)
			}
		})
	}
}

// Two nodes whose clocks differ can't tell whose is wrong, and go on.
func TestTwoClocksThatDiffer(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		skew := func(o *Options) {
			if o.Self == "b" {
				o.Clock = func() time.Time { return time.Now().Add(time.Hour) }
			}
		}
		for i := range 3 {
			m.open(i, skew)
		}
		ready(t, m.running()...)
		b := createBucket(t, m.node(0), "b")
		for i := range 3 {
			m.stop(i)
		}
		m.open(0, skew)
		m.open(1, skew)
		ready(t, m.running()...)
		pause(time.Minute)
		mustPut(t, m.node(0), b, "k", "e")
		mustPut(t, m.node(1), b, "l", "e")
	})
}

// A birth is the present time also where nothing was written for hours, and
// log time never goes back, whatever the clock does.
func TestLogTime(t *testing.T) {
	virtual(t, 1, func(t *testing.T, m *mesh) {
		var mu sync.Mutex
		ahead := 1000 * time.Hour
		move := func(by time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			ahead += by
		}
		clock := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(ahead)
		}
		c := m.open(0, func(o *Options) { o.Clock = clock })
		b := createBucket(t, c, "b")
		move(5 * time.Hour)
		a, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: "b"}})
		if err != nil || a.Bucket.ID != b.ID || a.LogTime < clock().UnixNano()-int64(time.Second) {
			t.Fatalf("%+v, %v", a, err)
		}
		put := putOf(b, "k", "e")
		put.PutRecord.Record.Inline = nil
		put.PutRecord.Record.Segments = []Segment{{ID: randomID(), SizeBytes: 1, Drives: []string{"d"}}}
		if _, err := c.Propose(t.Context(), put); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "5h0m0s before its commit") {
			t.Errorf("a put that is five hours old: %v", err)
		}
		put.PutRecord.Birth = a.LogTime
		before, err := c.Propose(t.Context(), put)
		if err != nil {
			t.Fatalf("a put that began just now: %v", err)
		}
		move(-3 * time.Hour)
		res, err := c.Propose(t.Context(), putOf(b, "l", "e"))
		if err != nil || res.LogTime != before.LogTime {
			t.Errorf("log time went on to %v, %v", res, err)
		}
	})
}
