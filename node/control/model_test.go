package control

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// model is a group's state machine as its users think of it, in plain maps.
type model struct {
	group      replica.GroupID
	applied    uint64
	logTime    int64
	deployment string
	epoch      uint64
	nodes      map[string]Node
	buckets    map[string]Bucket
	records    map[[16]byte]map[string]Record // by bucket id and key
	closed     map[[16]byte]bool              // by bucket id
	owners     map[[16]byte]bool              // segments a record refers to
	garbage    []Garbage
	modelCopies
	iam *modelIAM

	outcomes map[[16]byte]*outcome
	issued   [][16]byte // request id by index-1; zero for a repeated one
	times    []int64
	trimmed  int
}

// newModel is where newApplier begins.
func newModel(group replica.GroupID) *model {
	m := &model{
		group: group, applied: 1, nodes: map[string]Node{}, buckets: map[string]Bucket{}, records: map[[16]byte]map[string]Record{},
		iam: newModelIAM(), closed: map[[16]byte]bool{}, owners: map[[16]byte]bool{}, outcomes: map[[16]byte]*outcome{},
		issued: [][16]byte{{}}, times: []int64{0}, modelCopies: newModelCopies(),
	}
	if group == systemGroup {
		m.epoch, m.nodes["n0"] = 1, Node{Name: "n0", RaftID: 1}
	}
	return m
}

func (m *model) apply(e *entry) *outcome {
	m.applied++
	if e.Command == nil {
		m.issued, m.times = append(m.issued, [16]byte{}), append(m.times, 0)
		return nil
	}
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
	if kind == fault.Waiting { // nothing is decided
		m.issued, m.times = append(m.issued, [16]byte{}), append(m.times, 0)
		return out
	}
	m.outcomes[id] = out
	m.issued, m.times = append(m.issued, id), append(m.times, m.logTime)
	return out
}

// execute returns the kind of the refusal, 0 for none.
func (m *model) execute(c *Command, out *outcome) fault.Kind {
	ofData := c.PutRecord != nil || c.DeleteRecords != nil || c.MoveRecord != nil || c.CloseBucket != nil || c.Reclaim != nil ||
		c.Recopy != nil || c.SetQuota != nil || c.NoteScrub != nil
	switch {
	case ofData != (m.group == dataGroup):
		return fault.InvalidArgument
	case ofData && c.Slots != 1:
		return fault.Waiting
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
		out.Bucket = &b
	case c.RemoveBucket != nil:
		if m.buckets[c.RemoveBucket.Name].ID == c.RemoveBucket.ID {
			delete(m.buckets, c.RemoveBucket.Name)
		}
	case c.CloseBucket != nil:
		if len(m.records[c.CloseBucket.ID]) > 0 {
			return fault.BucketNotEmpty
		}
		m.closed[c.CloseBucket.ID] = true
		delete(m.quotas, c.CloseBucket.ID)
	case c.PutRecord != nil:
		return m.put(c.PutRecord, out)
	case c.DeleteRecords != nil:
		return m.delete(c.DeleteRecords, out)
	case c.MoveRecord != nil:
		return m.move(c.MoveRecord, out)
	case c.JoinNode != nil:
		return m.join(c.JoinNode)
	case c.AdmitNode != nil:
		return m.admit(c.AdmitNode)
	case c.BindNode != nil:
		return m.bind(c.BindNode)
	case c.MarkNode != nil:
		return m.mark(c.MarkNode)
	case c.ForgetNode != nil:
		if m.nodes[c.ForgetNode.Node].Leaving {
			delete(m.nodes, c.ForgetNode.Node)
			m.epoch++
		}
	case c.MarkDrive != nil:
		return m.markDrive(c.MarkDrive)
	case c.Recopy != nil:
		return m.recopy(c.Recopy, out)
	case c.SetQuota != nil:
		if m.closed[c.SetQuota.BucketID] {
			return fault.BucketNotFound
		}
		m.quotas[c.SetQuota.BucketID] = [2]int64{c.SetQuota.MaxObjects, c.SetQuota.MaxBytes}
	case c.NoteScrub != nil:
		if c.NoteScrub.Scrub.Round >= m.scrub.Round {
			m.scrub = c.NoteScrub.Scrub
		}
	case m.group == systemGroup && c.Reclaim == nil:
		kind, is := m.executeIAM(c, out)
		if !is {
			return fault.InvalidArgument
		}
		return kind
	case c.Reclaim != nil:
		for _, g := range c.Reclaim.Entries {
			m.garbage = slices.DeleteFunc(m.garbage, func(o Garbage) bool {
				is := o.Drive == g.Drive && o.LogTime == g.LogTime && o.ID == g.ID
				if is {
					m.reclaimed(g)
				}
				return is
			})
		}
	}
	return 0
}

