package control

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/node/fault"
)

// A good command of every kind passes; each of the ways to spoil it is
// refused with an error that names the part.
func TestBadCommands(t *testing.T) {
	id := [16]byte{1}
	seg := func(n int) []Segment {
		var s []Segment
		for i := range n {
			s = append(s, Segment{ID: [16]byte{byte(i), byte(i >> 8), 1}, SizeBytes: 1, Drives: []string{"d"}})
		}
		return s
	}
	put := func() *PutRecord {
		return &PutRecord{BucketName: "b", BucketID: id, Birth: 1, Record: Record{Key: "k", ETag: "e", Segments: seg(2), SizeBytes: 2}}
	}
	good := map[string]func() *Command{
		"init":   func() *Command { return &Command{Init: &Init{Deployment: "m"}} },
		"create": func() *Command { return &Command{CreateBucket: &CreateBucket{Name: "b", ID: id}} },
		"rb":     func() *Command { return &Command{DeleteBucket: &DeleteBucket{Name: "b"}} },
		"put":    func() *Command { return &Command{PutRecord: put()} },
		"delete": func() *Command { return &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: []string{"k"}}} },
		"join":   func() *Command { return &Command{JoinNode: &JoinNode{Node: "n", Drives: []string{"d"}}} },
		"close":  func() *Command { return &Command{CloseBucket: &CloseBucket{Name: "b", ID: id}} },
		"remove": func() *Command { return &Command{RemoveBucket: &RemoveBucket{Name: "b", ID: id}} },
		"admit":  func() *Command { return &Command{AdmitNode: &AdmitNode{Node: "n", URL: "u"}} },
		"bind":   func() *Command { return &Command{BindNode: &BindNode{Node: "n", URL: "u", RaftID: 1}} },
		"mark":   func() *Command { return &Command{MarkNode: &MarkNode{Node: "n", Leave: true}} },
		"forget": func() *Command { return &Command{ForgetNode: &ForgetNode{Node: "n"}} },
		"move": func() *Command {
			return &Command{MoveRecord: &MoveRecord{From: Place{Bucket: "b", Key: "k"}, To: Place{Bucket: "b", Key: "l"}}}
		},
		"drive": func() *Command { return &Command{MarkDrive: &MarkDrive{Drive: "d", Drain: true}} },
		"recopy": func() *Command {
			return &Command{Recopy: &Recopy{Birth: 1, Entries: []CopyChange{{ID: id, Add: []string{"d"}, Remove: []string{"e"}, Drop: []string{"f"}}, {Settled: true}}}}
		},
		"quota": func() *Command { return &Command{SetQuota: &SetQuota{Bucket: "b", MaxObjects: 1}} },
		"scrub": func() *Command { return &Command{NoteScrub: &NoteScrub{Scrub: ScrubState{Round: 1}}} },
		"reclaim": func() *Command {
			return &Command{Reclaim: &Reclaim{Entries: []Garbage{{Drive: "d", LogTime: 1}}}}
		},
	}
	for name, make := range good {
		if err := complete(make()).validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := strings.Repeat("x", 1<<12)
	for _, tc := range []struct {
		name  string
		spoil func(*Command)
		kind  fault.Kind
		text  string
	}{
		{"create", func(c *Command) { c.Version = 9 }, fault.Unimplemented, "command: version 9 is not known here, only 3 to 3"},
		{"create", func(c *Command) { c.CreateBucket = nil }, fault.InvalidArgument, "command: has 0 parts"},
		{"create", func(c *Command) { c.DeleteBucket = &DeleteBucket{Name: "b"} }, fault.InvalidArgument, "command: has 2 parts"},
		{"create", func(c *Command) { c.CreateBucket.Name = "" }, fault.InvalidArgument, "bucket: is empty"},
		{"create", func(c *Command) { c.CreateBucket.Name = "a\x00b" }, fault.InvalidArgument, "bucket: isn't UTF-8 without NUL"},
		{"create", func(c *Command) { c.CreateBucket.Name = long }, fault.InvalidArgument, "bucket: has 4096 bytes"},
		{"create", func(c *Command) { c.CreateBucket.ID = [16]byte{} }, fault.InvalidArgument, "bucket: has no id"},
		{"rb", func(c *Command) { c.DeleteBucket.Name = "\xff" }, fault.InvalidArgument, "bucket: isn't UTF-8"},
		{"put", func(c *Command) { c.PutRecord.BucketName = "" }, fault.InvalidArgument, "bucket: is empty"},
		{"put", func(c *Command) { c.PutRecord.Birth = 0 }, fault.InvalidArgument, "birth: is missing"},
		{"put", func(c *Command) { c.PutRecord.IfMatch = make([]string, MaxConditions+1) }, fault.InvalidArgument, "conditions: have 65"},
		{"put", func(c *Command) { c.PutRecord.IfNoneMatch = []string{long} }, fault.InvalidArgument, "conditions: have an entity tag of 4096"},
		{"put", func(c *Command) { c.PutRecord.Record.Version = 2 }, fault.Unimplemented, "record: version 2 is not known here"},
		{"put", func(c *Command) { c.PutRecord.Record.Key = "" }, fault.InvalidArgument, "key: is empty"},
		{"put", func(c *Command) { c.PutRecord.Record.Key = long[:1025] }, fault.InvalidArgument, "key: has 1025 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.Key = "a\x00" }, fault.InvalidArgument, "key: isn't UTF-8 without NUL"},
		{"put", func(c *Command) { c.PutRecord.Record.Key = "a\xff" }, fault.InvalidArgument, "key: isn't UTF-8"},
		{"put", func(c *Command) { c.PutRecord.Record.DeleteMarker = true }, fault.Unimplemented, "record: is a delete marker"},
		{"put", func(c *Command) { c.PutRecord.Record.Layout = 1 }, fault.Unimplemented, "record: has layout 1"},
		{"put", func(c *Command) { c.PutRecord.Record.SHA256 = make([]byte, 20) }, fault.InvalidArgument, "sha256: has 20 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.ETag = "" }, fault.InvalidArgument, "etag: has 0 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.ContentType = long }, fault.InvalidArgument, "content type: has 4096 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.CacheControl = long }, fault.InvalidArgument, "cache control: has"},
		{"put", func(c *Command) { c.PutRecord.Record.ContentDisposition = long }, fault.InvalidArgument, "content disposition: has"},
		{"put", func(c *Command) { c.PutRecord.Record.ContentEncoding = long }, fault.InvalidArgument, "content encoding: has"},
		{"put", func(c *Command) { c.PutRecord.Record.ContentLanguage = long }, fault.InvalidArgument, "content language: has"},
		{"put", func(c *Command) { c.PutRecord.Record.Metadata = Pairs{"a": long, "b": long} }, fault.InvalidArgument, "metadata: has 8194 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.Tags = Pairs{"a": long, "b": long} }, fault.InvalidArgument, "tags: has 8194 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.Inline = []byte("xx") }, fault.InvalidArgument, "both inline and in segments"},
		{"put", func(c *Command) {
			c.PutRecord.Record.Segments = nil
			c.PutRecord.Record.Inline = make([]byte, MaxInlineBytes+1)
		}, fault.TooLarge, "inline: has 65537 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments = seg(MaxSegments + 1) }, fault.TooLarge, "segments: has 1001 entries"},
		{"put", func(c *Command) { c.PutRecord.Record.SizeBytes = 3 }, fault.InvalidArgument, "size: is 3, and the payload has 2 bytes"},
		{"put", func(c *Command) { c.PutRecord.Record.SizeBytes = 1 }, fault.InvalidArgument, "doesn't fit into the object's 1"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments[0].SizeBytes = 1 << 62 }, fault.InvalidArgument, "doesn't fit"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments[1].SizeBytes = -1 }, fault.InvalidArgument, "doesn't fit"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments[1].ID = c.PutRecord.Record.Segments[0].ID }, fault.InvalidArgument, "twice"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments[1].Drives = nil }, fault.InvalidArgument, "has 0 drives"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments[1].Drives = make([]string, 17) }, fault.InvalidArgument, "has 17 drives"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments[1].Drives = []string{"d", "d"} }, fault.InvalidArgument, "twice"},
		{"put", func(c *Command) { c.PutRecord.Record.Segments[1].Drives = []string{""} }, fault.InvalidArgument, "drive: is empty"},
		{"delete", func(c *Command) { c.DeleteRecords.Bucket = "" }, fault.InvalidArgument, "bucket: is empty"},
		{"delete", func(c *Command) { c.DeleteRecords.Keys = nil }, fault.InvalidArgument, "keys: has 0 entries"},
		{"delete", func(c *Command) { c.DeleteRecords.Keys = make([]string, 1001) }, fault.InvalidArgument, "keys: has 1001 entries"},
		{"delete", func(c *Command) { c.DeleteRecords.Keys = []string{"a", ""} }, fault.InvalidArgument, "key: is empty"},
		{"delete", func(c *Command) { c.DeleteRecords.Keys = []string{"a", "a"} }, fault.InvalidArgument, `keys: has "a" twice`},
		{"delete", func(c *Command) {
			c.DeleteRecords.Keys, c.DeleteRecords.IfMatch = []string{"a", "b"}, []string{"e"}
		}, fault.InvalidArgument, "conditions are for one"},
		{"move", func(c *Command) { c.Version = 2 }, fault.Unimplemented, "command: version 2 is not known here"},
		{"move", func(c *Command) { c.MoveRecord.From.Bucket = "" }, fault.InvalidArgument, "bucket: is empty"},
		{"move", func(c *Command) { c.MoveRecord.To.Bucket = "a\x00" }, fault.InvalidArgument, "bucket: isn't"},
		{"move", func(c *Command) { c.MoveRecord.From.Key = "" }, fault.InvalidArgument, "key: is empty"},
		{"move", func(c *Command) { c.MoveRecord.To.Key = long[:1025] }, fault.InvalidArgument, "key: has 1025 bytes"},
		{"move", func(c *Command) { c.MoveRecord.From.IfMatch = make([]string, MaxConditions+1) }, fault.InvalidArgument, "conditions: have 65"},
		{"move", func(c *Command) { c.MoveRecord.To.IfNoneMatch = []string{long} }, fault.InvalidArgument, "conditions: have an entity tag of 4096"},
		{"move", func(c *Command) { c.MoveRecord.To.BucketID = id }, fault.InvalidArgument, "has an id at one end of the move"},
		{"move", func(c *Command) { c.MoveRecord.To.Key = "k" }, fault.InvalidArgument, `object "b/k": can't be moved onto itself`},
		{"join", func(c *Command) { c.JoinNode.Node = "" }, fault.InvalidArgument, "node: is empty"},
		{"join", func(c *Command) { c.JoinNode.URL = long }, fault.InvalidArgument, "url: isn't"},
		{"join", func(c *Command) { c.JoinNode.Drives = make([]string, 257) }, fault.InvalidArgument, "drives: has 257"},
		{"join", func(c *Command) { c.JoinNode.Drives = []string{"d", "e", "d"} }, fault.InvalidArgument, `drives: has "d" twice`},
		{"put", func(c *Command) { c.PutRecord.Copies = 17 }, fault.InvalidArgument, "copies: is 17"},
		{"join", func(c *Command) { c.JoinNode.Pool = long }, fault.InvalidArgument, "pool: has 4096 bytes"},
		{"join", func(c *Command) { c.JoinNode.Zone = "a\x00" }, fault.InvalidArgument, "zone: isn't"},
		{"drive", func(c *Command) { c.MarkDrive.Remove = true }, fault.InvalidArgument, "mark: is 2 marks"},
		{"drive", func(c *Command) { c.MarkDrive.Drive = "" }, fault.InvalidArgument, "drive: is empty"},
		{"recopy", func(c *Command) { c.Recopy.Birth = 0 }, fault.InvalidArgument, "birth: is missing"},
		{"recopy", func(c *Command) { c.Recopy.Birth = -1 }, fault.InvalidArgument, "birth: is missing"},
		{"recopy", func(c *Command) { c.Recopy.Entries = nil }, fault.InvalidArgument, "entries: has 0 entries"},
		{"recopy", func(c *Command) { c.Recopy.Entries = make([]CopyChange, MaxRecopy+1) }, fault.InvalidArgument, "entries: has 1001 entries"},
		{"recopy", func(c *Command) { c.Recopy.Entries[1].ID = id }, fault.InvalidArgument, "entries: has segment 01000000000000000000000000000000 twice"},
		{"recopy", func(c *Command) { c.Recopy.Entries[1].Settled = false }, fault.InvalidArgument, "entries: number 1 changes 0 drives"},
		{"recopy", func(c *Command) { c.Recopy.Entries[0].Add = make([]string, 47) }, fault.InvalidArgument, "entries: number 0 changes 49 drives"},
		{"recopy", func(c *Command) { c.Recopy.Entries[0].Add = []string{"e"} }, fault.InvalidArgument, `drives: has "e" twice`},
		{"recopy", func(c *Command) { c.Recopy.Entries[0].Drop = []string{""} }, fault.InvalidArgument, "drive: is empty"},
		{"quota", func(c *Command) { c.SetQuota.MaxBytes = -1 }, fault.InvalidArgument, "quota: is 1 objects and -1 bytes"},
		{"quota", func(c *Command) { c.SetQuota.Bucket = "" }, fault.InvalidArgument, "bucket: is empty"},
		{"scrub", func(c *Command) { c.NoteScrub.Scrub.Round = 0 }, fault.InvalidArgument, "scrub: has a number"},
		{"scrub", func(c *Command) { c.NoteScrub.Scrub.Bytes = -1 }, fault.InvalidArgument, "scrub: has a number"},
		{"scrub", func(c *Command) { c.NoteScrub.Scrub.After = long }, fault.InvalidArgument, "after: has 4096 bytes"},
		{"close", func(c *Command) { c.CloseBucket.ID = [16]byte{} }, fault.InvalidArgument, "bucket: has no id"},
		{"close", func(c *Command) { c.CloseBucket.Name = "" }, fault.InvalidArgument, "bucket: is empty"},
		{"remove", func(c *Command) { c.RemoveBucket.ID = [16]byte{} }, fault.InvalidArgument, "bucket: has no id"},
		{"remove", func(c *Command) { c.RemoveBucket.Name = "" }, fault.InvalidArgument, "bucket: is empty"},
		{"admit", func(c *Command) { c.AdmitNode.Node = "" }, fault.InvalidArgument, "node: is empty"},
		{"admit", func(c *Command) { c.AdmitNode.URL = long }, fault.InvalidArgument, "url: isn't"},
		{"bind", func(c *Command) { c.BindNode.RaftID = 0 }, fault.InvalidArgument, "raft id: is 0"},
		{"bind", func(c *Command) { c.BindNode.Node = "a\x00" }, fault.InvalidArgument, "node: isn't"},
		{"mark", func(c *Command) { c.MarkNode.Leave = false }, fault.InvalidArgument, "mark: is 0 marks"},
		{"mark", func(c *Command) { c.MarkNode.Drain = true }, fault.InvalidArgument, "mark: is 2 marks"},
		{"mark", func(c *Command) { c.MarkNode.Node = "" }, fault.InvalidArgument, "node: is empty"},
		{"forget", func(c *Command) { c.ForgetNode.Node = "" }, fault.InvalidArgument, "node: is empty"},
		{"reclaim", func(c *Command) { c.Reclaim.Entries = nil }, fault.InvalidArgument, "entries: has 0"},
		{"reclaim", func(c *Command) { c.Reclaim.Entries = make([]Garbage, 1001) }, fault.InvalidArgument, "entries: has 1001"},
		{"reclaim", func(c *Command) { c.Reclaim.Entries[0].Drive = "" }, fault.InvalidArgument, "drive: is empty"},
		{"reclaim", func(c *Command) { c.Reclaim.Entries[0].LogTime = -1 }, fault.InvalidArgument, "log time -1"},
		{"delete", func(c *Command) {
			c.DeleteRecords.Keys = nil
			for i := range MaxDeleteKeys {
				c.DeleteRecords.Keys = append(c.DeleteRecords.Keys, fmt.Sprintf("%d/%s", i, long[:1000]))
			}
			c.PutRecord = nil
		}, 0, ""}, // the largest there is
	} {
		cmd := complete(good[tc.name]())
		tc.spoil(cmd)
		err := cmd.validate()
		if tc.text == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		if err == nil || fault.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.text)
		}
	}
	cmd := complete(good["put"]())
	cmd.RequestID = [16]byte{}
	if err := cmd.validate(); err == nil || !strings.Contains(err.Error(), "no request id") {
		t.Error(err)
	}
	cmd = complete(good["put"]())
	cmd.PutRecord.Record.Segments, cmd.PutRecord.Record.SizeBytes = seg(MaxSegments), MaxSegments
	for i := range cmd.PutRecord.Record.Segments {
		for d := range maxSegmentDrives - 1 {
			cmd.PutRecord.Record.Segments[i].Drives = append(cmd.PutRecord.Record.Segments[i].Drives, fmt.Sprint(long[:MaxNameBytes-2], d))
		}
	}
	if err := cmd.validate(); fault.KindOf(err) != fault.TooLarge || !strings.Contains(err.Error(), "command: has") {
		t.Errorf("a command that is too large: %v", err)
	}
}

