package control

import (
	"strings"
	"unicode/utf8"

	"github.com/gridloom/gridloom/node/fault"
)

// Bad commands and queries are refused here, before they enter the log or
// cross the grid: an entry of the log must be applicable by every node, for
// ever. What is checked is what the rows' layout and the bounds rest on; what
// a bucket's or a key's name may be beyond that is node/object's to say.

// validate says what is wrong with a command.
func (c *Command) validate() error {
	if c.Version < oldestCommand || c.Version > CommandVersion {
		return fault.New(fault.Unimplemented, "command", "version %d is not known here, only %d to %d", c.Version, oldestCommand, CommandVersion)
	}
	if c.RequestID == ([16]byte{}) {
		return fault.New(fault.InvalidArgument, "command", "has no request id")
	}
	var set int
	var err error
	check := func(present bool, validate func() error) {
		if present {
			set++
			err = validate()
		}
	}
	check(c.Init != nil, c.Init.validate)
	check(c.CreateBucket != nil, c.CreateBucket.validate)
	check(c.RemoveBucket != nil, c.RemoveBucket.validate)
	check(c.CloseBucket != nil, c.CloseBucket.validate)
	check(c.DeleteBucket != nil, c.DeleteBucket.validate)
	check(c.PutRecord != nil, c.PutRecord.validate)
	check(c.DeleteRecords != nil, c.DeleteRecords.validate)
	check(c.MoveRecord != nil, c.MoveRecord.validate)
	check(c.JoinNode != nil, c.JoinNode.validate)
	check(c.AdmitNode != nil, c.AdmitNode.validate)
	check(c.BindNode != nil, c.BindNode.validate)
	check(c.MarkNode != nil, c.MarkNode.validate)
	check(c.ForgetNode != nil, c.ForgetNode.validate)
	check(c.MarkDrive != nil, c.MarkDrive.validate)
	check(c.Reclaim != nil, c.Reclaim.validate)
	check(c.Recopy != nil, c.Recopy.validate)
	check(c.SetQuota != nil, c.SetQuota.validate)
	check(c.NoteScrub != nil, c.NoteScrub.validate)
	check(c.PutUser != nil, c.PutUser.validate)
	check(c.UpdateUser != nil, c.UpdateUser.validate)
	check(c.DeleteUser != nil, c.DeleteUser.validate)
	check(c.PutKey != nil, c.PutKey.validate)
	check(c.UpdateKey != nil, c.UpdateKey.validate)
	check(c.DeleteKey != nil, c.DeleteKey.validate)
	check(c.TouchKeys != nil, c.TouchKeys.validate)
	check(c.SealMaster != nil, c.SealMaster.validate)
	if set != 1 {
		return fault.New(fault.InvalidArgument, "command", "has %d parts, not one", set)
	}
	if err != nil {
		return err
	}
	if n := c.Msgsize(); n > maxCommandBytes {
		return fault.New(fault.TooLarge, "command", "has %d bytes, at most %d are allowed", n, maxCommandBytes)
	}
	return nil
}

func (c *Init) validate() error { return checkName("deployment", c.Deployment) }

func (c *CreateBucket) validate() error {
	if c.ID == ([16]byte{}) {
		return fault.New(fault.InvalidArgument, "bucket", "has no id")
	}
	return checkBucket(c.Name)
}

func (c *DeleteBucket) validate() error { return checkBucket(c.Name) }

func (c *RemoveBucket) validate() error { return checkBucketID(c.Name, c.ID) }

func (c *CloseBucket) validate() error { return checkBucketID(c.Name, c.ID) }

func checkBucketID(name string, id [16]byte) error {
	if id == ([16]byte{}) {
		return fault.New(fault.InvalidArgument, "bucket", "has no id")
	}
	return checkBucket(name)
}

func (c *AdmitNode) validate() error { return checkNode(c.Node, c.URL) }

func (c *BindNode) validate() error {
	if c.RaftID == 0 {
		return fault.New(fault.InvalidArgument, "raft id", "is 0")
	}
	return checkNode(c.Node, c.URL)
}

func (c *MarkNode) validate() error {
	if err := oneMark(c.Drain, c.Undo, c.Leave, c.Replace); err != nil {
		return err
	}
	return checkName("node", c.Node)
}

func (c *MarkDrive) validate() error {
	if err := oneMark(c.Drain, c.Undo, c.Remove); err != nil {
		return err
	}
	return checkName("drive", c.Drive)
}

