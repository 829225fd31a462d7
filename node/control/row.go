package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tinylib/msgp/msgp"
)

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=row.go -o=row_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// A row's key is its kind, one byte, and then:
//
//	m                                     metaRow: how far this state has come
//	q requestID(16)                       replyRow: what a command came to
//	Q index(8)                            issuedRow: which command was applied there
//	i                                     identityRow: the mesh
//	l                                     slotTable: which group has which slots
//	b name                                Bucket
//	n name                                Node
//	r bucketID(16) key 00 ^index(8)       Record
//	s segmentID(16)                       segmentRow: who refers to it
//	h segmentID(16)                       healRow: it hasn't the copies that it should
//	g drive 00 logTime(8) segmentID(16)   garbageRow: a copy nobody refers to
//	c bucketID(16)                        closedRow: the bucket is deleted
//	U bucketID(16)                        BucketUsage: what is in the bucket
//	U                                     totalsRow: what is in all of them
//	S                                     ScrubState
//	a                                     iamRow: what there is once of users and keys
//	u name                                UserRow
//	k id                                  KeyRow: an access key
//	o user 00 id                          ownedRow: it is that user's
//	t id                                  usedRow: when it was used last
//	d name                                certificateRow: which user it stands for
//
// Numbers are big-endian, so that rows come in their order, and a record's
// index is inverted, so that its newest version comes first. Keys, drive ids
// and names hold no NUL: the separator sorts "a" before "a/b" and keeps the
// byte order of the keys.
//
// m, q, Q and l are in every group's store; r, s, h, g, c, U and S are a data
// group's, and the others the system group's.
//
// A value is one byte, the version of its encoding, and msgpack in the order
// of the fields: the same state is the same bytes on every node.
const (
	kindMeta     = 'm'
	kindReply    = 'q'
	kindIssued   = 'Q'
	kindIdentity = 'i'
	kindBucket   = 'b'
	kindNode     = 'n'
	kindRecord   = 'r'
	kindSegment  = 's'
	kindGarbage  = 'g'
	kindSlots    = 'l'
	kindClosed   = 'c'
	kindHeal     = 'h'
	kindUsage    = 'U'
	kindScrub    = 'S'

	kindIAM         = 'a'
	kindUser        = 'u'
	kindAccessKey   = 'k'
	kindOwned       = 'o'
	kindUsed        = 't'
	kindCertificate = 'd'
)

// rowVersion is the version of all rows but records, which have RecordVersion.
const rowVersion = 1

// metaRow is written with every batch.
type metaRow struct {
	Applied uint64 `msg:"a"` // index of the last entry applied
	Term    uint64 `msg:"m"` // of that entry
	Conf    []byte `msg:"c"` // membership after that entry: raft's ConfState
	LogTime int64  `msg:"t"` // of that entry
	Trimmed uint64 `msg:"x"` // replies up to this index are forgotten
}

// identityRow is the mesh's.
type identityRow struct {
	Deployment string `msg:"d"`
	Epoch      uint64 `msg:"e"` // of the topology
}

// replyRow answers a repeated command.
type replyRow struct {
	Index   uint64  `msg:"i"` // of the entry that was applied
	Outcome outcome `msg:"o"`
}

// issuedRow lets replies be forgotten in their order.
type issuedRow struct {
	RequestID [16]byte `msg:"r"`
	LogTime   int64    `msg:"t"`
}

// segmentRow says which record refers to a segment, if any does, and on which
// drives its file still has to be deleted: never one that the record lists. It
// goes with the last of both.
type segmentRow struct {
	Bucket  [16]byte `msg:"b,omitempty"`
	Key     string   `msg:"k,omitempty"` // "": no record does
	Garbage []string `msg:"g,omitempty"`
	Heal    bool     `msg:"h,omitempty"` // it has a healRow
	// Reclaimed is the log time at which garbage of it was last reclaimed while
	// a record referred to it. A copy that was begun before may have taken
	// the file that was about to go for its own.
	Reclaimed int64 `msg:"r,omitempty"`
}

// healRow stands for a segment that a record refers to and that hasn't as many
// copies as it should.
type healRow struct{}

// totalsRow is the sum over all buckets.
type totalsRow struct {
	Objects int64 `msg:"o"`
	Bytes   int64 `msg:"s"`
	Limited int64 `msg:"l"` // how many buckets have a quota
}

