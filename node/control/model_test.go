package control

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/fault"
)

// model is the state machine as its users think of it, in plain maps.
type model struct {
	applied    uint64
	logTime    int64
	deployment string
	epoch      uint64
	nodes      map[string]Node
	buckets    map[string]Bucket
	records    map[[16]byte]map[string]Record // by bucket id and key
	owners     map[[16]byte]bool              // segments a record refers to
	garbage    []Garbage

	outcomes map[[16]byte]*outcome
	issued   [][16]byte // request id by index-1; zero for a repeated one
	times    []int64
	trimmed  int
}

func newModel() *model {
	return &model{
		nodes: map[string]Node{}, buckets: map[string]Bucket{}, records: map[[16]byte]map[string]Record{},
		owners: map[[16]byte]bool{}, outcomes: map[[16]byte]*outcome{},
	}
}

func (m *model) apply(e *entry) *outcome {
	m.applied++
	m.logTime = max(m.logTime, e.Stamp)
	for range trimPerEntry {
		if m.trimmed >= len(m.times) || m.times[m.trimmed] >= m.logTime-int64(10*time.Minute) {
			break
		}
		delete(m.outcomes, m.issued[m.trimmed])
		m.trimmed++
	}
	id := e.Command.RequestID
	if known := m.outcomes[id]; known != nil {
		// A repeated one has no time of its own: it is passed by when the
		// one before it is.
		m.issued, m.times = append(m.issued, [16]byte{}), append(m.times, 0)
		return known
	}
	out := &outcome{}
	kind := m.execute(e.Command, out)
	if kind != 0 {
		out = &outcome{Refused: true, Kind: uint16(kind)}
	}
	out.LogTime, out.Epoch = m.logTime, m.epoch
	m.outcomes[id] = out
	m.issued, m.times = append(m.issued, id), append(m.times, m.logTime)
	return out
}

// execute returns the kind of the refusal, 0 for none.
func (m *model) execute(c *Command, out *outcome) fault.Kind {
	switch {
	case c.Init != nil:
		if m.deployment != "" {
			return fault.Conflict
		}
		m.deployment = c.Init.Deployment
	case c.CreateBucket != nil:
		if _, ok := m.buckets[c.CreateBucket.Name]; ok {
			return fault.AlreadyExists
		}
		b := Bucket{Name: c.CreateBucket.Name, ID: c.CreateBucket.ID, LogTime: m.logTime}
		m.buckets[b.Name] = b
		if m.records[b.ID] == nil {
			m.records[b.ID] = map[string]Record{}
		}
		out.Bucket = &b
	case c.DeleteBucket != nil:
		b, ok := m.buckets[c.DeleteBucket.Name]
		if !ok {
			return fault.BucketNotFound
		}
		if len(m.records[b.ID]) > 0 {
			return fault.BucketNotEmpty
		}
		delete(m.buckets, b.Name)
	case c.PutRecord != nil:
		return m.put(c.PutRecord, out)
	case c.DeleteRecords != nil:
		return m.delete(c.DeleteRecords, out)
	case c.JoinNode != nil:
		return m.join(c.JoinNode)
	case c.Reclaim != nil:
		for _, g := range c.Reclaim.Entries {
			m.garbage = slices.DeleteFunc(m.garbage, func(o Garbage) bool {
				return o.Drive == g.Drive && o.LogTime == g.LogTime && o.ID == g.ID
			})
		}
	}
	return 0
}

func (m *model) put(c *PutRecord, out *outcome) fault.Kind {
	b, ok := m.buckets[c.BucketName]
	if !ok || b.ID != c.BucketID {
		return fault.BucketNotFound
	}
	if m.logTime-c.Birth > int64(time.Hour) || c.Birth-m.logTime > int64(time.Hour) {
		return fault.Conflict
	}
	old, exists := m.records[b.ID][c.Record.Key]
	if !m.holds(old, exists, c.IfMatch, c.IfNoneMatch, c.IfUnmodifiedSince) {
		return fault.PreconditionFailed
	}
	for _, s := range c.Record.Segments {
		own := slices.ContainsFunc(old.Segments, func(o Segment) bool { return o.ID == s.ID && slices.Equal(o.Drives, s.Drives) })
		if !own && m.known(s.ID) {
			return fault.Conflict
		}
	}
	out.Replaced = exists
	m.drop(old, c.Record.Segments)
	m.records[b.ID][c.Record.Key] = stored(&c.Record, m.logTime)
	for _, s := range c.Record.Segments {
		m.owners[s.ID] = true
	}
	return 0
}

