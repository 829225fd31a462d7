package object

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

// A payload file that neither a record lists nor the garbage of its drive has is
// either on its way into a record or an orphan: a process died before the commit
// of its put or copy, or couldn't remove it. The collector tells them apart by
// time. Whoever writes a file began after a linearizable read that gave its
// birth, and the index refuses its commit an hour of log time later. A file is
// seen first after it was begun; two hours after that, by the log time of two
// reads that don't know it, no commit can name it any more.
//
// That holds for the file that was seen, and not for another under the same name
// and id that a copy has made since: copyOne has it forgotten, and so seen anew.

const (
	strayBatch   = 500     // files of one question to the index
	strayMax     = 100_000 // files without a record that are remembered, of a drive
	strayPause   = 20 * time.Millisecond
	strayTimeout = time.Minute // of one question and what follows from it
	strayWalks   = 3           // OrphanAges between two walks over a drive
	strayLooks   = 4           // looks at what is remembered in one OrphanAge
)

// strays are the files on this node's drives that no record knew when they were
// seen, and the log time of that.
type strays struct {
	mu   sync.Mutex // guards seen
	seen map[payloadRef]int64
}

// add remembers a file that nobody knows, from its first sighting on.
func (y *strays) add(ref payloadRef, logTime int64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.seen == nil {
		y.seen = make(map[payloadRef]int64)
	}
	if _, known := y.seen[ref]; !known {
		y.seen[ref] = logTime
	}
}

// forget has a file be seen anew: it is written, or known, or gone.
func (y *strays) forget(ref payloadRef) {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.seen, ref)
}

// of gives the files of a drive that were seen before a log time.
func (y *strays) of(drive string, before int64) (all []payloadRef) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for ref, at := range y.seen {
		if ref.drive == drive && at <= before {
			all = append(all, ref)
		}
	}
	return all
}

// since is when a file was first seen; false: it is not remembered.
func (y *strays) since(ref payloadRef) (int64, bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	at, known := y.seen[ref]
	return at, known
}

func (y *strays) count(drive string) (n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for ref := range y.seen {
		if ref.drive == drive {
			n++
		}
	}
	return n
}

// orphanLoop looks for orphans on this node's drives until ctx ends: it walks
// over each every few OrphanAges, and asks in between what has become of what it
// saw.
func (s *Service) orphanLoop(ctx context.Context) {
	walked := make(map[string]time.Time)
	s.overDrives(ctx, max(s.o.OrphanAge/strayLooks, 1), "orphans stay for now", func(ctx context.Context, d *dataio.Drive) error {
		var err error
		if time.Since(walked[d.ID()]) >= strayWalks*s.o.OrphanAge {
			if err = s.findStrays(ctx, d); err == nil {
				walked[d.ID()] = time.Now()
			}
		}
		return errors.Join(err, s.collect(ctx, d))
	})
}

// findStrays walks over a drive, and remembers what the index doesn't know.
func (s *Service) findStrays(ctx context.Context, d *dataio.Drive) error {
	room := strayMax - s.strays.count(d.ID())
	batch := make([][16]byte, 0, strayBatch)
	ask := func() error {
		if len(batch) == 0 {
			return nil
		}
		known, now, err := s.knownOn(ctx, d.ID(), batch)
		if err != nil {
			return err
		}
		for i, id := range batch {
			if ref := (payloadRef{d.ID(), id}); !known[i] && room > 0 {
				s.strays.add(ref, now)
				room--
			}
		}
		batch = batch[:0]
		timer := time.NewTimer(strayPause)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := d.Walk(ctx, func(id dataio.ID, _ time.Time) error {
		if batch = append(batch, id); len(batch) < strayBatch {
			return nil
		}
		return ask()
	})
	if err != nil {
		return s.driveFault(err, d)
	}
	return ask()
}

// knownOn asks the index which files of a drive it knows, and for the log time.
func (s *Service) knownOn(ctx context.Context, drive string, ids [][16]byte) ([]bool, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, strayTimeout)
	defer cancel()
	a, err := s.o.Index.Read(ctx, &control.Query{Segments: &control.SegmentsQuery{Drive: drive, IDs: ids}})
	if err != nil {
		return nil, 0, err
	}
	if len(a.Known) != len(ids) {
		return nil, 0, errors.New("object: the index answers for another number of segments")
	}
	return a.Known, a.LogTime, nil
}

// collect removes the orphans among what is remembered of a drive, and forgets
// what is known by now.
func (s *Service) collect(ctx context.Context, d *dataio.Drive) error {
	now, err := s.o.Index.Read(ctx, &control.Query{Deployment: &control.DeploymentQuery{}})
	if err != nil {
		return err
	}
	due := s.strays.of(d.ID(), now.LogTime-s.o.OrphanAge.Nanoseconds())
	for len(due) > 0 && ctx.Err() == nil {
		n := min(len(due), strayBatch)
		if err := s.collectSome(ctx, d, due[:n]); err != nil {
			return err
		}
		due = due[n:]
	}
	return ctx.Err()
}

// collectSome removes those of some files that nobody knows and nobody writes.
// Each is registered as being written from before the question to the index
// until it is gone, so that no copy is made of it meanwhile.
func (s *Service) collectSome(ctx context.Context, d *dataio.Drive, due []payloadRef) error {
	ctx, cancel := context.WithTimeout(ctx, strayTimeout)
	defer cancel()
	var refs []payloadRef
	var ids [][16]byte
	for _, ref := range due {
		_, end, err := s.receive(ctx, ref)
		if err != nil {
			continue // it is being written, and is no orphan
		}
		defer end()
		refs, ids = append(refs, ref), append(ids, ref.id)
	}
	if len(refs) == 0 {
		return nil
	}
	known, now, err := s.knownOn(ctx, d.ID(), ids)
	if err != nil {
		return err
	}
	var (
		files  int
		bytes  int64
		failed error
	)
	for i, ref := range refs {
		first, remembered := s.strays.since(ref)
		if known[i] {
			s.strays.forget(ref)
			continue
		}
		if !remembered || now-first < s.o.OrphanAge.Nanoseconds() {
			continue // it was written anew since due was made
		}
		size := sizeOf(ctx, d, ref.id)
		switch err := d.Remove(ctx, ref.id); {
		case err == nil:
			files++
			bytes += size
		case !errors.Is(err, dataio.ErrNotFound):
			failed = errors.Join(failed, s.driveFault(err, d))
			continue
		}
		s.strays.forget(ref)
	}
	if files > 0 {
		s.log.Info("orphans removed", "drive", d.ID(), "files", files, "bytes", bytes)
		if s.o.Hooks.Orphans != nil {
			s.o.Hooks.Orphans(files, bytes)
		}
	}
	return failed
}

// sizeOf is how large a payload is, 0 where its file can't tell: most orphans of
// a crash were cut off.
func sizeOf(ctx context.Context, d *dataio.Drive, id dataio.ID) int64 {
	f, err := d.Open(ctx, id)
	if err != nil {
		return 0
	}
	defer f.Close()
	return f.SizeBytes()
}
