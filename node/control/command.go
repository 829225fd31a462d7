package control

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -file=command.go -o=command_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// CommandVersion is the newest version of commands that this program writes and
// applies, and oldestCommand the oldest. A command of another version is refused
// before it enters the log.
const (
	CommandVersion = 3
	oldestCommand  = 3
)

// Limits of one command. Propose refuses what is over them, so that nothing
// in the log is ever too large to apply.
const (
	MaxDeleteKeys   = 1000    // keys of one DeleteRecords
	MaxReclaim      = 1000    // entries of one Reclaim
	MaxRecopy       = 1000    // entries of one Recopy
	MaxDrives       = 256     // drives of one node
	MaxConditions   = 64      // ETags in one IfMatch or IfNoneMatch
	MaxNameBytes    = 255     // node names, drive ids, bucket names, pools, zones
	MaxURLBytes     = 1024    // JoinNode.URL
	maxCommandBytes = 2 << 20 // bytes of one encoded command
	maxETagBytes    = 1024    // one ETag, as stored or as a condition
)

// Command is one change of the index: exactly one of the pointers is set.
// Propose doesn't change it, and nor may its caller any more: where the caller
// has left, the command may still be on its way.
type Command struct {
	// Version is CommandVersion; 0 means that, and is filled in by Propose.
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
	MarkDrive    *MarkDrive    `msg:"md,omitempty"`

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
	MoveRecord    *MoveRecord    `msg:"mr,omitempty"`
	Recopy        *Recopy        `msg:"cp,omitempty"`
	SetQuota      *SetQuota      `msg:"sq,omitempty"`
	NoteScrub     *NoteScrub     `msg:"ns,omitempty"`

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
// bucket BucketName has the id BucketID; PreconditionFailed; QuotaExceeded;
// Conflict for a put that is over an hour old and for a segment of another
// record.
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

	// Copies is how many copies each segment was meant to have. Those with
	// fewer drives are noted as unfinished: CopiesQuery.Pending has them until a
	// Recopy settles them. 0: as many as it has.
	Copies uint8 `msg:"cp,omitempty"`
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
// QuotaExceeded of the target; InvalidArgument where both are the same place; Unimplemented where another
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

// JoinNode makes known where a node is and what it has: Result.Epoch. Joining
// again with the same facts changes nothing, the epoch included. NotFound where
// it is no node of the mesh, Conflict for a drive of another node, QuotaExceeded
// for more than MaxDrives.
type JoinNode struct {
	Node string `msg:"n"`
	URL  string `msg:"u"` // base URL of its peer listener
	// Drives are ids, in any order. The node keeps those it had before: a drive
	// that doesn't come is away, and leaves by MarkDrive alone.
	Drives []string `msg:"d"`
	Pool   string   `msg:"pl"`          // "" is DefaultPool
	Zone   string   `msg:"z,omitempty"` // "": the node is a zone of its own
}

// DefaultPool is the pool of nodes that give none.
const DefaultPool = "default"

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

// MarkDrive changes what is to become of a drive. NotFound.
type MarkDrive struct {
	Drive string `msg:"i"`
	// Drain keeps new payload away and has the copies there moved to other
	// drives, Undo ends that. Remove takes it out of the mesh, where its copies
	// count as gone; it comes again only if its node joins with it once more.
	// Exactly one is set.
	Drain  bool `msg:"d,omitempty"`
	Undo   bool `msg:"u,omitempty"`
	Remove bool `msg:"r,omitempty"`
}

// Recopy says where copies of segments are now: Result.Fates. It is refused as
// Conflict an hour of log time after Birth, where it adds any.
type Recopy struct {
	Entries []CopyChange `msg:"e"` // at most MaxRecopy, of no segment twice
	// Birth is a log time before the first of the copies to add was begun: that
	// of any answer. Without any it may be 0.
	Birth int64 `msg:"t,omitempty"`
}

// CopyChange makes of a segment's drives those that are neither in Remove nor
// in Drop, and those in Add. No drive is in two of them.
type CopyChange struct {
	ID     [16]byte `msg:"i"`           // of the segment
	Add    []string `msg:"a,omitempty"` // drives that have synced a copy
	Remove []string `msg:"r,omitempty"` // drives whose copies become garbage
	Drop   []string `msg:"d,omitempty"` // drives that are no part of the mesh: their copies are forgotten
	// Settled: the segment has the copies that it should. Otherwise, with fewer
	// copies than before, it is noted as unfinished.
	Settled bool `msg:"s,omitempty"`
	// Seen, if there is any, is what the segment's drives were when its maker
	// looked, in any order. Of two that take different copies away, since one of
	// them is enough, the second is refused.
	Seen []string `msg:"w,omitempty"`
}

// CopyFate is what became of an entry of a Recopy.
type CopyFate uint8

// The fates. A change that is refused may be right later, after another look at
// the segment.
const (
	FateGone    CopyFate = iota // no record refers to the segment
	FateDone                    // it is as the entry says, or was so already
	FateRefused                 // no copy would be left, or more than a segment may have, or the drives aren't those in Seen, or the file of one to add is garbage, or was until after Birth
)

// SetQuota limits what a bucket may hold. What it holds already stays, and may
// shrink. BucketNotFound.
type SetQuota struct {
	Bucket     string   `msg:"b"`
	BucketID   [16]byte `msg:"i"`           // may be left to Propose
	MaxObjects int64    `msg:"o,omitempty"` // 0: no limit
	MaxBytes   int64    `msg:"s,omitempty"` // 0: no limit
}

// NoteScrub remembers how far scrubbing has come. An older round than the one
// that is known changes nothing.
type NoteScrub struct {
	Scrub ScrubState `msg:"s"`
}

// ScrubState is how far scrubbing has come.
type ScrubState struct {
	Round    uint64 `msg:"r"`           // counts the passes over all segments
	After    string `msg:"a,omitempty"` // CopiesQuery.After of where it goes on
	Started  int64  `msg:"b"`           // log time of the round's beginning
	Ended    int64  `msg:"e,omitempty"` // and of its end; 0: it isn't at its end
	Segments int64  `msg:"n"`           // that the round has looked at
	Bytes    int64  `msg:"s"`           // that it has read, of all copies
	Bad      int64  `msg:"x"`           // copies that it has found bad
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
	LogTime  int64      // unix ns, of the command
	Epoch    uint64     // of the topology, after the command
	Bucket   *Bucket    // CreateBucket
	Record   *Record    // PutRecord: the record as stored, Inline and Segments shared with the command's; MoveRecord: without them
	Deleted  []string   // DeleteRecords
	Missing  []string   // DeleteRecords
	Fates    []CopyFate // Recopy, in the order of its entries
	Replaced bool       // PutRecord, MoveRecord: there was a record of that key before
	Revision uint64     // PutUser, UpdateUser, PutKey, UpdateKey
}

// Bucket is a bucket's row.
type Bucket struct {
	Name    string   `msg:"n"`
	ID      [16]byte `msg:"i"`
	LogTime int64    `msg:"t"` // of its creation, unix ns
}
