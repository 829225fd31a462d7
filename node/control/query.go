package control

import "time"

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -file=query.go -o=query_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// QueryVersion is the version of queries that this program asks and answers.
const QueryVersion = 1

// Limits of one query and its answer.
const (
	MaxPage        = 1000    // entries of one page; larger limits mean this
	MaxSegmentIDs  = 1000    // ids of one SegmentsQuery
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
// PutRecord.Birth. BucketNotFound; NoSpace where the put couldn't be committed.
type BeginQuery struct {
	Bucket string `msg:"b"`
}

// TopologyQuery asks for Answer.Topology.
type TopologyQuery struct{}

// GarbageQuery asks for the segments on a drive that no record has referred
// to since Before, oldest first: Answer.Garbage and More. What was deleted is
// told by Reclaim and not given again.
type GarbageQuery struct {
	Drive  string `msg:"d"`
	Before int64  `msg:"b"` // log time, exclusive
	Limit  int    `msg:"l"` // 0 and more than MaxPage mean MaxPage
}

// SegmentsQuery asks which segments are known, that is referred to by a
// record or still listed as garbage: Answer.Known. A file whose segment is
// not, and which is over two hours old by Answer.LogTime, was left by a put
// that never came to its commit.
type SegmentsQuery struct {
	IDs [][16]byte `msg:"i"` // at most MaxSegmentIDs
}

// UsageQuery asks whether a record has a segment on one of the drives:
// Answer.Used; or, after a part of the records that has none, More and Next.
type UsageQuery struct {
	Drives []string `msg:"d"` // ids; at most MaxDrives
	After  string   `msg:"a"` // Next of the answer before; "" is the beginning
}

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

	// Next is the After of the next page. It is a position, not always a key,
	// and not always valid UTF-8: after a common prefix it is that and 0xff,
	// which no key holds.
	Next string `msg:"nx,omitempty"`
	More bool   `msg:"m,omitempty"` // there is something behind Next
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
	Drives []string `msg:"d"` // sorted
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
