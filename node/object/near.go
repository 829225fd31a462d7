package object

import (
	"io"
	"sync"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

// ranges holds *dataio.Range that have nothing.
var ranges = sync.Pool{New: func() any { return new(dataio.Range) }}

// SendNow is the beginning of Send, for all of an object of one payload that has at
// most window bytes, where there is nothing to wait for but the destination: the copy
// that would be read first is on a drive of this node, and was opened and found in
// memory a moment ago. It returns how many bytes it has sent; Send goes on with
// the rest, and finds out why that is still there. before is called before the
// first byte, and its error is the only one.
func (r *Reader) SendNow(w io.ReaderFrom, window int64, before func() error) (int64, error) {
	if r.Verify || len(r.record.Segments) != 1 || r.record.SizeBytes > window {
		return 0, nil
	}
	seg := &r.record.Segments[0]
	d := r.s.nearest(seg)
	if d == nil {
		return 0, nil
	}
	src := ranges.Get().(*dataio.Range)
	defer ranges.Put(src)
	if !d.Borrow(src, seg.ID) {
		return 0, nil
	}
	defer src.Release()
	if src.SizeBytes() != seg.SizeBytes || src.CRC32C() != seg.CRC32C {
		return 0, nil // Send says so
	}
	if err := before(); err != nil {
		return 0, err
	}
	r.s.reads.begin(d.ID())
	defer r.s.reads.end(d.ID())
	n, _ := w.ReadFrom(src)
	if n > 0 && r.s.o.Hooks.Sent != nil {
		r.s.o.Hooks.Sent(PathSendfile, n)
	}
	return n, nil
}

// nearest returns the drive of the copy that replicas would have tried first, if it
// is one of this node, and well; else nil.
func (s *Service) nearest(seg *control.Segment) *dataio.Drive {
	drive, best := "", standing{class: classAway}
	for _, id := range seg.Drives {
		if rank := s.rankOf(id, seg.ID); rank.compare(best) < 0 {
			drive, best = id, rank
		}
	}
	if best.class != classWell || best.far > 0 {
		return nil
	}
	d, _ := s.drive(drive)
	return d
}