func (m *model) put(c *PutRecord, out *outcome) fault.Kind {
	if m.closed[c.BucketID] {
		return fault.BucketNotFound
	}
	if len(c.Record.Segments) > 0 && (m.logTime-c.Birth > int64(time.Hour) || c.Birth-m.logTime > int64(time.Hour)) {
		return fault.Conflict
	}
	old, exists := m.records[c.BucketID][c.Record.Key]
	if !m.holds(old, exists, c.IfMatch, c.IfNoneMatch, c.IfUnmodifiedSince) {
		return fault.PreconditionFailed
	}
	if !m.fits(c.BucketID, c.Record.SizeBytes-old.SizeBytes, !exists) {
		return fault.QuotaExceeded
	}
	for _, s := range c.Record.Segments {
		own := slices.ContainsFunc(old.Segments, func(o Segment) bool { return o.ID == s.ID && slices.Equal(o.Drives, s.Drives) })
		if !own && m.known(s.ID) {
			return fault.Conflict
		}
	}
	out.Replaced = exists
	m.drop(old, c.Record.Segments)
	if m.records[c.BucketID] == nil {
		m.records[c.BucketID] = map[string]Record{}
	}
	m.records[c.BucketID][c.Record.Key] = stored(&c.Record, m.logTime)
	for _, s := range c.Record.Segments {
		m.owners[s.ID] = true
		if len(s.Drives) < int(c.Copies) {
			m.pending[s.ID] = true
		}
		m.list(s.ID, s.Drives...)
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
		delete(m.pending, s.ID)
		delete(m.lastReclaim, s.ID)
		m.discard(s, s.Drives...)
	}
}

func (m *model) delete(c *DeleteRecords, out *outcome) fault.Kind {
	if m.closed[c.BucketID] {
		return fault.BucketNotFound
	}
	for _, k := range c.Keys {
		old, exists := m.records[c.BucketID][k]
		if !m.holds(old, exists, c.IfMatch, nil, c.IfUnmodifiedSince) {
			return fault.PreconditionFailed
		}
		fate := byte(fateMissing)
		if exists {
			fate = fateDeleted
			m.drop(old, nil)
			delete(m.records[c.BucketID], k)
		}
		out.Fates = append(out.Fates, fate)
	}
	return 0
}

func (m *model) move(c *MoveRecord, out *outcome) fault.Kind {
	from, to := &c.From, &c.To
	if from.BucketID == to.BucketID && from.Key == to.Key {
		return fault.InvalidArgument
	}
	moved, exists := m.records[from.BucketID][from.Key]
	switch {
	case m.closed[from.BucketID]:
		return fault.BucketNotFound
	case !exists:
		return fault.ObjectNotFound
	case !m.holds(moved, true, from.IfMatch, from.IfNoneMatch, from.IfUnmodifiedSince):
		return fault.PreconditionFailed
	case m.closed[to.BucketID]:
		return fault.BucketNotFound
	}
	old, replaced := m.records[to.BucketID][to.Key]
	if !m.holds(old, replaced, to.IfMatch, to.IfNoneMatch, to.IfUnmodifiedSince) {
		return fault.PreconditionFailed
	}
	if from.BucketID != to.BucketID && !m.fits(to.BucketID, moved.SizeBytes-old.SizeBytes, !replaced) {
		return fault.QuotaExceeded
	}
	m.drop(old, nil)
	delete(m.records[from.BucketID], from.Key)
	if m.records[to.BucketID] == nil {
		m.records[to.BucketID] = map[string]Record{}
	}
	moved.Key, moved.VersionID, moved.LogTime = to.Key, c.VersionID, m.logTime
	m.records[to.BucketID][to.Key] = moved
	moved.Inline, moved.Segments = nil, nil
	out.Replaced, out.Moved = replaced, &moved
	return 0
}

func (m *model) join(c *JoinNode) fault.Kind {
	n, ok := m.nodes[c.Node]
	if !ok {
		return fault.NotFound
	}
	drives := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(n.Drives), c.Drives...))))
	for name, o := range m.nodes {
		for _, d := range drives {
			if name != c.Node && slices.Contains(o.Drives, d) {
				return fault.Conflict
			}
		}
	}
	pool := c.Pool
	if pool == "" {
		pool = "default"
	}
	if n.URL == c.URL && slices.Equal(n.Drives, drives) && n.Pool == pool && n.Zone == c.Zone {
		return 0
	}
	n.URL, n.Drives, n.Pool, n.Zone = c.URL, drives, pool, c.Zone
	return m.set(n)
}