func TestBadQueries(t *testing.T) {
	long := strings.Repeat("x", 1<<12)
	for _, tc := range []struct {
		q    Query
		kind fault.Kind
		text string
	}{
		{Query{}, fault.InvalidArgument, "query: has 0 parts"},
		{Query{Version: 9, Topology: &TopologyQuery{}}, fault.Unimplemented, "query: version 9 is not known here"},
		{Query{Topology: &TopologyQuery{}, Deployment: &DeploymentQuery{}}, fault.InvalidArgument, "query: has 2 parts"},
		{Query{Bucket: &BucketQuery{}}, fault.InvalidArgument, "bucket: is empty"},
		{Query{Begin: &BeginQuery{Bucket: "a\x00"}}, fault.InvalidArgument, "bucket: isn't"},
		{Query{Buckets: &BucketsQuery{Limit: -1}}, fault.InvalidArgument, "limit: is -1"},
		{Query{Buckets: &BucketsQuery{After: long}}, fault.InvalidArgument, "after: has 4096 bytes"},
		{Query{Record: &RecordQuery{Bucket: "b"}}, fault.InvalidArgument, "key: is empty"},
		{Query{Record: &RecordQuery{Key: "k"}}, fault.InvalidArgument, "bucket: is empty"},
		{Query{Records: &RecordsQuery{}}, fault.InvalidArgument, "bucket: is empty"},
		{Query{Records: &RecordsQuery{Bucket: "b", Prefix: "a\x00"}}, fault.InvalidArgument, "prefix: isn't"},
		{Query{Records: &RecordsQuery{Bucket: "b", Delimiter: long}}, fault.InvalidArgument, "delimiter: isn't"},
		{Query{Records: &RecordsQuery{Bucket: "b", Limit: -5}}, fault.InvalidArgument, "limit: is -5"},
		{Query{Garbage: &GarbageQuery{}}, fault.InvalidArgument, "drive: is empty"},
		{Query{Garbage: &GarbageQuery{Drive: "d", Before: -1}}, fault.InvalidArgument, "before: is -1"},
		{Query{Garbage: &GarbageQuery{Drive: "d", Limit: -1}}, fault.InvalidArgument, "limit: is -1"},
		{Query{MaxAge: -1, Topology: &TopologyQuery{}}, fault.InvalidArgument, "max_age: is -1ns"},
		{Query{Usage: &UsageQuery{}}, fault.InvalidArgument, "drives: has 0 entries"},
		{Query{Usage: &UsageQuery{Drives: []string{"d"}, After: long}}, fault.InvalidArgument, "after: has 4096 bytes"},
		{Query{Usage: &UsageQuery{Drives: make([]string, MaxQueryDrives+1)}}, fault.InvalidArgument, "drives: has 4097 entries"},
		{Query{Begin: &BeginQuery{Bucket: "b", Key: long}}, fault.InvalidArgument, "key: has 4096 bytes"},
		{Query{Begin: &BeginQuery{Bucket: "b", SizeBytes: -2}}, fault.InvalidArgument, "size: is -2"},
		{Query{Copies: &CopiesQuery{Limit: -1}}, fault.InvalidArgument, "limit: is -1"},
		{Query{Copies: &CopiesQuery{After: "x"}}, fault.InvalidArgument, "after: is no position"},
		{Query{Copies: &CopiesQuery{After: long}}, fault.InvalidArgument, "after: is no position"},
		{Query{Copies: &CopiesQuery{After: copiesPosition(recordKey([16]byte{}, "k", 1), 0), Pending: true}}, fault.InvalidArgument, "after: is no position"},
		{Query{Copies: &CopiesQuery{After: string(make([]byte, 16))}}, fault.InvalidArgument, "after: is no position"},
		{Query{Copies: &CopiesQuery{Good: make([]string, MaxQueryDrives+1)}}, fault.InvalidArgument, "drives: has 4097 entries"},
		{Query{BucketUsage: &BucketUsageQuery{}}, fault.InvalidArgument, "bucket: is empty"},
		{Query{BucketUsages: &BucketUsagesQuery{Limit: -1}}, fault.InvalidArgument, "limit: is -1"},
		{Query{BucketUsages: &BucketUsagesQuery{IDs: make([][16]byte, 1001)}}, fault.InvalidArgument, "ids: has 1001"},
		{Query{Segments: &SegmentsQuery{Drive: "a\x00"}}, fault.InvalidArgument, "drive: isn't"},
		{Query{Segments: &SegmentsQuery{IDs: make([][16]byte, 1001)}}, fault.InvalidArgument, "ids: has 1001"},
	} {
		if tc.q.Version == 0 {
			tc.q.Version = QueryVersion
		}
		if err := tc.q.validate(); err == nil || fault.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%+v: %v, want %q", tc.q, err, tc.text)
		}
	}
}
