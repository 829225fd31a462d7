package iam

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -file=rows.go -o=rows_gen.go -tests=false -io=false

//msgp:limit arrays:64 maps:0

// Limits of what the rows hold. Sizes are in bytes.
const (
	MaxUsers        = 10_000
	MaxKeys         = 100_000
	MaxGrants       = 64 // of one user, one service key or one token
	MaxCertificates = 16 // names of one user
	MaxBoxes        = 16 // mesh secrets under which the master is kept at once
	MaxNameBytes    = 64 // a user's name
	MaxCommentBytes = 256

	maxCertificateBytes = 255
	maxPrefixBytes      = 1024 // as long as a key may be
)

// Role is what a Grant allows.
type Role string

// The roles.
const (
	ReadOnly  Role = "readonly"
	ReadWrite Role = "readwrite"
	Admin     Role = "admin"
	Metrics   Role = "metrics"
)

// AllBuckets is the Bucket of a Grant over all of them.
const AllBuckets = "*"

// Grant is a role over something. ParseGrant and String are its text form.
type Grant struct {
	Role   Role   `msg:"r"`
	Bucket string `msg:"b"`           // a name, or AllBuckets; "" with Metrics, which is over the mesh
	Prefix string `msg:"p,omitempty"` // of keys, with a named bucket only; "": the whole bucket
}

// User is someone, or some program, with rights of its own.
type User struct {
	Name         string   `msg:"n"`
	Disabled     bool     `msg:"d,omitempty"`
	Grants       []Grant  `msg:"g,omitempty"`
	Certificates []string `msg:"c,omitempty"` // names in client certificates that stand for the user
	Created      int64    `msg:"t"`           // Unix time in nanoseconds
}

// Key is an access key of a user, without its secret: Sealed is what links are
// verified with, under the master. Times are Unix times in nanoseconds.
type Key struct {
	ID       string  `msg:"i"`
	User     string  `msg:"u"`
	Service  bool    `msg:"s,omitempty"` // may do what both its user's grants and its own allow
	Grants   []Grant `msg:"g,omitempty"` // a service key's
	Sealed   []byte  `msg:"k,limit=256"` // see Master.SealKey
	Created  int64   `msg:"t"`
	Expires  int64   `msg:"e,omitempty"` // 0: never
	LastUsed int64   `msg:"l,omitempty"` // to about a minute; 0: never
	Disabled bool    `msg:"d,omitempty"`
	Comment  string  `msg:"c,omitempty"`
}

// Box is the master, sealed under one mesh secret.
type Box struct {
	Fingerprint []byte `msg:"f,limit=32"`  // of the mesh secret
	Sealed      []byte `msg:"k,limit=256"` // see Master.Seal
}

// Rows are all that is kept of users and keys, as of one epoch. Rows are never
// changed once they are published: a change makes new ones.
type Rows struct {
	Epoch uint64 `msg:"e"` // grows with every change
	Boxes []Box  `msg:"b"`
	Users []User `msg:"u,limit=10000"`  // MaxUsers
	Keys  []Key  `msg:"k,limit=100000"` // MaxKeys
}
