package object

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

const (
	reclaimBatch   = 500
	reclaimTimeout = time.Minute // of one batch
)

// reclaimLoop looks for garbage on this node's drives until ctx ends.
func (s *Service) reclaimLoop(ctx context.Context) {
	s.overDrives(ctx, s.o.ReclaimEvery, "garbage stays for now", s.reclaim)
}

// overDrives calls do for each of this node's drives that isn't offline, and
// again after a pause, until ctx ends. It begins with a pause, and each is of
// half to one and a half of every, so that nodes that were started together
// don't ask the index together.
func (s *Service) overDrives(ctx context.Context, every time.Duration, failed string, do func(context.Context, *dataio.Drive) error) {
	for {
		t := time.NewTimer(every/2 + rand.N(every))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		for _, d := range s.ownDrives() {
			if d.State() == dataio.Offline {
				continue
			}
			if err := do(ctx, d); err != nil && ctx.Err() == nil {
				s.log.Warn(failed, "drive", d.ID(), "err", err)
			}
		}
	}
}

// reclaim removes a drive's files that no record has referred to for
// ReclaimGrace, batch by batch. Readers that opened the object before are done
// by then, or fail. Only the index says what is garbage; files that it has
// never heard of (a put that crashed) are not this loop's.
func (s *Service) reclaim(ctx context.Context, d *dataio.Drive) error {
	for {
		more, err := s.reclaimSome(ctx, d)
		if err != nil || !more {
			return err
		}
	}
}

// reclaimSome removes one batch, and says whether there is more.
func (s *Service) reclaimSome(ctx context.Context, d *dataio.Drive) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, reclaimTimeout)
	defer cancel()
	now, err := s.o.Index.Read(ctx, &control.Query{Deployment: &control.DeploymentQuery{}})
	if err != nil {
		return false, err
	}
	a, err := s.o.Index.Read(ctx, &control.Query{Garbage: &control.GarbageQuery{
		Drive: d.ID(), Before: now.LogTime - s.o.ReclaimGrace.Nanoseconds(), Limit: reclaimBatch,
	}})
	if err != nil || len(a.Garbage) == 0 {
		return false, err
	}
	var (
		gone   []control.Garbage
		bytes  int64
		failed error
	)
	for _, g := range a.Garbage {
		err := d.Remove(ctx, g.ID)
		switch {
		case err == nil:
			bytes += g.SizeBytes
		case !errors.Is(err, dataio.ErrNotFound):
			// It stays garbage, and is tried again in the next round.
			failed = errors.Join(failed, s.driveFault(err, d))
			continue
		}
		gone = append(gone, g)
	}
	if len(gone) > 0 {
		if _, err := s.propose(ctx, &control.Command{Reclaim: &control.Reclaim{Entries: gone}}); err != nil {
			return false, errors.Join(failed, err)
		}
		if s.o.Hooks.Reclaimed != nil {
			s.o.Hooks.Reclaimed(len(gone), bytes)
		}
	}
	return a.More && failed == nil, failed
}
