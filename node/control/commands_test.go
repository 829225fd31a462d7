package control

import (
	"fmt"
	"time"

	"pgregory.net/rapid"
)

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
	e := &entry{Index: g.m.applied + 1, Term: 1, Stamp: g.clock}
	if rapid.IntRange(0, 19).Draw(t, "raft's own") == 0 {
		return e
	}
	g.ids++
	id := g.ids
	if g.ids > 1 && rapid.IntRange(0, 5).Draw(t, "retry") == 0 {
		id = rapid.IntRange(max(1, g.ids-20), g.ids-1).Draw(t, "of")
	}
	c := &Command{Version: CommandVersion, RequestID: [16]byte{byte(id >> 8), byte(id), 1}}
	if g.m.group == systemGroup {
		g.fillSystem(t, c)
	} else {
		c.Slots = uint64(rapid.SampledFrom([]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 2}).Draw(t, "slots"))
		g.fillData(t, c)
	}
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	e.Command = c
	return e
}

func (g *commands) fillSystem(t *rapid.T, c *Command) {
	bucket := rapid.SampledFrom([]string{"one", "two"}).Draw(t, "bucket")
	node := rapid.SampledFrom([]string{"n0", "n1", "n2"}).Draw(t, "node")
	url := rapid.SampledFrom([]string{"http://w", "http://x", "http://y"}).Draw(t, "url")
	drives := rapid.SampledFrom([]string{"d1", "d2", "d3"})
	switch kind := rapid.IntRange(0, 24).Draw(t, "kind"); kind {
	case 0:
		c.Init = &Init{Deployment: fmt.Sprint("mesh", rapid.IntRange(0, 1).Draw(t, "mesh"))}
	case 1, 2:
		c.CreateBucket = &CreateBucket{Name: bucket, ID: [16]byte{1, byte(g.ids >> 8), byte(g.ids)}}
	case 3:
		id := g.m.buckets[bucket].ID
		if rapid.IntRange(0, 3).Draw(t, "stale") == 0 || id == [16]byte{} {
			id = [16]byte{1, 0, 1}
		}
		c.RemoveBucket = &RemoveBucket{Name: bucket, ID: id}
	case 4, 5:
		c.JoinNode = &JoinNode{
			Node: node, URL: url,
			Drives: rapid.SliceOfNDistinct(drives, 0, 2, rapid.ID).Draw(t, "drives"),
			Pool:   rapid.SampledFrom([]string{"", "", DefaultPool, "p"}).Draw(t, "pool"),
			Zone:   rapid.SampledFrom([]string{"", "", "z"}).Draw(t, "zone"),
		}
	case 6:
		c.AdmitNode = &AdmitNode{Node: node, URL: url}
	case 7:
		c.BindNode = &BindNode{Node: node, URL: url, RaftID: uint64(rapid.IntRange(1, 3).Draw(t, "raft id"))}
	case 8:
		mark := rapid.IntRange(0, 3).Draw(t, "mark")
		c.MarkNode = &MarkNode{Node: node, Drain: mark == 0, Undo: mark == 1, Leave: mark == 2, Replace: mark == 3}
	case 9:
		c.ForgetNode = &ForgetNode{Node: node}
	case 10, 11, 12, 13:
		mark := rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "mark")
		c.MarkDrive = &MarkDrive{Drive: drives.Draw(t, "drive"), Drain: mark == 0, Undo: mark == 1, Remove: mark == 2}
	case 14:
		c.Reclaim = &Reclaim{Entries: []Garbage{{Drive: "d1"}}} // another group's
	default:
		g.fillIAM(t, c)
	}
}

