package heal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// A batch may take batchTime, and a second for each MiB of payload beside: what
// takes longer than that is tried again, with another drive if there is one.
const (
	batchTime    = 30 * time.Second
	slowestBytes = 1 << 20 // per second
)

// carryOut does a batch, and hands each task on that has nothing under way any
// more.
func (w *work) carryOut(l lane, batch []job) {
	var bytes int64
	for _, j := range batch {
		bytes += j.seg.SizeBytes
	}
	errs := make([]error, len(batch))
	err := w.pace.take(w.ctx, bytes)
	if err == nil {
		ctx, cancel := context.WithTimeout(w.ctx, batchTime+time.Duration(bytes/slowestBytes)*time.Second)
		defer cancel()
		if l.check {
			err = w.check(ctx, l.drive, batch)
		} else {
			err = w.copy(ctx, l.drive, batch, errs)
		}
	}
	var ready []*task
	w.mu.Lock()
	for i, j := range batch {
		if e := first(err, errs[i]); e != nil {
			if j.errs == nil {
				j.errs = make(map[string]error)
			}
			j.errs[l.drive] = e
		}
		if j.under--; j.under == 0 {
			ready = append(ready, j.task)
		}
	}
	w.mu.Unlock()
	for _, t := range ready {
		w.conclude(t)
	}
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// errHeld is a drive that can't get a copy of a segment for now.
func errHeld() error {
	return fault.New(fault.Waiting, "copy", "the drive still has a file of the segment that is garbage, or it has it by now")
}

// copy has a drive get copies. One read says when, by log time, and of which of
// them the index doesn't know on that drive: the file of any other is one that
// is about to be removed, or there already.
func (w *work) copy(ctx context.Context, drive string, batch []job, errs []error) error {
	q := &control.SegmentsQuery{Drive: drive}
	for _, j := range batch {
		q.IDs = append(q.IDs, j.seg.ID)
	}
	a, err := w.o.Index.Read(ctx, &control.Query{Segments: q})
	if err != nil {
		return err
	}
	var items []object.CopyItem
	var of []int
	for i, j := range batch {
		if !j.replace && i < len(a.Known) && a.Known[i] {
			errs[i] = errHeld()
			continue
		}
		items = append(items, object.CopyItem{
			ID: j.seg.ID, SizeBytes: j.seg.SizeBytes, CRC32C: j.seg.CRC32C, From: j.plan.from, Replace: j.replace,
		})
		of = append(of, i)
	}
	if len(items) == 0 {
		return nil
	}
	spanned, end := w.o.Hooks.span(ctx, "heal.copy", drive, len(items))
	results, err := w.o.Objects.CopyTo(spanned, drive, items)
	end(errors.Join(append(results, err)...))
	if err == nil && len(results) != len(items) {
		err = fault.New(fault.Internal, "copy", "%d answers for %d copies", len(results), len(items))
	}
	if err != nil {
		return err
	}
	var copies, bytes int64
	w.mu.Lock()
	for i, n := range of {
		j := batch[n]
		if errs[n] = results[i]; errs[n] != nil {
			continue
		}
		if j.made == nil {
			j.made = make(map[string]bool)
		}
		j.made[drive] = true
		if !j.replace && (j.birth == 0 || a.LogTime < j.birth) {
			j.birth = a.LogTime
		}
		copies++
		bytes += j.seg.SizeBytes
		j.tally.copied(j.seg.SizeBytes)
	}
	w.mu.Unlock()
	w.rate.add(bytes)
	if w.o.Hooks.Copied != nil && copies > 0 {
		w.o.Hooks.Copied(int(copies), bytes)
	}
	return nil
}

// check has copies on a drive compared with their checksums.
func (w *work) check(ctx context.Context, drive string, batch []job) error {
	items := make([]object.CheckItem, len(batch))
	for i, j := range batch {
		items[i] = object.CheckItem{ID: j.seg.ID, SizeBytes: j.seg.SizeBytes, CRC32C: j.seg.CRC32C}
	}
	ctx, end := w.o.Hooks.span(ctx, "heal.check", drive, len(items))
	bad, err := w.o.Objects.Check(ctx, drive, items, true, 0)
	end(err)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range batch {
		j.verified = j.verified || j.plan.verify == drive
	}
	for _, b := range bad {
		if b.Index < 0 || b.Index >= len(batch) {
			return fault.New(fault.Internal, "check", "an answer is about item %d of %d", b.Index, len(batch))
		}
		j := batch[b.Index]
		if j.plan.verify == drive {
			j.verified = false
		}
		j.mark(drive, b)
		w.found(j.task, drive, b)
	}
	return nil
}

// mark notes that a copy is bad.
func (t *task) mark(drive string, b object.BadCopy) {
	if t.bad == nil {
		t.bad = make(map[string]string)
	}
	t.bad[drive] = describe(b)
}

func describe(b object.BadCopy) string {
	if b.Detail == "" {
		return b.Reason
	}
	return fmt.Sprintf("%s (%s)", b.Reason, b.Detail)
}

// found tells of a copy that is bad.
func (w *work) found(t *task, drive string, b object.BadCopy) {
	w.log.Warn("a copy is bad", "drive", drive, "segment", fmt.Sprintf("%x", t.seg.ID), "key", t.seg.Key, "because", describe(b))
	if w.o.Hooks.BadCopies != nil {
		w.o.Hooks.BadCopies(1)
	}
}

// commit tells the index what has changed, as much as there is at a time, until
// ctx ends.
func (w *work) commit(ctx context.Context) {
	for {
		select {
		case <-w.stirred:
		case <-ctx.Done():
			return
		}
		for {
			w.mu.Lock()
			n := min(len(w.commits), control.MaxRecopy)
			some := w.commits[:n:n]
			w.commits = w.commits[n:]
			w.mu.Unlock()
			if n == 0 {
				break
			}
			w.tell(ctx, some)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// tell proposes the changes of some tasks, and does with each what its fate
// asks for.
func (w *work) tell(ctx context.Context, tasks []*task) {
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	cmd := &control.Recopy{}
	var of []*task
	for _, t := range tasks {
		if t.plan.lost {
			w.confirmLost(ctx, t)
			continue
		}
		c := t.change()
		if len(c.Add) > 0 && (cmd.Birth == 0 || t.birth < cmd.Birth) {
			cmd.Birth = t.birth
		}
		cmd.Entries = append(cmd.Entries, *c)
		of = append(of, t)
	}
	if len(of) == 0 {
		return
	}
	res, err := w.o.Index.Propose(ctx, &control.Command{Recopy: cmd})
	if err == nil && len(res.Fates) != len(of) {
		err = fault.New(fault.Internal, "index", "%d fates for %d changes", len(res.Fates), len(of))
	}
	var refused []*task
	for i, t := range of {
		switch {
		case err != nil:
			// It may have happened nevertheless: the segment has to be read anew.
			w.missed(t, err)
		case res.Fates[i] == control.FateDone:
			for _, id := range cmd.Entries[i].Remove {
				w.freed(id, t.seg.SizeBytes)
			}
			t.applied(&cmd.Entries[i])
			w.settle(t)
		case res.Fates[i] == control.FateGone:
			w.end(t, "", false)
		default:
			refused = append(refused, t)
		}
	}
	w.refresh(ctx, refused)
}

// refresh looks again at segments whose changes the index has refused: somebody
// else has changed them, or the file of a copy to add is about to be removed.
func (w *work) refresh(ctx context.Context, tasks []*task) {
	if len(tasks) == 0 {
		return
	}
	q := &control.CopiesQuery{}
	for _, t := range tasks {
		q.IDs = append(q.IDs, t.seg.ID)
	}
	a, err := w.o.Index.Read(ctx, &control.Query{Copies: q})
	if err != nil {
		for _, t := range tasks {
			w.missed(t, err)
		}
		return
	}
	now := make(map[[16]byte]control.SegmentCopies, len(a.Copies))
	for _, seg := range a.Copies {
		now[seg.ID] = seg
	}
	for _, t := range tasks {
		seg, there := now[t.seg.ID]
		if !there {
			w.end(t, "", false)
			continue
		}
		pause := refusedPause // the file of a copy to add is garbage, or was a moment ago
		if !sameDrives(t.seg.Drives, seg.Drives) {
			pause = retryFirst
		}
		t.seg = seg
		w.later(t, "the index refuses the change: its copies have changed, or the file of one to add is about to be removed", pause)
	}
}

// missed ends a task because the index couldn't be asked: the next run takes it
// up as it is then.
func (w *work) missed(t *task, err error) {
	w.release(t)
	t.tally.end("the index: "+err.Error(), true)
}

// confirmLost reports a segment without a good copy, if there still is one of
// that id: an object that was deleted meanwhile has none, either.
func (w *work) confirmLost(ctx context.Context, t *task) {
	bucket := w.name(ctx, t.seg.BucketID)
	if bucket == "" {
		w.missed(t, fault.New(fault.Waiting, "bucket", "%x has no name", t.seg.BucketID))
		return
	}
	a, err := w.o.Index.Read(ctx, &control.Query{Record: &control.RecordQuery{Bucket: bucket, Key: t.seg.Key}})
	switch kind := fault.KindOf(err); {
	case err != nil && (kind == fault.ObjectNotFound || kind == fault.BucketNotFound):
		w.end(t, "", false)
		return
	case err != nil:
		w.missed(t, err)
		return
	}
	for _, s := range a.Record.Segments {
		if s.ID != t.seg.ID {
			continue
		}
		if !sameDrives(s.Drives, t.seg.Drives) {
			t.seg.Drives = slices.Clone(s.Drives) // somebody has changed it
			w.again(t, "its copies have changed")
			return
		}
		w.release(t)
		w.holds.put(&t.seg, t.plan.blocked, true)
		if t.tally.gone(t.seg, t.plan.blocked) {
			w.log.Error("a segment has no good copy left", "bucket", bucket, "key", t.seg.Key,
				"segment", fmt.Sprintf("%x", t.seg.ID), "because", t.plan.blocked)
		}
		if w.o.Hooks.Unrecoverable != nil {
			w.o.Hooks.Unrecoverable(1)
		}
		return
	}
	w.end(t, "", false)
}

// sameDrives compares without regard to the order. Neither has a drive twice.
func sameDrives(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(id string) bool { return !slices.Contains(b, id) })
}