func (m *model) markDrive(c *MarkDrive) fault.Kind {
	for _, n := range m.nodes {
		if !slices.Contains(n.Drives, c.Drive) {
			continue
		}
		without := func(all []string) (left []string) {
			for _, d := range all {
				if d != c.Drive {
					left = append(left, d)
				}
			}
			return left
		}
		draining := without(n.DrainingDrives)
		if c.Drain {
			draining = slices.Sorted(slices.Values(append(draining, c.Drive)))
		}
		if c.Remove {
			n.Drives = without(n.Drives)
		} else if slices.Equal(draining, n.DrainingDrives) {
			return 0
		}
		n.DrainingDrives = draining
		return m.set(n)
	}
	return fault.NotFound
}

func (m *model) set(n Node) fault.Kind {
	m.nodes[n.Name] = n
	m.epoch++
	return 0
}

func (m *model) admit(c *AdmitNode) fault.Kind {
	if _, ok := m.nodes[c.Node]; ok {
		return fault.AlreadyExists
	}
	for _, o := range m.nodes {
		if o.URL == c.URL {
			return fault.Conflict
		}
	}
	return m.set(Node{Name: c.Node, URL: c.URL})
}

func (m *model) bind(c *BindNode) fault.Kind {
	n, ok := m.nodes[c.Node]
	switch {
	case !ok:
		return fault.NotFound
	case n.RaftID == c.RaftID:
		return 0
	case n.RaftID != 0:
		return fault.Conflict
	}
	n.RaftID, n.URL, n.Awaited, n.Drives, n.DrainingDrives = c.RaftID, c.URL, false, nil, nil
	return m.set(n)
}

func (m *model) mark(c *MarkNode) fault.Kind {
	n, ok := m.nodes[c.Node]
	if !ok {
		return fault.NotFound
	}
	if n.Leaving && !c.Leave {
		return fault.Conflict
	}
	before := n
	switch {
	case c.Drain:
		n.Draining = true
	case c.Undo:
		n.Draining = false
	case c.Leave:
		others := 0
		for name, o := range m.nodes {
			if name != c.Node && !o.Leaving && o.RaftID != 0 {
				others++
			}
		}
		if others == 0 {
			return fault.Conflict
		}
		n.Leaving = true
	case c.Replace:
		n.RaftID, n.Awaited, n.Draining = 0, true, false
	}
	if n.RaftID == before.RaftID && n.Awaited == before.Awaited && n.Draining == before.Draining && n.Leaving == before.Leaving {
		return 0
	}
	return m.set(n)
}

// compare reads everything through queries.
func (m *model) compare(t require, a *applier) {
	t.Helper()
	ask := func(q Query) *Answer {
		t.Helper()
		answer, err := a.ask(&q)
		if err != nil {
			t.Fatal(err)
		}
		if answer.LogTime != m.logTime {
			t.Fatalf("log time %d, want %d", answer.LogTime, m.logTime)
		}
		return answer
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
		buckets = append(buckets, m.buckets[name])
	}
	for _, n := range m.nodes {
		for _, d := range n.Drives {
			on, draining := a.m.topology.Drive(d)
			same("where drive "+d+" is", on.Name, n.Name)
			same("whether drive "+d+" drains", draining, n.Draining || n.Leaving || slices.Contains(n.DrainingDrives, d))
		}
	}
	same("buckets", ask(Query{Buckets: &BucketsQuery{}}).Buckets, buckets)
	m.compareIAM(ask, same)
	m.compareRecords(t, a, ask, same)
}

func (m *model) compareRecords(t require, a *applier, ask func(Query) *Answer, same func(what string, got, want any)) {
	t.Helper()
	for bucket := range byte(4) {
		id := [16]byte{bucket}
		if m.closed[id] {
			_, err := a.ask(&Query{BucketID: id, Begin: &BeginQuery{Bucket: "b"}})
			same("a closed bucket", fault.KindOf(err), fault.BucketNotFound)
			continue
		}
		var records []Record
		for _, key := range slices.Sorted(maps.Keys(m.records[id])) {
			rec := m.records[id][key]
			same("record", ask(Query{BucketID: id, Record: &RecordQuery{Bucket: "b", Key: key}}).Record, &rec)
			rec.Inline, rec.Segments = nil, nil
			records = append(records, rec)
		}
		same("records", ask(Query{BucketID: id, Records: &RecordsQuery{Bucket: "b"}}).Records, records)
	}
	m.compareCopies(t, a, ask, same)
	for _, drive := range []string{"d1", "d2", "d3", "d4"} {
		var want []Garbage
		for _, g := range m.garbage {
			if g.Drive == drive && g.LogTime < m.logTime {
				want = append(want, g)
			}
		}
		slices.SortFunc(want, func(a, b Garbage) int {
			return cmp.Or(cmp.Compare(a.LogTime, b.LogTime), bytes.Compare(a.ID[:], b.ID[:]))
		})
		used := slices.ContainsFunc(m.copies(), func(c SegmentCopies) bool { return slices.Contains(c.Drives, drive) })
		same("usage of "+drive, ask(Query{Usage: &UsageQuery{Drives: []string{drive}}}).Used, used)
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
