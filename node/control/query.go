package control

import (
	"slices"
	"sync/atomic"
	"time"
)

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -file=query.go -o=query_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// QueryVersion is the version of queries that this program asks and answers.
const QueryVersion = 2

// Limits of one query and its answer.
const (
	MaxPage        = 1000    // entries of one page; larger limits mean this
	MaxSegmentIDs  = 1000    // ids of one SegmentsQuery
	MaxQueryDrives = 4096    // drives of one UsageQuery or CopiesQuery
	maxPrefixBytes = 1024    // Prefix, and Delimiter
	maxAfterBytes  = 2048    // After: a key, or a prefix and one byte
	maxPageBytes   = 4 << 20 // encoded bytes of one page; at least one entry is given
)

// Query is one read: exactly one of the pointers is set. It is linearizable
// unless MaxAge allows for less.
type Query struct {
	Version uint8 `msg:"v"` // QueryVersion; 0 means that
	// MaxAge allows an answer from the asked node's own copy, if that shows
	// everything that was acknowledged up to so long ago. 0: up to the call.
	MaxAge time.Duration `msg:"ma,omitempty"`
	// BucketID is the id of the bucket that a query of records names. Read
	// fills it in.
	BucketID [16]byte `msg:"bi"`

	Deployment *DeploymentQuery `msg:"dep,omitempty"`
	Bucket     *BucketQuery     `msg:"b,omitempty"`
	Buckets    *BucketsQuery    `msg:"bs,omitempty"`
	Record     *RecordQuery     `msg:"r,omitempty"`
	Records    *RecordsQuery    `msg:"rs,omitempty"`
	Begin      *BeginQuery      `msg:"bg,omitempty"`
	Topology   *TopologyQuery   `msg:"t,omitempty"`
	Garbage    *GarbageQuery    `msg:"g,omitempty"`
	Segments   *SegmentsQuery   `msg:"s,omitempty"`
	Usage      *UsageQuery      `msg:"u,omitempty"`
	Copies     *CopiesQuery     `msg:"c,omitempty"`
	Scrub      *ScrubQuery      `msg:"sc,omitempty"`

	BucketUsage  *BucketUsageQuery  `msg:"bu,omitempty"`
	BucketUsages *BucketUsagesQuery `msg:"bus,omitempty"`
	Totals       *TotalsQuery       `msg:"to,omitempty"`

	// Of users and keys: iam.go.
	User  *UserQuery  `msg:"iu,omitempty"`
	Users *UsersQuery `msg:"ius,omitempty"`
	Key   *KeyQuery   `msg:"ik,omitempty"`
	Keys  *KeysQuery  `msg:"iks,omitempty"`
}

// DeploymentQuery asks for Answer.Deployment.
type DeploymentQuery struct{}

// BucketQuery asks for Answer.Bucket. BucketNotFound.
type BucketQuery struct {
	Name string `msg:"n"`
}

// BucketsQuery asks for a page of Answer.Buckets in the order of their names.
type BucketsQuery struct {
	After string `msg:"a"` // exclusive; "" is the beginning
	Limit int    `msg:"l"` // 0 and more than MaxPage mean MaxPage
}

// RecordQuery asks for Answer.Record and Bucket. BucketNotFound, ObjectNotFound.
type RecordQuery struct {
	Bucket string `msg:"b"`
	Key    string `msg:"k"`
}

// RecordsQuery asks for a page of a listing in the byte order of the keys:
// Answer.Records, CommonPrefixes, Next, More and Bucket. One page is one consistent
// view of the index; the next page is a later one. BucketNotFound.
//
// With a delimiter, all keys that share what comes up to and with the first
// delimiter after Prefix are given as one common prefix, at the price of one
// seek, however many they are. Records and common prefixes together are at
// most Limit, and fewer than that where they would be over 4 MiB.
type RecordsQuery struct {
	Bucket    string `msg:"b"`
	Prefix    string `msg:"p"`
	Delimiter string `msg:"d"`
	// After is an exclusive position: a key or any other bytes, Next of the
	// page before among them. "" is the beginning.
	After string `msg:"a"`
	Limit int    `msg:"l"` // 0 and more than MaxPage mean MaxPage
}

// BeginQuery begins a put: Answer.Bucket, and Answer.LogTime for
// PutRecord.Birth. BucketNotFound; NoSpace and QuotaExceeded where the put
// couldn't be committed as things are now.
type BeginQuery struct {
	Bucket    string `msg:"b"`
	Key       string `msg:"k,omitempty"` // "": no quota is looked at
	SizeBytes int64  `msg:"s,omitempty"` // of the object; -1: not known
}