// oneMark refuses anything but exactly one.
func oneMark(marks ...bool) error {
	set := 0
	for _, mark := range marks {
		if mark {
			set++
		}
	}
	if set != 1 {
		return fault.New(fault.InvalidArgument, "mark", "is %d marks, not one", set)
	}
	return nil
}

func (c *ForgetNode) validate() error { return checkName("node", c.Node) }

func checkNode(name, url string) error {
	if len(url) > MaxURLBytes || !utf8.ValidString(url) {
		return fault.New(fault.InvalidArgument, "url", "isn't UTF-8 of at most %d bytes", MaxURLBytes)
	}
	return checkName("node", name)
}

func (c *PutRecord) validate() error {
	if err := checkBucket(c.BucketName); err != nil {
		return err
	}
	if c.Birth <= 0 && len(c.Record.Segments) > 0 {
		return fault.New(fault.InvalidArgument, "birth", "is missing: a put takes it from BeginQuery")
	}
	if err := c.Record.validate(); err != nil {
		return err
	}
	if c.Copies > maxSegmentDrives {
		return fault.New(fault.InvalidArgument, "copies", "is %d, at most %d are allowed", c.Copies, maxSegmentDrives)
	}
	return checkConditions(c.IfMatch, c.IfNoneMatch)
}

func (c *DeleteRecords) validate() error {
	if err := checkBucket(c.Bucket); err != nil {
		return err
	}
	if n := len(c.Keys); n == 0 || n > MaxDeleteKeys {
		return fault.New(fault.InvalidArgument, "keys", "has %d entries, 1 to %d are allowed", n, MaxDeleteKeys)
	}
	seen := make(map[string]bool, len(c.Keys))
	for _, k := range c.Keys {
		if err := checkKey(k); err != nil {
			return err
		}
		if seen[k] {
			return fault.New(fault.InvalidArgument, "keys", "has %q twice", k)
		}
		seen[k] = true
	}
	if len(c.Keys) > 1 && (len(c.IfMatch) > 0 || c.IfUnmodifiedSince != 0) {
		return fault.New(fault.InvalidArgument, "keys", "has %d entries, and conditions are for one", len(c.Keys))
	}
	return checkConditions(c.IfMatch, nil)
}

func (c *JoinNode) validate() error {
	if err := checkNode(c.Node, c.URL); err != nil {
		return err
	}
	if len(c.Drives) > MaxDrives {
		return fault.New(fault.InvalidArgument, "drives", "has %d entries, at most %d are allowed", len(c.Drives), MaxDrives)
	}
	for _, place := range []struct{ what, name string }{{"pool", c.Pool}, {"zone", c.Zone}} {
		if place.name == "" {
			continue
		}
		if err := checkName(place.what, place.name); err != nil {
			return err
		}
	}
	return checkDrives(c.Drives)
}

func (c *Reclaim) validate() error {
	if n := len(c.Entries); n == 0 || n > MaxReclaim {
		return fault.New(fault.InvalidArgument, "entries", "has %d entries, 1 to %d are allowed", n, MaxReclaim)
	}
	for _, g := range c.Entries {
		if err := checkName("drive", g.Drive); err != nil {
			return err
		}
		if g.LogTime < 0 {
			return fault.New(fault.InvalidArgument, "entries", "has the log time %d", g.LogTime)
		}
	}
	return nil
}

func (r *Record) validate() error {
	if r.Version != 0 && r.Version != RecordVersion {
		return fault.New(fault.Unimplemented, "record", "version %d is not known here, only %d", r.Version, RecordVersion)
	}
	if err := checkKey(r.Key); err != nil {
		return err
	}
	if r.DeleteMarker {
		return fault.New(fault.Unimplemented, "record", "is a delete marker: those are reserved")
	}
	if r.Layout != 0 {
		return fault.New(fault.Unimplemented, "record", "has layout %d: only 0 is known here", r.Layout)
	}
	if n := len(r.SHA256); n != 0 && n != 32 {
		return fault.New(fault.InvalidArgument, "sha256", "has %d bytes, not 32", n)
	}
	if r.ETag == "" || len(r.ETag) > maxETagBytes {
		return fault.New(fault.InvalidArgument, "etag", "has %d bytes, 1 to %d are allowed", len(r.ETag), maxETagBytes)
	}
	for _, h := range []struct{ name, value string }{
		{"content type", r.ContentType},
		{"cache control", r.CacheControl},
		{"content disposition", r.ContentDisposition},
		{"content encoding", r.ContentEncoding},
		{"content language", r.ContentLanguage},
	} {
		if len(h.value) > MaxHeaderBytes {
			return fault.New(fault.InvalidArgument, h.name, "has %d bytes, at most %d are allowed", len(h.value), MaxHeaderBytes)
		}
	}
	for _, m := range []struct {
		name  string
		pairs Pairs
	}{{"metadata", r.Metadata}, {"tags", r.Tags}} {
		if n := m.pairs.sizeBytes(); n > MaxMetadataBytes || len(m.pairs) > maxPairs {
			return fault.New(fault.InvalidArgument, m.name, "has %d bytes in %d entries, at most %d bytes are allowed", n, len(m.pairs), MaxMetadataBytes)
		}
	}
	return r.validatePayload()
}

