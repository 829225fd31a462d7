package control

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/fault"
)

// The store's sizes: many nodes share a machine, and in dev a process.
const (
	storeCacheBytes    = 32 << 20
	storeMemTableBytes = 16 << 20
	storeOpenFiles     = 256
	storeBloomBits     = 10 // per key: 1 % of the lookups of what isn't there read a block
)

const (
	// storeReserveBytes of the disk are kept for deleting, and for what the
	// store does in the background: when a write of its log fails it ends.
	storeReserveBytes = 128 << 20
	// roomInterval is how often the disk is asked.
	roomInterval = time.Second
)

// storeFormat is the format of Pebble's files. It is pinned, so that another
// version of the library doesn't change what is on disk by itself.
const storeFormat = pebble.FormatTableFormatV6

// store is the key-value store under one group's state. A failure to write is
// final: what is on disk is not known after it, and a second attempt could
// succeed without the first one's data being there. The store then refuses
// everything, and whoever opened it is told by failed.
type store struct {
	db  *pebble.DB
	fs  vfs.FS
	dir string
	log *slog.Logger

	opened time.Time
	asked  atomic.Int64 // when the disk was asked for room, ns after opened
	full   atomic.Bool  // it had less than the reserve

	failed chan struct{} // closed by fail
	once   sync.Once
	err    error // the first failure; written before failed is closed
}

// storeExists tells whether there is a store in dir, and changes nothing. A
// directory, or Pebble's lock in it, is none yet.
func storeExists(fs vfs.FS, dir string) (bool, error) {
	switch desc, err := pebble.Peek(dir, fs); {
	case err == nil:
		return desc.Exists, nil
	case errors.Is(err, iofs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("index %s: %w", dir, err)
	}
}

// openStore opens the store in dir. With fresh it makes one where there is
// none; without, that is a pebble.ErrDBDoesNotExist, and nothing is made:
// Pebble alone would leave a directory and a lock.
func openStore(fs vfs.FS, dir string, fresh bool, log *slog.Logger) (*store, error) {
	if !fresh {
		switch found, err := storeExists(fs, dir); {
		case err != nil:
			return nil, err
		case !found:
			return nil, fmt.Errorf("index %s: %w", dir, pebble.ErrDBDoesNotExist)
		}
	}
	s := &store{fs: fs, dir: dir, opened: time.Now(), log: log, failed: make(chan struct{})}
	o := &pebble.Options{
		FS:                 fs,
		FormatMajorVersion: storeFormat,
		ErrorIfNotExists:   !fresh,
		CacheSize:          storeCacheBytes,
		MemTableSize:       storeMemTableBytes,
		MaxOpenFiles:       storeOpenFiles,
		Logger:             storeLogger{s},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(storeBloomBits)
	}
	db, err := pebble.Open(dir, o) // makes dir, and syncs what it makes
	if err == nil {
		err = s.failure()
	}
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", dir, err)
	}
	s.db = db
	return s, nil
}

// fail ends the store. The first reason is kept.
func (s *store) fail(err error) {
	s.once.Do(func() {
		s.err = fmt.Errorf("index %s: %w", s.dir, err)
		s.log.Error("the index has failed, the node must stop", "dir", s.dir, "error", err)
		close(s.failed)
	})
}

// failure is what ended the store, nil while it works.
func (s *store) failure() error {
	select {
	case <-s.failed:
		return s.err
	default:
		return nil
	}
}

// room tells whether there is room for more, as NoSpace where there isn't. It
// is for whoever puts commands into the log, never for apply.
func (s *store) room() error {
	now, last := int64(time.Since(s.opened)), s.asked.Load()
	if (last == 0 || now-last >= int64(roomInterval)) && s.asked.CompareAndSwap(last, now) {
		usage, err := s.fs.GetDiskUsage(s.dir)
		full := err == nil && usage.AvailBytes < storeReserveBytes
		if s.full.Swap(full) != full {
			s.log.Warn("the room for the index has changed", "dir", s.dir, "full", full, "free_bytes", usage.AvailBytes)
		}
	}
	if s.full.Load() {
		return fault.New(fault.NoSpace, "index", "less than %d MiB are free for it: only deleting is possible", storeReserveBytes>>20)
	}
	return nil
}

func (s *store) close() error { return s.db.Close() }

// storeLogger is Pebble's logger. Pebble calls Fatalf where it can't go on,
// for instance when its log can't be written, and expects the process to end;
// a library leaves that to its caller, who learns it from store.failed.
type storeLogger struct{ s *store }

// Infof implements pebble.Logger.
func (l storeLogger) Infof(format string, args ...any) {
	l.s.log.Debug("index store", "message", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l storeLogger) Errorf(format string, args ...any) {
	l.s.log.Error("index store", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger.
func (l storeLogger) Fatalf(format string, args ...any) { l.s.fail(fmt.Errorf(format, args...)) }