func (m *model) holds(old Record, exists bool, match, none []string, since int64) bool {
	has := func(tags []string) bool {
		return exists && (slices.Contains(tags, "*") || slices.Contains(tags, old.ETag))
	}
	if len(match) > 0 && !has(match) {
		return false
	}
	if len(match) == 0 && since != 0 && exists && time.Unix(0, old.LogTime).Unix() > since {
		return false
	}
	return len(none) == 0 || !has(none)
}

func (m *model) known(id [16]byte) bool {
	return m.owners[id] || slices.ContainsFunc(m.garbage, func(g Garbage) bool { return g.ID == id })
}

func (m *model) drop(old Record, kept []Segment) {
	for _, s := range old.Segments {
		if slices.ContainsFunc(kept, func(k Segment) bool { return k.ID == s.ID }) {
			continue
		}
		delete(m.owners, s.ID)
		for _, d := range s.Drives {
			m.garbage = append(m.garbage, Garbage{Drive: d, LogTime: m.logTime, ID: s.ID, SizeBytes: s.SizeBytes})
		}
	}
}

func (m *model) delete(c *DeleteRecords, out *outcome) fault.Kind {
	b, ok := m.buckets[c.Bucket]
	if !ok {
		return fault.BucketNotFound
	}
	for _, k := range c.Keys {
		old, exists := m.records[b.ID][k]
		if !m.holds(old, exists, c.IfMatch, nil, c.IfUnmodifiedSince) {
			return fault.PreconditionFailed
		}
		fate := byte(fateMissing)
		if exists {
			fate = fateDeleted
			m.drop(old, nil)
			delete(m.records[b.ID], k)
		}
		out.Fates = append(out.Fates, fate)
	}
	return 0
}

func (m *model) join(c *JoinNode) fault.Kind {
	n := Node{Name: c.Node, URL: c.URL, Drives: slices.Sorted(slices.Values(c.Drives))}
	for name, o := range m.nodes {
		for _, d := range n.Drives {
			if name != n.Name && slices.Contains(o.Drives, d) {
				return fault.Conflict
			}
		}
	}
	if old, ok := m.nodes[n.Name]; ok && old.URL == n.URL && slices.Equal(old.Drives, n.Drives) {
		return 0
	}
	m.nodes[n.Name] = n
	m.epoch++
	return 0
}

// compare reads everything through queries.
func (m *model) compare(t *rapid.T, v *view) {
	t.Helper()
	ask := func(q Query) *Answer {
		t.Helper()
		q.Version = QueryVersion
		if err := q.validate(); err != nil {
			t.Fatal(err)
		}
		a, err := v.answer(&q)
		if err != nil {
			t.Fatal(err)
		}
		if a.LogTime != m.logTime || a.Epoch != m.epoch {
			t.Fatalf("log time %d and epoch %d, want %d and %d", a.LogTime, a.Epoch, m.logTime, m.epoch)
		}
		return a
	}
	same := func(what string, got, want any) {
		t.Helper()
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", what, diff)
		}
	}
	same("deployment", ask(Query{Deployment: &DeploymentQuery{}}).Deployment, m.deployment)
	var nodes []Node
	for _, name := range slices.Sorted(maps.Keys(m.nodes)) {
		nodes = append(nodes, m.nodes[name])
	}
	same("topology", ask(Query{Topology: &TopologyQuery{}}).Topology, &Topology{Epoch: m.epoch, Nodes: nodes})
	var buckets []Bucket
	for _, name := range slices.Sorted(maps.Keys(m.buckets)) {
		b := m.buckets[name]
		buckets = append(buckets, b)
		var records []Record
		for _, key := range slices.Sorted(maps.Keys(m.records[b.ID])) {
			rec := m.records[b.ID][key]
			same("record", ask(Query{Record: &RecordQuery{Bucket: name, Key: key}}).Record, &rec)
			rec.Inline, rec.Segments = nil, nil
			records = append(records, rec)
		}
		same("records", ask(Query{Records: &RecordsQuery{Bucket: name}}).Records, records)
	}
	same("buckets", ask(Query{Buckets: &BucketsQuery{}}).Buckets, buckets)
	for _, drive := range []string{"d1", "d2", "d3"} {
		var want []Garbage
		for _, g := range m.garbage {
			if g.Drive == drive && g.LogTime < m.logTime {
				want = append(want, g)
			}
		}
		slices.SortFunc(want, func(a, b Garbage) int {
			return cmp.Or(cmp.Compare(a.LogTime, b.LogTime), bytes.Compare(a.ID[:], b.ID[:]))
		})
		same("garbage", ask(Query{Garbage: &GarbageQuery{Drive: drive, Before: m.logTime}}).Garbage, want)
	}
	var ids [][16]byte
	var known []bool
	for i := range 16 {
		ids = append(ids, [16]byte{byte(i)})
		known = append(known, m.known(ids[i]))
	}
	same("segments", ask(Query{Segments: &SegmentsQuery{IDs: ids}}).Known, known)
}
