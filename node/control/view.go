package control

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/gridloom/gridloom/node/iam"
)

// view is one state of a group, which a majority has in its log, for reading.
// It is shared by its readers.
type view struct {
	rows       *pebble.Snapshot
	store      *openStore
	applied    uint64
	logTime    int64
	deployment string
	conf       *pb.ConfState // parsed from encoded
	encoded    []byte
	slots      slotTable
	topology   *Topology
	open       *openBuckets
	lastClosed uint64 // index of the last entry that closed a bucket, or a later one
	known      bucketRows
	limited    int64 // how many buckets have a quota

	boxes       []iam.Box
	boxRevision uint64

	kept keptRecords

	refs int // guarded by state.mu; being present is one

	mu   sync.Mutex         // guards what follows
	idle []*pebble.Iterator // of rows, for whoever looks for a record next
}

// idleIterators is how many a view keeps: making one takes longer than a seek.
const idleIterators = 16

// find is findRecord.
func (v *view) find(bucket [16]byte, key string) (found *foundRecord, err error) {
	it, err := v.iterator()
	if err != nil {
		return nil, err
	}
	found, err = seekRecord(it, bucket, key)
	v.mu.Lock()
	keep := err == nil && len(v.idle) < idleIterators
	if keep {
		v.idle = append(v.idle, it)
	}
	v.mu.Unlock()
	if !keep {
		closeInto(&err, it)
	}
	return found, err
}

func (v *view) iterator() (*pebble.Iterator, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.idle); n > 0 {
		it := v.idle[n-1]
		v.idle = v.idle[:n-1]
		return it, nil
	}
	return v.rows.NewIter(&pebble.IterOptions{UseL6Filters: true})
}

// close gives up what a view holds that has no users any more.
func (v *view) close() (err error) {
	for _, it := range v.idle {
		closeInto(&err, it)
	}
	closeInto(&err, v.rows)
	return err
}
