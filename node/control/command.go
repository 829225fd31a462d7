package control

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -file=command.go -o=command_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// CommandVersion is the newest version of commands that this program writes and
// applies, and oldestCommand the oldest. A command of another version is refused
// before it enters the log. Each command is written in the version that first
// had it: 2 for MoveRecord, 1 for all others.
const (
	CommandVersion = 2
	oldestCommand  = 1
)

// Limits of one command. Propose refuses what is over them, so that nothing
// in the log is ever too large to apply.
const (
	MaxDeleteKeys   = 1000    // keys of one DeleteRecords
	MaxReclaim      = 1000    // entries of one Reclaim
	MaxDrives       = 256     // drives of one JoinNode
	MaxConditions   = 64      // ETags in one IfMatch or IfNoneMatch
	MaxNameBytes    = 255     // node names, drive ids, bucket names
	MaxURLBytes     = 1024    // JoinNode.URL
	maxCommandBytes = 2 << 20 // bytes of one encoded command
	maxETagBytes    = 1024    // one ETag, as stored or as a condition
)

// Command is one change of the index: exactly one of the pointers is set.
// Propose doesn't change it, and nor may its caller any more: where the caller
// has left, the command may still be on its way.
type Command struct {
	// Version is the one that first had the command, or a later one up to
	// CommandVersion; 0 means the first, and is filled in by Propose.
	Version uint8 `msg:"v"`
	// RequestID makes retries safe: a command whose id was applied within the
	// last ten minutes of log time is answered as it was then, and not applied
	// again. The zero id is replaced by a random one in Propose.
	RequestID [16]byte `msg:"r"`
	// Slots is the epoch of the slot table that led the command to its group,
	// which refuses another than its own. Propose fills it in.
	Slots uint64 `msg:"sl,omitempty"`

	// Of the system group.
	Init         *Init         `msg:"init,omitempty"`
	CreateBucket *CreateBucket `msg:"cb,omitempty"`
	RemoveBucket *RemoveBucket `msg:"rb,omitempty"`
	JoinNode     *JoinNode     `msg:"jn,omitempty"`
	AdmitNode    *AdmitNode    `msg:"an,omitempty"`
	BindNode     *BindNode     `msg:"bn,omitempty"`
	MarkNode     *MarkNode     `msg:"mn,omitempty"`
	ForgetNode   *ForgetNode   `msg:"fn,omitempty"`

	// Of the system group, for users and keys: iam.go.
	PutUser    *PutUser    `msg:"pu,omitempty"`
	UpdateUser *UpdateUser `msg:"uu,omitempty"`
	DeleteUser *DeleteUser `msg:"du,omitempty"`
	PutKey     *PutKey     `msg:"pk,omitempty"`
	UpdateKey  *UpdateKey  `msg:"uk,omitempty"`
	DeleteKey  *DeleteKey  `msg:"dk,omitempty"`
	TouchKeys  *TouchKeys  `msg:"tk,omitempty"`
	SealMaster *SealMaster `msg:"sm,omitempty"`

	// Of a data group.
	PutRecord     *PutRecord     `msg:"pr,omitempty"`
	DeleteRecords *DeleteRecords `msg:"dr,omitempty"`
	CloseBucket   *CloseBucket   `msg:"clb,omitempty"`
	Reclaim       *Reclaim       `msg:"rc,omitempty"`
	MoveRecord    *MoveRecord    `msg:"mr,omitempty"` // since version 2

	// DeleteBucket is of both: Propose makes a CloseBucket and a RemoveBucket
	// of it, and it is never in a log.
	DeleteBucket *DeleteBucket `msg:"-"`
}

// Init names the mesh. It is the first command of all and proposed by the
// first leader itself; a second one is a Conflict.
type Init struct {
	Deployment string `msg:"d"` // UUID
}

// CreateBucket makes a bucket: Result.Bucket. AlreadyExists where there is
// one of that name.
type CreateBucket struct {
	Name string `msg:"n"`
	// ID is the bucket's identity: records belong to the id, so that nothing
	// of a deleted bucket shows up in a later one of its name. It is random
	// and chosen before the log, since apply may not be; the zero id is
	// filled in by Propose.
	ID [16]byte `msg:"i"`
}

// DeleteBucket removes an empty bucket. BucketNotFound, BucketNotEmpty.
type DeleteBucket struct {
	Name string
}

// CloseBucket makes a data group refuse what belongs to a bucket, for good, if
// the group has no record of it: BucketNotEmpty. For whoever puts and gets the
// bucket is gone with that.
type CloseBucket struct {
	Name string   `msg:"n"`
	ID   [16]byte `msg:"i"`
}

// RemoveBucket removes a bucket's row, after every data group has closed it.
// One that isn't there, or has another id by now, is no error.
type RemoveBucket struct {
	Name string   `msg:"n"`
	ID   [16]byte `msg:"i"`
}

