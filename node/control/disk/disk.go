// Package disk opens the Pebble stores of the index: the log of all raft groups
// and a state for each. A store that can't be written is given up for good,
// since nobody knows what is on disk after a failed write, and a second attempt
// could succeed without the first one's data being there: Failed is closed,
// everything else refuses, and the node ends.
//
// The log is durable with each synced write. A state has no write-ahead log
// (NoWAL): it is durable as far as it was flushed, and what a crash takes of it
// the raft log has.
package disk

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/fault"
)

const (
	openFiles = 256
	bloomBits = 10 // per key: 1 % of the lookups of what isn't there read a block
)

// Of values in files of their own. Tables refer to so many files for one range of
// keys at most, for the sake of scans that have to read from the disk; a
// compaction that would come to more writes all its values anew. The first level
// brings four files or more at once, so that a depth of 10 let nearly every value be
// written anew (decision 13). A file of that age of which that part is no more in
// use is written anew.
const (
	blobDepth   = 64
	blobAge     = 5 * time.Minute
	blobGarbage = 0.3
)

const (
	// ReserveBytes of the disk are kept for deleting, and for what the
	// store does in the background: when a write of its log fails it ends.
	ReserveBytes = 128 << 20
	// LastBytes of it a follower keeps: below that it takes no entries at all,
	// as if its leader couldn't reach it, rather than fail in writing them.
	LastBytes = ReserveBytes / 2
	// EnoughBytes is from where on a disk that had less than ReserveBytes counts as
	// one with room again, for who leads: else leadership would come and go with
	// every file.
	EnoughBytes = ReserveBytes + ReserveBytes/4
	// roomInterval is how often the disk is asked.
	roomInterval = time.Second
)

// Tables of the first level may overlap, so that a lookup asks the filters of
// each. At half of l0Begin of them, one over the other (Pebble counts each twice),
// they are merged into the levels below, and at l0Most writes wait for that. Twice
// Pebble's own numbers: the tables below are written half as often.
const (
	l0Begin = 8
	l0Most  = 24
)

// format is the format of Pebble's files. It is pinned, so that another
// version of the library doesn't change what is on disk by itself.
const format = pebble.FormatValueSeparation

// Store is a Pebble store. A failure to write is final, and Failed is closed.
type Store struct {
	*pebble.DB

	fs  vfs.FS
	dir string
	log *slog.Logger

	opened time.Time
	asked  atomic.Int64 // when the disk was asked for room, ns after opened
	free   atomic.Int64 // what it had, bytes; negative where that isn't known
	tight  atomic.Bool  // it had less than ReserveBytes, and not EnoughBytes since

	tidying tidying

	flush error // what came of the last flush; guarded by a lock of Pebble's, which calls both that use it

	failed chan struct{} // closed by fail
	once   sync.Once
	err    error // the first failure; written before failed is closed
}

// Exists tells whether there is a store in dir, and changes nothing. A
// directory, or Pebble's lock in it, is none yet.
func Exists(fs vfs.FS, dir string) (bool, error) {
	switch desc, err := pebble.Peek(dir, fs); {
	case err == nil:
		return desc.Exists, nil
	case errors.Is(err, iofs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("index %s: %w", dir, err)
	}
}

// Options are a store's: what it may hold in memory, and what a crash may take.
type Options struct {
	CacheBytes    int64  // of blocks that were read
	MemTableBytes uint64 // of what was written last; there may be two of it

	// NoWAL: writes aren't durable before they are flushed. After a crash the
	// store is as it was after some batch, with all those before it; whoever has
	// it can do the rest again.
	NoWAL bool

	Comparer *pebble.Comparer // of the keys; nil is bytes.Compare, without prefixes

	// TableBytes is about how large the tables of the first level get, and those
	// below larger still. A lookup opens one of each level: where there are few it
	// was open already. 0 is 2 MiB.
	TableBytes int64

	// SeparateBytes: values of that size and above go into files of their own,
	// which compactions of the keys refer to and don't write again. 0: none do.
	SeparateBytes int
}

// Open opens the store in dir, and makes it where there is none.
func Open(fs vfs.FS, dir string, size Options, log *slog.Logger) (*Store, error) {
	s := &Store{fs: fs, dir: dir, opened: time.Now(), log: log, failed: make(chan struct{})}
	o := &pebble.Options{
		FS:                 buffered{fs},
		FormatMajorVersion: format,
		CacheSize:          size.CacheBytes,
		MemTableSize:       size.MemTableBytes,
		MaxOpenFiles:       openFiles,
		DisableWAL:         size.NoWAL,
		Comparer:           size.Comparer,
		Logger:             logger{s},
		EventListener:      &pebble.EventListener{FlushEnd: s.flushed, BackgroundError: s.background},
	}
	if size.SeparateBytes > 0 {
		o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
			return pebble.ValueSeparationPolicy{
				Enabled: true, MinimumSize: size.SeparateBytes, MaxBlobReferenceDepth: blobDepth,
				RewriteMinimumAge: blobAge, TargetGarbageRatio: blobGarbage,
			}
		}
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
	}
	o.TargetFileSizes[0] = size.TableBytes
	o.L0CompactionThreshold, o.L0StopWritesThreshold = l0Begin, l0Most
	db, err := pebble.Open(dir, o) // makes dir, and syncs what it makes
	if err == nil {
		err = s.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", dir, err)
	}
	s.DB = db
	s.free.Store(-1)
	s.tidying.ctx, s.tidying.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Flush makes all that was written durable.
func (s *Store) Flush() error {
	if err := s.Err(); err != nil {
		return err
	}
	done, err := s.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return s.Err()
	case <-s.failed: // Pebble would try for ever
		return s.err
	}
}