// garbageRow is a copy to be deleted.
type garbageRow struct {
	SizeBytes int64 `msg:"s"`
}

// closedRow stays for ever: it is what refuses a put that has been on its way
// while the bucket was deleted, and 17 bytes.
type closedRow struct {
	LogTime int64 `msg:"t"`
}

// errRow is what the errors of unreadable rows wrap: they are the store's
// fault and end the index, never a refusal.
var errRow = errors.New("control: unreadable row")

func metaKey() []byte     { return []byte{kindMeta} }
func identityKey() []byte { return []byte{kindIdentity} }
func slotsKey() []byte    { return []byte{kindSlots} }

func replyKey(id [16]byte) []byte   { return append([]byte{kindReply}, id[:]...) }
func segmentKey(id [16]byte) []byte { return append([]byte{kindSegment}, id[:]...) }
func healKey(id [16]byte) []byte    { return append([]byte{kindHeal}, id[:]...) }
func usageKey(id [16]byte) []byte   { return append([]byte{kindUsage}, id[:]...) }
func totalsKey() []byte             { return []byte{kindUsage} }
func scrubKey() []byte              { return []byte{kindScrub} }
func closedKey(id [16]byte) []byte  { return append([]byte{kindClosed}, id[:]...) }
func bucketKey(name string) []byte  { return append([]byte{kindBucket}, name...) }
func nodeKey(name string) []byte    { return append([]byte{kindNode}, name...) }

func iamKey() []byte                    { return []byte{kindIAM} }
func userKey(name string) []byte        { return append([]byte{kindUser}, name...) }
func accessKey(id string) []byte        { return append([]byte{kindAccessKey}, id...) }
func usedKey(id string) []byte          { return append([]byte{kindUsed}, id...) }
func certificateKey(name string) []byte { return append([]byte{kindCertificate}, name...) }

// ownedPosition is where the keys of a user begin.
func ownedPosition(user string) []byte { return append(append([]byte{kindOwned}, user...), 0) }
func ownedKey(user, key string) []byte { return append(ownedPosition(user), key...) }

func issuedKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindIssued}, index)
}

// recordPosition is where the rows of bucket's keys that begin with prefix
// begin themselves.
func recordPosition(bucket [16]byte, prefix string) []byte {
	b := make([]byte, 0, 1+len(bucket)+len(prefix)+9)
	b = append(b, kindRecord)
	b = append(b, bucket[:]...)
	return append(b, prefix...)
}

func recordKey(bucket [16]byte, key string, index uint64) []byte {
	return binary.BigEndian.AppendUint64(recordPrefix(bucket, key), ^index)
}

// recordPrefix is what the row keys of a record's versions begin with, and no
// others.
func recordPrefix(bucket [16]byte, key string) []byte {
	return append(recordPosition(bucket, key), 0)
}

// rowOrder is the order of the rows, that of their bytes. A record's row key
// has its recordPrefix for a prefix, by which Bloom filters know it, any other
// the whole of itself.
var rowOrder = &pebble.Comparer{
	Name:                 "gridloom.rows.1",
	Compare:              bytes.Compare,
	Equal:                bytes.Equal,
	ComparePointSuffixes: bytes.Compare,
	CompareRangeSuffixes: bytes.Compare,
	AbbreviatedKey:       pebble.DefaultComparer.AbbreviatedKey,
	Split:                splitRow,
	Separator:            separateRows,
	Successor:            pebble.DefaultComparer.Successor,
	ImmediateSuccessor:   pebble.DefaultComparer.ImmediateSuccessor,
}

// splitRow gives the length of a row key's prefix. Before the index of a
// record's there are a NUL and, since keys have at least one byte and none, no
// other in its place: a prefix alone, or what lies between two rows, isn't
// taken for a whole key.
func splitRow(row []byte) int {
	const shortest, index = 1 + 16 + 1 + 1 + 8, 8
	if n := len(row) - index; len(row) >= shortest && row[0] == kindRecord && row[n-1] == 0 {
		return n
	}
	return len(row)
}

