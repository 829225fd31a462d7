package control

import "github.com/gridloom/gridloom/node/iam"

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=iam.go -o=iam_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// Limits of users and keys, beside those of package iam.
const (
	// MaxUserKeys is how many keys a user may have. It is what lets one command
	// delete a user with all of them: that is never refused for its size.
	MaxUserKeys = 1000
	MaxTouches  = 1000 // keys of one TouchKeys
	// maxIAMBytes bounds all users and keys together, as they are stored: every
	// node holds them in memory.
	maxIAMBytes = 128 << 20
)

// Users and keys have a revision: the index of the entry that changed them last.
// It is never the same twice, also not for one that was deleted and made again.
// A command that gives a Revision is refused as PreconditionFailed where there is
// another by now; 0 is any.

// PutUser makes a user: Result.Revision. Created is set by the index.
// AlreadyExists for its name, and for a certificate name that is another's;
// QuotaExceeded.
type PutUser struct {
	User iam.User `msg:"u"`
}

// UpdateUser sets all that may change of a user: Result.Revision. NotFound,
// PreconditionFailed, AlreadyExists for a certificate name that is another's.
type UpdateUser struct {
	Name         string      `msg:"n"`
	Revision     uint64      `msg:"r,omitempty"`
	Disabled     bool        `msg:"d,omitempty"`
	Grants       []iam.Grant `msg:"g,omitempty"`
	Certificates []string    `msg:"c,omitempty"`
}

// DeleteUser removes a user with all its keys. NotFound, PreconditionFailed.
type DeleteUser struct {
	Name     string `msg:"n"`
	Revision uint64 `msg:"r,omitempty"`
}

// PutKey makes an access key: Result.Revision. Created is set by the index, and
// LastUsed is 0. AlreadyExists; NotFound where there is no such user;
// QuotaExceeded.
type PutKey struct {
	Key iam.Key `msg:"k"`
}

// UpdateKey sets all that may change of a key: Result.Revision. NotFound,
// PreconditionFailed; InvalidArgument for grants of a key that isn't a service
// key.
type UpdateKey struct {
	ID       string      `msg:"i"`
	Revision uint64      `msg:"r,omitempty"`
	Disabled bool        `msg:"d,omitempty"`
	Grants   []iam.Grant `msg:"g,omitempty"`
	Expires  int64       `msg:"e,omitempty"` // Unix time in nanoseconds; 0: never
	Comment  string      `msg:"c,omitempty"`
}

// DeleteKey removes a key. NotFound, PreconditionFailed.
type DeleteKey struct {
	ID       string `msg:"i"`
	Revision uint64 `msg:"r,omitempty"`
}

// TouchKeys notes when keys were used. It changes neither their revisions nor
// the epoch of what IAM gives, and a key that is gone is no error.
type TouchKeys struct {
	Keys []Touch `msg:"k"` // at most MaxTouches, none twice
}

// Touch says when a key was used. An earlier time than the one that is known
// changes nothing, and one ahead of log time counts as that.
type Touch struct {
	ID string `msg:"i"`
	At int64  `msg:"t"` // Unix time in nanoseconds
}

// SealMaster replaces the boxes that the master is in. It is the system group's
// leader's own. PreconditionFailed unless Revision is that of the boxes there
// are, 0 where there are none: so that there is one master, for ever.
type SealMaster struct {
	Boxes    []iam.Box `msg:"b"`
	Revision uint64    `msg:"r"`
}

// UserRow is a user as it is stored.
type UserRow struct {
	User     iam.User `msg:"u"`
	Revision uint64   `msg:"r"`
	Keys     int      `msg:"k"` // how many it has
}

// KeyRow is a key as it is stored. There LastUsed is 0, since it has a row of
// its own; and in answers Sealed is nil: IAM has it.
type KeyRow struct {
	Key      iam.Key `msg:"k"`
	Revision uint64  `msg:"r"`
}

// UserQuery asks for Answer.Users with that one. NotFound.
type UserQuery struct {
	Name string `msg:"n"`
}

// UsersQuery asks for a page of Answer.Users in the order of their names.
type UsersQuery struct {
	After string `msg:"a"` // exclusive, Next of the page before; "" is the beginning
	Limit int    `msg:"l"` // 0 and more than MaxPage mean MaxPage; a page is at most some 4 MiB
}

// KeyQuery asks for Answer.Keys with that one. NotFound.
type KeyQuery struct {
	ID string `msg:"i"`
}

// KeysQuery asks for a page of Answer.Keys in the order of their ids.
type KeysQuery struct {
	User  string `msg:"u"` // "": of all. NotFound
	After string `msg:"a"` // exclusive, Next of the page before; "" is the beginning
	Limit int    `msg:"l"` // 0 and more than MaxPage mean MaxPage; a page is at most some 4 MiB
}

// iamRow is what there is once.
type iamRow struct {
	Epoch    uint64    `msg:"e"` // index of the last entry that changed what iam.Rows shows
	Users    int       `msg:"u"` // how many there are
	Keys     int       `msg:"k"`
	Bytes    int64     `msg:"s"` // of their rows
	Revision uint64    `msg:"r"` // of Boxes
	Boxes    []iam.Box `msg:"b"`
}

// certificateRow says whose a certificate name is.
type certificateRow struct {
	User string `msg:"u"`
}

// ownedRow stands for a key among its user's.
type ownedRow struct{}

// usedRow is when a key was used last; every key has one. It is apart from the
// key, because it changes all the time and decides nothing.
type usedRow struct {
	At int64 `msg:"t"`
}
