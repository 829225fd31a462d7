package object

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"hash/crc32"
	"hash/crc64"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/node/control"
)

// Sizes that the package's promises rest on, in bytes.
const (
	// InlineMaxBytes is the largest payload kept in the record itself.
	InlineMaxBytes = 8 << 10
	// GridMaxBytes is the most payload that goes in one grid message; more
	// goes over the bulk port.
	GridMaxBytes = 256 << 10
	// SegmentMaxBytes is the largest payload file.
	SegmentMaxBytes = 64 << 20
	// ObjectMaxBytes is the largest object that is ever taken: 5 TiB. For now
	// the number of segments in a record keeps it to 62.5 GiB.
	ObjectMaxBytes = 5 << 40
	// ListMax is the most entries on a page, and the most keys in one
	// DeleteMany.
	ListMax = 1000
)

// MaxAgeMax is how old a reader may allow the answer to be, at most.
const MaxAgeMax = time.Hour

// Headers are what a client says about the content of an object. They are
// kept and given back as they came; empty ones are absent.
type Headers struct {
	ContentType        string
	CacheControl       string
	ContentDisposition string
	ContentEncoding    string
	ContentLanguage    string
}

// Info describes one version of an object.
type Info struct {
	Bucket, Key string
	SizeBytes   int64
	ETag        string    // strong entity tag without quotes; opaque
	ModifiedAt  time.Time // when it became visible, by the index's log time
	Headers     Headers
	Metadata    map[string]string // never changed after it was handed out
	SHA256      []byte            // 32 bytes
	CRC32C      uint32            // of the whole object, Castagnoli
	CRC64NVME   uint64            // of the whole object
	Sums        []Checksum        // of a put: those of PutRequest.Sums, which are kept nowhere
	Replaced    bool              // of a put, a copy and a move: there was an object of that key before

	// Made has room for what a door makes of this, which the next reader finds
	// there: what Open and Stat give may be shared, and is never changed. nil:
	// nobody else will see it.
	Made *atomic.Value
}

// Conditions restrict a call to a state of the object (RFC 9110, 13.1).
// Entity tags are given without quotes, "*" stands for any; a weak tag is
// given as W/tag: it never matches IfMatch (strong comparison) and is compared
// without its W/ in IfNoneMatch (weak comparison). Times count in whole
// seconds; the zero time is no condition.
//
// Reads evaluate all four in the order of RFC 9110, 13.2.2. Writes ignore
// IfModifiedSince, as 13.1.3 tells them to.
type Conditions struct {
	IfMatch, IfNoneMatch               []string
	IfModifiedSince, IfUnmodifiedSince time.Time
}

// PutRequest says what is about to be stored.
type PutRequest struct {
	Bucket, Key string
	SizeBytes   int64 // of the body; -1 where it isn't known
	Headers     Headers
	Metadata    map[string]string // names [a-z0-9-]; at most 8 KiB in all
	Conditions  Conditions

	// Sums are those of MD5 and SHA512 that are to be summed up while the body
	// comes, beside the others, which always are. A checksum that isn't can't be
	// verified.
	Sums []Algorithm
}

// Algorithm names a checksum over all bytes of an object.
type Algorithm uint8

// The checksums a client can have verified. Their values are big endian.
const (
	SHA256    Algorithm = iota + 1 // 32 bytes
	CRC32C                         // 4 bytes, Castagnoli
	CRC64NVME                      // 8 bytes
	MD5                            // 16 bytes; only against accidents
	SHA512                         // 64 bytes
)

// Size is how many bytes a sum has; 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case SHA256:
		return sha256.Size
	case CRC32C:
		return crc32.Size
	case CRC64NVME:
		return crc64.Size
	case MD5:
		return md5.Size
	case SHA512:
		return sha512.Size
	}
	return 0
}

// String is the algorithm's name.
func (a Algorithm) String() string {
	switch a {
	case SHA256:
		return "sha256"
	case CRC32C:
		return "crc32c"
	case CRC64NVME:
		return "crc64nvme"
	case MD5:
		return "md5"
	case SHA512:
		return "sha512"
	}
	return "algorithm " + strconv.Itoa(int(a))
}

// Checksum is what a client says that its bytes sum up to.
type Checksum struct {
	Algorithm Algorithm
	Value     []byte
}

// Bucket describes a bucket.
type Bucket struct {
	Name      string
	CreatedAt time.Time
}

// ListRequest asks for one page of a bucket.
type ListRequest struct {
	Bucket     string
	Prefix     string
	Delimiter  string // keys that hold it after the prefix are folded; "" for none
	StartAfter string // only keys after this one; for the first page
	Token      string // NextToken of the page before; "" for the first
	Limit      int    // objects and common prefixes together, 1 to ListMax; 0 is ListMax

	// MaxAge is how old the page may be, up to MaxAgeMax; 0: it shows all that
	// was acknowledged before the call.
	MaxAge time.Duration
}

// Page is one page of a bucket: one consistent view of it, in byte order.
type Page struct {
	Objects        []Info
	CommonPrefixes []string
	NextToken      string // "" on the last page
}

// CopyRequest names a source and a destination.
type CopyRequest struct {
	SrcBucket, SrcKey string
	SrcConditions     Conditions
	Bucket, Key       string
	Conditions        Conditions // on the destination
}

// MoveRequest is the same for a move. Both conditions are a write's.
type MoveRequest CopyRequest

// infoOf describes a record to the outside.
func infoOf(bucket string, r *control.Record) *Info {
	return &Info{
		Bucket: bucket, Key: r.Key,
		SizeBytes:  r.SizeBytes,
		ETag:       r.ETag,
		ModifiedAt: time.Unix(0, r.LogTime).UTC(),
		Headers: Headers{
			ContentType:        r.ContentType,
			CacheControl:       r.CacheControl,
			ContentDisposition: r.ContentDisposition,
			ContentEncoding:    r.ContentEncoding,
			ContentLanguage:    r.ContentLanguage,
		},
		Metadata:  r.Metadata,
		SHA256:    r.SHA256,
		CRC32C:    r.CRC32C,
		CRC64NVME: r.CRC64NVME,
	}
}
