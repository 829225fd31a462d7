package dataio

import "fmt"

// An OpKind says what a drive asks of its file system.
type OpKind uint8

// The operations. Those up to OpRemove change the drive; a sync is the only
// promise about the order in which they become durable.
const (
	OpMkdir    OpKind = iota // make the directory Name
	OpCreate                 // create the file Name, which must not exist
	OpAllocate               // set Bytes aside for the file Name
	OpWrite                  // write Data at Offset of the file Name
	OpSync                   // make the content of the file Name durable
	OpSyncDir                // make the entries of the directory Name durable
	OpRename                 // give the file Name the name To, in place of what has it
	OpRemove                 // remove the file Name
	OpOpen                   // open the file Name for reading
	OpRead                   // read Bytes at Offset of the file Name
	OpList                   // list the directory Name
	OpUsage                  // look at the drive's path and ask for its free space
	numOps
)

var opNames = [numOps]string{
	"mkdir", "create", "allocate", "write", "sync", "syncdir", "rename", "remove", "open", "read", "list", "usage",
}

// String returns the operation's name, in lower case.
func (k OpKind) String() string {
	if k < numOps {
		return opNames[k]
	}
	return fmt.Sprintf("op(%d)", uint8(k))
}

// An Op is one request of a drive to its file system.
type Op struct {
	Kind   OpKind
	Name   string // below the drive's directory, with forward slashes: payload/6f/6fa4…
	To     string // OpRename: the new name, in the same directory
	Offset int64  // OpWrite, OpRead: in the file, bytes
	Bytes  int64  // OpAllocate, OpWrite, OpRead
	Data   []byte // OpWrite: valid during the call only, not to be changed
}

// An Interceptor stands between a drive and its file system: it is told of
// every Op before it is done, and calls do, once, to have it done. What it
// returns is what the drive sees. It serves to measure each operation's time,
// to make a drive slower, to record what was asked in which order, and to
// return the errors that a disk returns on a bad day (datatest.Faults).
//
// Not intercepted are opening and formatting the drive, and what a File's
// Section reads: those bytes go from the *os.File to the kernel directly.
// File.Prefetch, which comes before them, is an OpRead.
//
// Intercept is called by every goroutine that uses the drive, and must not use
// the drive itself.
type Interceptor interface {
	Intercept(op Op, do func() error) error
}
