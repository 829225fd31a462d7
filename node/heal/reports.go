package heal

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

const (
	reportsMax   = 1000 // waiting to be sent or looked at; further ones are left to the scrub
	reportsPause = time.Second
	reportTime   = 10 * time.Second
)

// reports are copies that somebody has found to be bad.
type reports struct {
	woken chan struct{} // has room for one

	mu    sync.Mutex // guards what follows
	items map[reportKey]string
}

type reportKey struct {
	id    [16]byte
	drive string
}

func (r *reports) init() {
	r.woken, r.items = make(chan struct{}, 1), make(map[reportKey]string)
}

// BadCopy tells of a copy that was found to be missing or wrong: it is looked
// at, and made good, soon. It doesn't block.
func (h *Healer) BadCopy(id dataio.ID, drive, why string) {
	h.reports.add(reportItem{ID: id, Drive: drive, Why: why})
}

func (r *reports) add(items ...reportItem) {
	r.mu.Lock()
	for _, i := range items {
		if key := (reportKey{i.ID, i.Drive}); len(r.items) < reportsMax || r.items[key] != "" {
			r.items[key] = i.Why
		}
	}
	r.mu.Unlock()
	wake(r.woken)
}

// take takes all of them.
func (r *reports) take() []reportItem {
	r.mu.Lock()
	defer r.mu.Unlock()
	items := make([]reportItem, 0, len(r.items))
	for k, why := range r.items {
		items = append(items, reportItem{ID: k.id, Drive: k.drive, Why: why})
	}
	clear(r.items)
	return items
}

// sendReports brings reports to the node that coordinates, which looks at the
// copies. What can't be brought is tried again while there is room for it.
func (h *Healer) sendReports(ctx context.Context) {
	for await(ctx, h.reports.woken, time.Hour) {
		for items := h.reports.take(); len(items) > 0; items = h.reports.take() {
			if err := h.sendSome(ctx, items); err != nil {
				h.reports.add(items...)
			}
			if rest(ctx, reportsPause) != nil {
				return
			}
		}
	}
}

func (h *Healer) sendSome(ctx context.Context, items []reportItem) error {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	leader, self := h.o.Leader()
	if self {
		t, err := h.current()
		if err != nil {
			return err
		}
		return t.repair(ctx, items)
	}
	if leader == "" {
		return errNotLeader(h.o.Self)
	}
	_, err := call(ctx, h, leader, reportCall.Call, &reportRequest{Items: items})
	return err
}

// repair checks copies that were reported, and takes up the segments of those
// that are bad.
func (t *term) repair(ctx context.Context, items []reportItem) error {
	q := &control.CopiesQuery{}
	for _, i := range items {
		q.IDs = append(q.IDs, i.ID)
	}
	a, err := t.o.Index.Read(ctx, &control.Query{Copies: q})
	if err != nil {
		return err
	}
	segs := make(map[[16]byte]*control.SegmentCopies, len(a.Copies))
	for i := range a.Copies {
		segs[a.Copies[i].ID] = &a.Copies[i]
	}
	v := t.now.Load()
	byDrive := make(map[string][]*control.SegmentCopies)
	for _, i := range items {
		seg, d := segs[i.ID], v.drives[i.Drive]
		if seg != nil && d != nil && d.well && slices.Contains(seg.Drives, i.Drive) {
			byDrive[i.Drive] = append(byDrive[i.Drive], seg)
		}
	}
	bad, err := t.verify(ctx, byDrive)
	if err != nil {
		return err
	}
	y := newTally("reported copies")
	for id, of := range bad {
		if t.work.has(id) {
			for drive, b := range of {
				t.h.reports.add(reportItem{ID: id, Drive: drive, Why: describe(b)})
			}
			continue
		}
		if err := t.mend(ctx, v, segs[id], of, y); err != nil {
			return err
		}
	}
	return nil
}