// TopologyQuery asks for Answer.Topology.
type TopologyQuery struct{}

// GarbageQuery asks for the segments on a drive that no record has referred
// to since Before, oldest first: Answer.Garbage and More. What was deleted is
// told by Reclaim and not given again.
type GarbageQuery struct {
	Drive  string `msg:"d"` // "" with Present
	Before int64  `msg:"b"` // log time, exclusive
	Limit  int    `msg:"l"` // 0 and more than MaxPage mean MaxPage
	// Present, instead of a drive, asks for the garbage of all drives but these,
	// in the order of the drives: of those that have left the mesh, whose nodes
	// never ask.
	Present []string `msg:"p,omitempty,limit=4096"` // ids; at most MaxQueryDrives
}

// SegmentsQuery asks which segments are known, that is referred to by a
// record or still listed as garbage: Answer.Known. With a drive, it asks which
// of its files are: those that a record lists there, or that are garbage there.
// A file that is not, and which is over two hours old by Answer.LogTime, was left
// by a put or a copy that never came to its commit.
type SegmentsQuery struct {
	IDs   [][16]byte `msg:"i"` // at most MaxSegmentIDs
	Drive string     `msg:"d,omitempty"`
}

// UsageQuery asks whether a record has a segment on one of the drives:
// Answer.Used; or, after a part of the records that has none, More and Next.
type UsageQuery struct {
	Drives []string `msg:"d,limit=4096"` // ids; at most MaxQueryDrives
	After  string   `msg:"a"`            // Next of the answer before; "" is the beginning
	// Sole asks only for segments with no copy elsewhere: what is lost with
	// the drives. Elsewhere are the other drives that count for that, which is
	// all where there are none: so that a record which still lists a drive that
	// is gone doesn't make it look safe.
	Sole      bool     `msg:"s,omitempty"`
	Elsewhere []string `msg:"e,omitempty,limit=4096"` // ids; at most MaxQueryDrives
}

// CopiesQuery asks for a page of the segments and where their copies are:
// Answer.Copies, Next and More. A page may be empty, with more behind it: its work
// is bounded by the records that are looked at. A record that moves to an earlier
// place during a pass isn't met by it; one that is overwritten is, as it is then.
type CopiesQuery struct {
	After string `msg:"a"` // Next of the page before, of the same kind; "" is the beginning
	Limit int    `msg:"l"` // 0 and more than MaxPage mean MaxPage
	// Pending asks for the unfinished ones only, in the order of their ids.
	Pending bool `msg:"p,omitempty"`
	// Good, if there is any, leaves out the segments that are well: those with
	// at least Want of their copies on these drives, and none elsewhere.
	Good []string `msg:"g,omitempty,limit=4096"` // ids; at most MaxQueryDrives
	Want uint8    `msg:"w,omitempty"`
	// IDs asks for these segments alone, those of them that a record has, all on
	// one page.
	IDs [][16]byte `msg:"ids,omitempty"` // at most MaxSegmentIDs
}

// SegmentCopies is where the copies of a segment are.
type SegmentCopies struct {
	BucketID  [16]byte `msg:"b"`
	Key       string   `msg:"k"`
	ID        [16]byte `msg:"i"`
	SizeBytes int64    `msg:"s"`
	CRC32C    uint32   `msg:"c"`
	Drives    []string `msg:"d"`
}

// BucketUsageQuery asks for Answer.BucketUsage. BucketNotFound.
type BucketUsageQuery struct {
	Bucket string `msg:"b"`
}

// BucketUsagesQuery asks for a page of Answer.BucketUsages in the order of the
// buckets' names. Names and usage are from two views, one after the other.
type BucketUsagesQuery struct {
	After string     `msg:"a"`           // exclusive, Next of the page before; "" is the beginning
	Limit int        `msg:"l"`           // 0 and more than MaxPage mean MaxPage
	IDs   [][16]byte `msg:"i,omitempty"` // of the buckets whose usage the data group has; Read fills it in
}

// BucketUsage is what a bucket holds, and may hold at most; 0 is no limit.
type BucketUsage struct {
	Objects    int64 `msg:"o"`
	Bytes      int64 `msg:"s"` // of the objects; copies don't count
	MaxObjects int64 `msg:"mo,omitempty"`
	MaxBytes   int64 `msg:"ms,omitempty"`
}