// validatePayload checks that the parts make up the whole.
func (r *Record) validatePayload() error {
	if len(r.Inline) > MaxInlineBytes {
		return fault.New(fault.TooLarge, "inline", "has %d bytes, at most %d are allowed", len(r.Inline), MaxInlineBytes)
	}
	if len(r.Segments) > MaxSegments {
		return fault.New(fault.TooLarge, "segments", "has %d entries, at most %d are allowed", len(r.Segments), MaxSegments)
	}
	if len(r.Inline) > 0 && len(r.Segments) > 0 {
		return fault.New(fault.InvalidArgument, "record", "has a payload both inline and in segments")
	}
	size := int64(len(r.Inline))
	seen := make(map[[16]byte]bool, len(r.Segments))
	for i := range r.Segments {
		s := &r.Segments[i]
		if s.SizeBytes <= 0 || s.SizeBytes > r.SizeBytes-size {
			return fault.New(fault.InvalidArgument, "segments", "number %d has %d bytes, which doesn't fit into the object's %d", i, s.SizeBytes, r.SizeBytes)
		}
		size += s.SizeBytes
		if seen[s.ID] {
			return fault.New(fault.InvalidArgument, "segments", "has %x twice", s.ID)
		}
		seen[s.ID] = true
		if n := len(s.Drives); n == 0 || n > maxSegmentDrives {
			return fault.New(fault.InvalidArgument, "segments", "number %d has %d drives, 1 to %d are allowed", i, n, maxSegmentDrives)
		}
		if err := checkDrives(s.Drives); err != nil {
			return err
		}
	}
	if size != r.SizeBytes {
		return fault.New(fault.InvalidArgument, "size", "is %d, and the payload has %d bytes", r.SizeBytes, size)
	}
	return nil
}

// validate says what is wrong with a query.
func (q *Query) validate() error {
	if q.Version != QueryVersion {
		return fault.New(fault.Unimplemented, "query", "version %d is not known here, only %d", q.Version, QueryVersion)
	}
	set := 0
	for _, present := range []bool{q.Deployment != nil, q.Bucket != nil, q.Buckets != nil, q.Record != nil, q.Records != nil, q.Begin != nil, q.Topology != nil, q.Garbage != nil, q.Segments != nil, q.Usage != nil, q.Copies != nil, q.Scrub != nil, q.BucketUsage != nil, q.BucketUsages != nil, q.Totals != nil, q.User != nil, q.Users != nil, q.Key != nil, q.Keys != nil} {
		if present {
			set++
		}
	}
	if set != 1 {
		return fault.New(fault.InvalidArgument, "query", "has %d parts, not one", set)
	}
	if q.MaxAge < 0 {
		return fault.New(fault.InvalidArgument, "max_age", "is %v", q.MaxAge)
	}
	switch {
	case q.Usage != nil:
		if n, of := len(q.Usage.Drives), len(q.Usage.Elsewhere); n == 0 || max(n, of) > MaxQueryDrives {
			return fault.New(fault.InvalidArgument, "drives", "has %d entries, 1 to %d are allowed", max(n, of), MaxQueryDrives)
		}
		return checkPosition(q.Usage.After, 0)
	case q.Copies != nil:
		return q.Copies.validate()
	case q.BucketUsage != nil:
		return checkBucket(q.BucketUsage.Bucket)
	case q.BucketUsages != nil:
		if n := len(q.BucketUsages.IDs); n > MaxPage {
			return fault.New(fault.InvalidArgument, "ids", "has %d entries, at most %d are allowed", n, MaxPage)
		}
		return checkPosition(q.BucketUsages.After, q.BucketUsages.Limit)
	case q.Scrub != nil, q.Totals != nil:
		return nil
	case q.Bucket != nil:
		return checkBucket(q.Bucket.Name)
	case q.Buckets != nil:
		return checkPosition(q.Buckets.After, q.Buckets.Limit)
	case q.Record != nil:
		if err := checkBucket(q.Record.Bucket); err != nil {
			return err
		}
		return checkKey(q.Record.Key)
	case q.Records != nil:
		return q.Records.validate()
	case q.Begin != nil:
		if q.Begin.SizeBytes < -1 {
			return fault.New(fault.InvalidArgument, "size", "is %d", q.Begin.SizeBytes)
		}
		if q.Begin.Key != "" {
			if err := checkKey(q.Begin.Key); err != nil {
				return err
			}
		}
		return checkBucket(q.Begin.Bucket)
	case q.Garbage != nil:
		if q.Garbage.Before < 0 {
			return fault.New(fault.InvalidArgument, "before", "is %d", q.Garbage.Before)
		}
		if err := checkPosition("", q.Garbage.Limit); err != nil {
			return err
		}
		return checkName("drive", q.Garbage.Drive)
	case q.Segments != nil:
		if n := len(q.Segments.IDs); n > MaxSegmentIDs {
			return fault.New(fault.InvalidArgument, "ids", "has %d entries, at most %d are allowed", n, MaxSegmentIDs)
		}
		if q.Segments.Drive != "" {
			return checkName("drive", q.Segments.Drive)
		}
	default:
		return q.validateIAM()
	}
	return nil
}