// separateRows gives a short key that is no less than a and less than b. It cuts
// off a's index, never parts of it.
func separateRows(dst, a, b []byte) []byte {
	of, next := a[:splitRow(a)], b[:splitRow(b)]
	if len(of) == len(a) && len(next) == len(b) {
		return pebble.DefaultComparer.Separator(dst, a, b)
	}
	if bytes.Equal(of, next) {
		return append(dst, a...)
	}
	before := len(dst)
	dst = pebble.DefaultComparer.Separator(dst, of, next)
	if bytes.Equal(dst[before:], of) { // it is no shorter, and less than a
		dst = append(dst, a[len(of):]...)
	}
	return dst
}

// parseRecordKey takes a record's row key apart.
func parseRecordKey(row []byte) (bucket [16]byte, key []byte, index uint64, err error) {
	const before, after = 1 + 16, 1 + 8
	if len(row) < before+after || row[0] != kindRecord || row[len(row)-after] != 0 {
		return bucket, nil, 0, fmt.Errorf("%w: %q isn't a record's key", errRow, row)
	}
	copy(bucket[:], row[1:])
	return bucket, row[before : len(row)-after], ^binary.BigEndian.Uint64(row[len(row)-8:]), nil
}

// garbagePosition is where the garbage of a drive begins that is as old as
// logTime.
func garbagePosition(drive string, logTime int64) []byte {
	b := append([]byte{kindGarbage}, drive...)
	return binary.BigEndian.AppendUint64(append(b, 0), uint64(logTime))
}

func garbageKey(drive string, logTime int64, id [16]byte) []byte {
	return append(garbagePosition(drive, logTime), id[:]...)
}

// parseGarbageKey takes a garbage row's key apart.
func parseGarbageKey(row []byte) (g Garbage, err error) {
	const after = 1 + 8 + 16
	if len(row) < 1+after || row[0] != kindGarbage || row[len(row)-after] != 0 {
		return g, fmt.Errorf("%w: %q isn't a garbage row's key", errRow, row)
	}
	g.Drive = string(row[1 : len(row)-after])
	g.LogTime = int64(binary.BigEndian.Uint64(row[len(row)-after+1:]))
	copy(g.ID[:], row[len(row)-16:])
	return g, nil
}

// after is the first key behind all that begin with prefix, nil where there
// is none.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// decodeRow reads a row's value. A version that this program doesn't know is
// an error: a guess at its meaning would be worse.
func decodeRow(version byte, value []byte, m msgp.Unmarshaler) error {
	if len(value) == 0 {
		return fmt.Errorf("%w: %T: it is empty", errRow, m)
	}
	if value[0] != version {
		return fmt.Errorf("%w: %T: version %d is not known here, only %d", errRow, m, value[0], version)
	}
	rest, err := m.UnmarshalMsg(value[1:])
	if err != nil {
		return fmt.Errorf("%w: %T: %w", errRow, m, err)
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %T: %d bytes too many", errRow, m, len(rest))
	}
	return nil
}

// get reads the row at key into m and tells whether there is one.
func get(r pebble.Reader, key []byte, m msgp.Unmarshaler) (found bool, err error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer closeInto(&err, closer)
	if err := decodeRow(rowVersion, value, m); err != nil {
		return false, fmt.Errorf("at %q: %w", key, err)
	}
	return true, nil
}

// put writes the row at key.
func put(b *pebble.Batch, key []byte, m msgp.Marshaler) error {
	return putVersion(b, key, rowVersion, m)
}

// scratch has buffers in which rows are encoded: a batch copies them.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

func putVersion(b *pebble.Batch, key []byte, version byte, m msgp.Marshaler) error {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	value, err := m.MarshalMsg(append((*buf)[:0], version))
	if err != nil {
		return err
	}
	*buf = value
	return b.Set(key, value, nil)
}

// remove deletes the row at key.
func remove(b *pebble.Batch, key []byte) error { return b.Delete(key, nil) }

// errEnough ends a scan.
var errEnough = errors.New("enough")

// scan gives fn every row whose key begins with prefix, in order, until it
// returns an error, which is scan's unless it is errEnough. The slices are
// valid during the call.
func scan(r pebble.Reader, prefix []byte, fn func(row, value []byte) error) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := fn(it.Key(), value); err != nil {
			if err == errEnough {
				return nil
			}
			return err
		}
	}
	return it.Error()
}

// closeInto closes c and keeps its error where there is none yet.
func closeInto(err *error, c io.Closer) {
	if e := c.Close(); *err == nil {
		*err = e
	}
}