// flushed is told how a flush went.
func (s *Store) flushed(i pebble.FlushInfo) { s.flush = i.Err }

// background is told what has gone wrong in the background. A compaction will be
// tried again; a flush is a write that has failed.
func (s *Store) background(err error) {
	if s.flush != nil && errors.Is(err, s.flush) {
		s.Fail(fmt.Errorf("flush: %w", err))
		return
	}
	s.log.Error("index store", "dir", s.dir, "error", err)
}

// Fail ends the store. The first reason is kept.
func (s *Store) Fail(err error) {
	s.once.Do(func() {
		s.err = fmt.Errorf("index %s: %w", s.dir, err)
		close(s.failed)
	})
}

// Err is what ended the store, nil while it works.
func (s *Store) Err() error {
	select {
	case <-s.failed:
		return s.err
	default:
		return nil
	}
}

// Room tells whether there is room for more, as NoSpace where there isn't. It
// is for whoever puts commands into the log, never for apply.
func (s *Store) Room() error {
	if !s.has(ReserveBytes) {
		return fault.New(fault.NoSpace, "index", "less than %d MiB are free for it: only deleting is possible", ReserveBytes>>20)
	}
	return nil
}

// Starved tells that not even what others have agreed on may be written.
func (s *Store) Starved() bool { return !s.has(LastBytes) }

// Tight tells that there was no room, and isn't yet for more than a moment: what
// Room says may have changed back.
func (s *Store) Tight() bool {
	s.has(0)
	return s.tight.Load()
}

// Free is how many bytes are free, negative where that isn't known.
func (s *Store) Free() int64 {
	s.has(0)
	return s.free.Load()
}

// has tells whether so many bytes are free, as the disk has said within the last
// second. One that doesn't say has.
func (s *Store) has(bytes int64) bool {
	now, last := int64(time.Since(s.opened)), s.asked.Load()
	if (last == 0 || now-last >= int64(roomInterval)) && s.asked.CompareAndSwap(last, now) {
		free := int64(-1)
		if usage, err := s.fs.GetDiskUsage(s.dir); err == nil {
			free = int64(min(usage.AvailBytes, math.MaxInt64))
		}
		before := s.free.Swap(free)
		if known := free >= 0; known && free < ReserveBytes {
			s.tight.Store(true)
		} else if !known || free >= EnoughBytes {
			s.tight.Store(false)
		}
		if was, is := room(before), room(free); was != is {
			s.log.Warn("the room for the index has changed", "dir", s.dir, "room", is, "free_bytes", free)
		}
	}
	free := s.free.Load()
	return free < 0 || free >= bytes
}

const roomEnough = "enough"

// room names what so many free bytes are enough for.
func room(free int64) string {
	switch {
	case free < 0 || free >= ReserveBytes:
		return roomEnough
	case free >= LastBytes:
		return "for deleting"
	}
	return "none"
}

// Close closes the store.
func (s *Store) Close() error {
	s.tidying.end()
	return s.DB.Close()
}

// Failed is closed when the store has failed; Err says why.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Dir is where the store is.
func (s *Store) Dir() string { return s.dir }

// logger is Pebble's logger. Pebble calls Fatalf where it can't go on,
// for instance when its log can't be written, and expects the process to end;
// a library leaves that to its caller, who learns it from Failed.
type logger struct{ s *Store }

// Infof implements pebble.Logger.
func (l logger) Infof(format string, args ...any) {
	l.s.log.Debug("index store", "message", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l logger) Errorf(format string, args ...any) {
	l.s.log.Error("index store", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger.
func (l logger) Fatalf(format string, args ...any) { l.s.Fail(fmt.Errorf(format, args...)) }