func (q *RecordsQuery) validate() error {
	if err := checkBucket(q.Bucket); err != nil {
		return err
	}
	for _, s := range []struct{ name, value string }{{"prefix", q.Prefix}, {"delimiter", q.Delimiter}} {
		if len(s.value) > maxPrefixBytes || strings.IndexByte(s.value, 0) >= 0 || !utf8.ValidString(s.value) {
			return fault.New(fault.InvalidArgument, s.name, "isn't UTF-8 of at most %d bytes without NUL", maxPrefixBytes)
		}
	}
	return checkPosition(q.After, q.Limit)
}

func checkPosition(after string, limit int) error {
	if len(after) > maxAfterBytes {
		return fault.New(fault.InvalidArgument, "after", "has %d bytes, at most %d are allowed", len(after), maxAfterBytes)
	}
	if limit < 0 {
		return fault.New(fault.InvalidArgument, "limit", "is %d", limit)
	}
	return nil
}

// checkName checks what becomes a row's key, or a part of it that a NUL ends.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fault.New(fault.InvalidArgument, what, "is empty")
	case len(name) > MaxNameBytes:
		return fault.New(fault.InvalidArgument, what, "has %d bytes, at most %d are allowed", len(name), MaxNameBytes)
	case strings.IndexByte(name, 0) >= 0 || !utf8.ValidString(name):
		return fault.New(fault.InvalidArgument, what, "isn't UTF-8 without NUL")
	}
	return nil
}

func checkBucket(name string) error { return checkName("bucket", name) }

func checkKey(key string) error {
	switch {
	case key == "":
		return fault.New(fault.InvalidArgument, "key", "is empty")
	case len(key) > MaxKeyBytes:
		return fault.New(fault.InvalidArgument, "key", "has %d bytes, at most %d are allowed", len(key), MaxKeyBytes)
	case strings.IndexByte(key, 0) >= 0 || !utf8.ValidString(key):
		return fault.New(fault.InvalidArgument, "key", "isn't UTF-8 without NUL")
	}
	return nil
}

// checkDrives checks names of drives, of which none may be there twice.
func checkDrives(drives []string) error {
	for i, d := range drives {
		if err := checkName("drive", d); err != nil {
			return err
		}
		for _, other := range drives[:i] {
			if d == other {
				return fault.New(fault.InvalidArgument, "drives", "has %q twice", d)
			}
		}
	}
	return nil
}

func checkConditions(lists ...[]string) error {
	for _, list := range lists {
		if len(list) > MaxConditions {
			return fault.New(fault.InvalidArgument, "conditions", "have %d entity tags, at most %d are allowed", len(list), MaxConditions)
		}
		for _, tag := range list {
			if len(tag) > maxETagBytes {
				return fault.New(fault.InvalidArgument, "conditions", "have an entity tag of %d bytes, at most %d are allowed", len(tag), maxETagBytes)
			}
		}
	}
	return nil
}