// NamedUsage is a bucket's usage with its name.
type NamedUsage struct {
	Name  string      `msg:"n"`
	Usage BucketUsage `msg:"u"`
}

// TotalsQuery asks for Answer.Totals.
type TotalsQuery struct{}

// Totals is what all buckets hold together.
type Totals struct {
	Objects int64 `msg:"o"`
	Bytes   int64 `msg:"s"` // of the objects; copies don't count
}

// ScrubQuery asks for Answer.Scrub: the last that was noted.
type ScrubQuery struct{}

// Answer is the answer to a query. LogTime and Epoch are set by every query.
type Answer struct {
	// LogTime is at least the log time of all that the answer shows, and by
	// the owner's clock where that is ahead; unix ns.
	LogTime int64  `msg:"lt"`
	Epoch   uint64 `msg:"e"` // of the topology

	Deployment     string    `msg:"dep,omitempty"`
	Bucket         *Bucket   `msg:"b,omitempty"`
	Buckets        []Bucket  `msg:"bs,omitempty"`
	Record         *Record   `msg:"r,omitempty"`
	Records        []Record  `msg:"rs,omitempty"` // without Inline and Segments
	CommonPrefixes []string  `msg:"cp,omitempty"`
	Topology       *Topology `msg:"t,omitempty"`
	Garbage        []Garbage `msg:"g,omitempty"`
	Known          []bool    `msg:"k,omitempty"` // in the order of SegmentsQuery.IDs
	Used           bool      `msg:"u,omitempty"` // UsageQuery
	Users          []UserRow `msg:"iu,omitempty"`
	Keys           []KeyRow  `msg:"ik,omitempty"`

	Copies       []SegmentCopies `msg:"c,omitempty"`
	Scrub        *ScrubState     `msg:"sc,omitempty"`
	BucketUsage  *BucketUsage    `msg:"bu,omitempty"`
	BucketUsages []NamedUsage    `msg:"bus,omitempty"`
	Totals       *Totals         `msg:"to,omitempty"`

	// Next is the After of the next page. It is a position, not always a key,
	// and not always valid UTF-8: after a common prefix it is that and 0xff,
	// which no key holds.
	Next string `msg:"nx,omitempty"`
	More bool   `msg:"m,omitempty"` // there is something behind Next

	// Made has room for what a reader makes of Record, which the next one finds
	// there, for as long as the record is kept here. nil: it isn't kept.
	Made *atomic.Value `msg:"-"`
}

// Topology is the nodes that have joined. It is immutable: whoever holds one
// may read it for ever and must not change it.
type Topology struct {
	Epoch uint64 `msg:"e"` // increments with every change; 0: nobody has joined
	Nodes []Node `msg:"n"` // in the order of their names
}

// Node is one node of the topology.
type Node struct {
	Name   string   `msg:"n"`
	URL    string   `msg:"u"`
	Drives []string `msg:"d"`           // sorted
	Pool   string   `msg:"pl"`          // "" until it has joined
	Zone   string   `msg:"z,omitempty"` // "": it is a zone of its own
	// DrainingDrives are those of its drives that get no new payload and are
	// emptied, sorted.
	DrainingDrives []string `msg:"dd,omitempty"`
	// RaftID is the node's in all groups; 0 while it is admitted and hasn't
	// come, or hasn't come again.
	RaftID   uint64 `msg:"i"`
	Awaited  bool   `msg:"aw,omitempty"` // is to be replaced: it will come anew
	Draining bool   `msg:"dr,omitempty"` // leads nothing and gets no new payload
	Leaving  bool   `msg:"lv,omitempty"` // is being removed
}

// Node finds a node by its name, nil where there is none.
func (t *Topology) Node(name string) *Node {
	for i := range t.Nodes {
		if t.Nodes[i].Name == name {
			return &t.Nodes[i]
		}
	}
	return nil
}

// Drive finds the node that has a drive, nil where none has, and tells whether
// the drive is to be emptied: because of itself, or because its node drains or
// leaves.
func (t *Topology) Drive(id string) (node *Node, draining bool) {
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if _, has := slices.BinarySearch(n.Drives, id); has {
			_, draining = slices.BinarySearch(n.DrainingDrives, id)
			return n, draining || n.Draining || n.Leaving
		}
	}
	return nil, false
}