func (g *commands) fillData(t *rapid.T, c *Command) {
	bucket := rapid.SampledFrom([]byte{1, 1, 1, 2, 2, 3}).Draw(t, "bucket")
	id, name := [16]byte{bucket}, fmt.Sprint("bucket-", bucket)
	keys := rapid.SampledFrom([]string{"a", "a/b", "a/c", "ab", "b"})
	drives := rapid.SampledFrom([]string{"d1", "d2", "d3", "d4"})
	tags := rapid.SampledFrom([][]string{nil, nil, nil, nil, {"*"}, {"e1"}, {"e2", "e3"}})
	since := rapid.Custom(func(t *rapid.T) int64 {
		return rapid.SampledFrom([]int64{0, 0, 0, g.m.logTime/1e9 - 60, g.m.logTime / 1e9}).Draw(t, "since")
	})
	switch kind := rapid.IntRange(0, 22).Draw(t, "kind"); kind {
	case 0:
		c.CloseBucket = &CloseBucket{Name: name, ID: id}
	case 1, 2, 3:
		c.DeleteRecords = &DeleteRecords{Bucket: name, BucketID: id, Keys: rapid.SliceOfNDistinct(keys, 1, 4, rapid.ID).Draw(t, "keys")}
		if len(c.DeleteRecords.Keys) == 1 {
			c.DeleteRecords.IfMatch, c.DeleteRecords.IfUnmodifiedSince = tags.Draw(t, "match"), since.Draw(t, "since")
		}
	case 4, 5:
		c.Reclaim = &Reclaim{Entries: []Garbage{{Drive: "d1", LogTime: 1, ID: [16]byte{9}}}}
		for range rapid.IntRange(0, min(3, len(g.m.garbage))).Draw(t, "entries") {
			c.Reclaim.Entries = append(c.Reclaim.Entries, rapid.SampledFrom(g.m.garbage).Draw(t, "entry"))
		}
	case 6:
		c.CreateBucket = &CreateBucket{Name: name, ID: id} // another group's
	case 7, 8, 9:
		place := func(bucket byte) Place {
			return Place{
				Bucket: fmt.Sprint("bucket-", bucket), BucketID: [16]byte{bucket}, Key: keys.Draw(t, "key"),
				IfMatch: tags.Draw(t, "match"), IfNoneMatch: tags.Draw(t, "none"), IfUnmodifiedSince: since.Draw(t, "since"),
			}
		}
		c.MoveRecord = &MoveRecord{From: place(bucket), To: place(rapid.SampledFrom([]byte{1, 1, 2, 3}).Draw(t, "to")), VersionID: c.RequestID}
		if c.MoveRecord.validate() != nil { // onto itself, which apply mustn't do either
			c.MoveRecord.To.Bucket = "alias"
		}
	case 10, 11, 12, 13, 14:
		c.Recopy = g.recopy(t, drives)
	case 15:
		c.SetQuota = &SetQuota{Bucket: name, BucketID: id, MaxObjects: rapid.Int64Range(0, 3).Draw(t, "objects"), MaxBytes: rapid.SampledFrom([]int64{0, 0, 4, 20, 40}).Draw(t, "bytes")}
	case 16:
		c.NoteScrub = &NoteScrub{Scrub: ScrubState{Round: rapid.Uint64Range(1, 3).Draw(t, "round"), After: rapid.SampledFrom([]string{"", "a"}).Draw(t, "after"), Segments: int64(g.ids)}}
	default:
		c.PutRecord = g.put(t, name, id, keys, drives, tags, since)
	}
}

func (g *commands) put(t *rapid.T, bucket string, id [16]byte, keys, drives *rapid.Generator[string], tags *rapid.Generator[[]string], since *rapid.Generator[int64]) *PutRecord {
	rec := Record{
		Key:      keys.Draw(t, "key"),
		ETag:     rapid.SampledFrom([]string{"e1", "e2"}).Draw(t, "etag"),
		Metadata: rapid.MapOfN(rapid.StringMatching("[a-z]"), rapid.StringMatching("[a-z]?"), 0, 4).Draw(t, "metadata"),
	}
	old := g.m.records[id][rec.Key]
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
	birth := g.m.logTime - int64(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 1, 59, 61, -61}).Draw(t, "age"))*int64(time.Minute)
	return &PutRecord{
		BucketName: bucket, BucketID: id, Record: rec, Birth: max(birth, 1),
		IfMatch: tags.Draw(t, "match"), IfNoneMatch: tags.Draw(t, "none"), IfUnmodifiedSince: since.Draw(t, "since"),
		Copies: rapid.SampledFrom([]uint8{0, 0, 2, 3}).Draw(t, "copies"),
	}
}

// recopy draws changes of segments that are there, most of the time, to and from
// any drives.
func (g *commands) recopy(t *rapid.T, drives *rapid.Generator[string]) *Recopy {
	ids := rapid.IntRange(0, 15)
	if there := g.m.segments(); len(there) > 0 {
		ids = rapid.OneOf(rapid.Map(rapid.SampledFrom(there), func(id [16]byte) int { return int(id[0]) }), ids)
	}
	c := &Recopy{}
	for _, id := range rapid.SliceOfNDistinct(ids, 1, 4, rapid.ID).Draw(t, "segments") {
		e := CopyChange{ID: [16]byte{byte(id)}, Settled: rapid.Bool().Draw(t, "settled")}
		for i, d := range rapid.SliceOfNDistinct(drives, 0, 4, rapid.ID).Draw(t, "changed") {
			switch to := rapid.SampledFrom([]int{0, 0, 1, 1, 2}).Draw(t, "how"); {
			case to == 0 && i < 3:
				e.Add = append(e.Add, d)
			case to == 1:
				e.Remove = append(e.Remove, d)
			default:
				e.Drop = append(e.Drop, d)
			}
		}
		if len(e.Add)+len(e.Remove)+len(e.Drop) == 0 {
			e.Settled = true
		}
		c.Entries = append(c.Entries, e)
	}
	ago := time.Duration(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 10, 30, 3599, 3601, -3601}).Draw(t, "age")) * time.Second
	c.Birth = max(1, g.m.logTime-int64(ago))
	return c
}