// PutRecord makes an object visible: Result.Record. BucketNotFound unless the
// bucket BucketName has the id BucketID; PreconditionFailed; Conflict for a
// put that is over an hour old and for a segment of another record.
type PutRecord struct {
	BucketName string   `msg:"b"`
	BucketID   [16]byte `msg:"i"` // from BeginQuery; without segments it may be left to Propose
	Record     Record   `msg:"r"`

	// IfMatch holds if the present record has one of these ETags, "*" being
	// any record. IfNoneMatch holds if it has none of them, "*" being no
	// record at all. Empty lists hold always. ETags are compared as they are
	// stored in records, byte by byte, without quotes.
	IfMatch     []string `msg:"im,omitempty"`
	IfNoneMatch []string `msg:"nm,omitempty"`
	// IfUnmodifiedSince holds if the present record's log time, in whole
	// seconds, is at most this; unix seconds, 0 holds always, and so does a
	// record that isn't there (RFC 9110, 13.1.4).
	IfUnmodifiedSince int64 `msg:"us,omitempty"`

	// Birth is the log time that the put began with: Answer.LogTime of its
	// BeginQuery. A put is refused an hour of log time after it, so that the
	// collector may delete what no record refers to after two. A record
	// without segments needs none.
	Birth int64 `msg:"t"`
}

// DeleteRecords removes records: Result.Deleted and Result.Missing, in the
// order of Keys. A key that isn't there is no error. BucketNotFound;
// PreconditionFailed, which a condition on a missing record is too.
type DeleteRecords struct {
	Bucket   string   `msg:"b"`
	BucketID [16]byte `msg:"i"` // may be left to Propose
	Keys     []string `msg:"k"` // at most MaxDeleteKeys, none twice
	// The conditions are PutRecord's, and allowed with a single key only.
	IfMatch           []string `msg:"im,omitempty"`
	IfUnmodifiedSince int64    `msg:"us,omitempty"`
}

// MoveRecord takes a record from one place to another, in one step:
// Result.Record and Replaced. What it refers to stays as it is: no payload
// moves, and nothing becomes garbage but what the target overwrites.
// BucketNotFound and ObjectNotFound of the source; PreconditionFailed of either;
// InvalidArgument where both are the same place; Unimplemented where another
// group than the source's has the target.
type MoveRecord struct {
	From Place `msg:"f"`
	To   Place `msg:"t"`
	// VersionID is the record's at its target, random: it is a new version
	// there, as if it had been put.
	VersionID [16]byte `msg:"i"`
}

// Place is one end of a move, and the state that it must be in.
type Place struct {
	Bucket   string   `msg:"b"`
	BucketID [16]byte `msg:"i"` // may be left to Propose, at both ends
	Key      string   `msg:"k"`
	// The conditions are PutRecord's.
	IfMatch           []string `msg:"im,omitempty"`
	IfNoneMatch       []string `msg:"nm,omitempty"`
	IfUnmodifiedSince int64    `msg:"us,omitempty"`
}

// JoinNode makes a node's address and drives known: Result.Epoch. Joining again
// with the same facts changes nothing, the epoch included. NotFound where it is
// no node of the mesh.
type JoinNode struct {
	Node   string   `msg:"n"`
	URL    string   `msg:"u"` // base URL of its peer listener
	Drives []string `msg:"d"` // drive ids; the order has no meaning
}

// AdmitNode lets a node in that has no part in the mesh yet: it may come under
// that name. AlreadyExists.
type AdmitNode struct {
	Node string `msg:"n"`
	URL  string `msg:"u"`
}

// BindNode binds a node's name to its raft id, the first time it comes.
// Conflict where the name is bound to another; ObjectNotFound's like, NotFound,
// where nobody has admitted it.
type BindNode struct {
	Node   string `msg:"n"`
	URL    string `msg:"u"`
	RaftID uint64 `msg:"i"`
}

// MarkNode changes what is to become of a node. NotFound.
type MarkNode struct {
	Node string `msg:"n"`
	// Drain keeps leadership and new payload away, Undo ends that. Leave has it
	// removed from all groups and then forgotten. Replace frees its name: it
	// may come once more, blank and with a new raft id, in the place of the
	// old one. Exactly one is set.
	Drain   bool `msg:"d,omitempty"`
	Undo    bool `msg:"u,omitempty"`
	Leave   bool `msg:"l,omitempty"`
	Replace bool `msg:"r,omitempty"`
}

// ForgetNode removes a leaving node's row, once it is in no group. One that
// isn't there is no error.
type ForgetNode struct {
	Node string `msg:"n"`
}

// Reclaim says that these segments' files are gone. Unknown entries are
// no error.
type Reclaim struct {
	Entries []Garbage `msg:"e"` // as they came from GarbageQuery; at most MaxReclaim
}

// Garbage is one copy of a segment that no record refers to any more.
type Garbage struct {
	Drive     string   `msg:"d"` // drive id
	LogTime   int64    `msg:"t"` // when it became garbage
	ID        [16]byte `msg:"i"` // of the segment
	SizeBytes int64    `msg:"s"`
}

// Result is what a command came to. LogTime and Epoch are set by every
// command, the others by those that say so.
type Result struct {
	LogTime  int64    // unix ns, of the command
	Epoch    uint64   // of the topology, after the command
	Bucket   *Bucket  // CreateBucket
	Record   *Record  // PutRecord: the record as stored, Inline and Segments shared with the command's; MoveRecord: without them
	Deleted  []string // DeleteRecords
	Missing  []string // DeleteRecords
	Replaced bool     // PutRecord, MoveRecord: there was a record of that key before
	Revision uint64   // PutUser, UpdateUser, PutKey, UpdateKey
}

// Bucket is a bucket's row.
type Bucket struct {
	Name    string   `msg:"n"`
	ID      [16]byte `msg:"i"`
	LogTime int64    `msg:"t"` // of its creation, unix ns
}
