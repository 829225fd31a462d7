package control

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=record.go -o=record_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024
//msgp:marshal ignore listedRecord
//msgp:size ignore listedRecord

// RecordVersion is the version of records that this program writes and reads.
const RecordVersion = 1

// Limits of one record. A payload of more segments needs rows of its own for
// them, which come with upload sessions.
const (
	MaxKeyBytes      = 1024     // a key, in bytes
	MaxInlineBytes   = 64 << 10 // Inline
	MaxSegments      = 1000     // Segments
	MaxMetadataBytes = 8 << 10  // keys and values of Metadata together, and of Tags
	MaxHeaderBytes   = 1024     // one of the headers kept
	maxSegmentDrives = 16       // Drives of one segment
)

// Record is what the index knows of an object.
type Record struct {
	Version      uint8    `msg:"v"`           // RecordVersion; 0 means that when putting
	Key          string   `msg:"k"`           // 1 to MaxKeyBytes bytes of UTF-8 without NUL
	VersionID    [16]byte `msg:"i"`           // random
	DeleteMarker bool     `msg:"d,omitempty"` // reserved for versioning; refused for now

	SizeBytes int64  `msg:"s"` // of Inline, or of all Segments
	ETag      string `msg:"e"` // opaque, without quotes
	SHA256    []byte `msg:"sha,omitempty"`
	CRC32C    uint32 `msg:"crc,omitempty"`
	CRC64NVME uint64 `msg:"nvme,omitempty"`

	ContentType        string `msg:"ct,omitempty"`
	CacheControl       string `msg:"cc,omitempty"`
	ContentDisposition string `msg:"cd,omitempty"`
	ContentEncoding    string `msg:"ce,omitempty"`
	ContentLanguage    string `msg:"cl,omitempty"`
	Metadata           Pairs  `msg:"md,omitempty"` // map[string]string
	Tags               Pairs  `msg:"tg,omitempty"` // map[string]string; reserved

	LogTime int64 `msg:"t"` // of the put, unix ns; set by the index

	Layout uint8 `msg:"l,omitempty"` // 0: whole segments; others are reserved
	// Inline is the payload itself, where it is small. One that was decoded is part
	// of the memory that it was decoded from.
	Inline   []byte    `msg:"in,omitempty,limit=65536,zerocopy"`
	Segments []Segment `msg:"sg,omitempty"` // the payload in order, where it isn't small
}

// Segment is one payload file.
type Segment struct {
	ID        [16]byte `msg:"i"` // name of the file; random, never used twice
	SizeBytes int64    `msg:"s"` // of the payload in it
	CRC32C    uint32   `msg:"c"` // of the payload in it
	Drives    []string `msg:"d"` // ids of the drives that have synced it
}

// listedRecord is a Record that is read without its payload, which is passed
// over: a listing gives none, and to copy it would be most of the work. Only the
// tags differ, so that one converts to the other.
type listedRecord struct {
	Version      uint8    `msg:"v"`
	Key          string   `msg:"k"`
	VersionID    [16]byte `msg:"i"`
	DeleteMarker bool     `msg:"d,omitempty"`

	SizeBytes int64  `msg:"s"`
	ETag      string `msg:"e"`
	SHA256    []byte `msg:"sha,omitempty"`
	CRC32C    uint32 `msg:"crc,omitempty"`
	CRC64NVME uint64 `msg:"nvme,omitempty"`

	ContentType        string `msg:"ct,omitempty"`
	CacheControl       string `msg:"cc,omitempty"`
	ContentDisposition string `msg:"cd,omitempty"`
	ContentEncoding    string `msg:"ce,omitempty"`
	ContentLanguage    string `msg:"cl,omitempty"`
	Metadata           Pairs  `msg:"md,omitempty"`
	Tags               Pairs  `msg:"tg,omitempty"`

	LogTime int64 `msg:"t"`

	Layout   uint8     `msg:"l,omitempty"`
	Inline   []byte    `msg:"-"`
	Segments []Segment `msg:"-"`
}
