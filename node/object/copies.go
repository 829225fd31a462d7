package object

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	// copiesParallel is how many payloads one call copies at a time.
	copiesParallel = 8
	// copyFromMax is how many drives a payload may be copied from.
	copyFromMax = 64
	// checkFor is how long one call looks at payloads, beyond the first: who
	// asks then asks again for the rest.
	checkFor = 10 * time.Second
)

// CopyItem is a payload file that a drive is to get a copy of, as its record
// has it.
type CopyItem struct {
	ID        [16]byte
	SizeBytes int64
	CRC32C    uint32
	From      []string // drives that have one, best first
	Replace   bool     // the drive has a copy, which is bad
}

// CheckItem is a payload file that is to be looked at, as its record has it.
type CheckItem struct {
	ID        [16]byte
	SizeBytes int64
	CRC32C    uint32
}

// BadCopy is a payload file that isn't as its record says.
type BadCopy struct {
	Index  int    // of the CheckItem
	Reason string // missing, size, corrupted, unreadable
	Detail string
}

// CopyTo has a drive, here or elsewhere, get copies of payload files, and
// returns an error, or nil, for each: then it is durable there, and as its item
// says. The second result says that nothing is known of any. It may be repeated.
func (s *Service) CopyTo(ctx context.Context, drive string, items []CopyItem) ([]error, error) {
	node, err := s.locate(ctx, drive)
	if err != nil {
		return nil, err
	}
	subject := s.driveName(node.Name, drive)
	errs := make([]error, len(items))
	for at := 0; at < len(items); at += copyMax {
		batch := items[at:min(at+copyMax, len(items))]
		req := &copyRequest{Drive: drive}
		for _, item := range batch {
			req.Items = append(req.Items, copyItem(item))
		}
		resp, err := askOrServe(ctx, s, node.Name, subject, req, s.serveCopy, copyCall.Call)
		switch {
		case err == nil && len(resp.Results) != len(batch):
			err = fault.New(fault.Internal, subject, "answered for %d of %d copies", len(resp.Results), len(batch))
			fallthrough
		case err != nil && at == 0:
			return nil, err
		case err != nil:
			for i := at; i < len(items); i++ {
				errs[i] = err
			}
			return errs, nil
		}
		for i, result := range resp.Results {
			if result.Code > 0 {
				errs[at+i] = peerFault(fault.Kind(result.Code-1), result.Subject, subject, result.Detail, nil)
			}
		}
	}
	return errs, nil
}

// serveCopy makes copies on a drive of this node, several at a time.
func (s *Service) serveCopy(ctx context.Context, req *copyRequest) (*copyResponse, error) {
	if len(req.Items) > copyMax {
		return nil, fault.New(fault.InvalidArgument, "items", "are %d; at most %d are allowed", len(req.Items), copyMax)
	}
	d, err := s.driveFor(ctx, req.Drive, manner{hedge: true})
	if err != nil {
		return nil, err
	}
	resp := &copyResponse{Results: make([]copyResult, len(req.Items))}
	var g errgroup.Group
	g.SetLimit(copiesParallel)
	for i := range req.Items {
		g.Go(func() error {
			n, err := s.copyOne(ctx, d, &req.Items[i])
			result := copyResult{Bytes: n}
			if err != nil {
				fe := fault.From(err)
				result.Code, result.Subject, result.Detail = uint16(fe.Kind)+1, fe.Subject, fe.Detail
			}
			resp.Results[i] = result
			return nil
		})
	}
	_ = g.Wait()
	return resp, ctx.Err()
}

// copyOne makes a copy on a drive of this node, and returns how many bytes it
// has moved for it. All of it happens under receive's registration of the
// payload: a put that has given a drive up removes its own late file under that,
// and only there.
func (s *Service) copyOne(ctx context.Context, d *dataio.Drive, item *copyItem) (int64, error) {
	ref := payloadRef{d.ID(), item.ID}
	if item.SizeBytes < 1 || item.SizeBytes > SegmentMaxBytes || len(item.From) > copyFromMax {
		return 0, fault.New(fault.InvalidArgument, "payload "+ref.id.String(), "has %d bytes on %d drives", item.SizeBytes, len(item.From))
	}
	caller := ctx
	ctx, end, err := s.receive(ctx, ref)
	if err != nil {
		return 0, err
	}
	defer end()
	s.strays.forget(ref) // what is here afterwards is another file
	seg := &control.Segment{ID: item.ID, SizeBytes: item.SizeBytes, CRC32C: item.CRC32C, Drives: item.From}
	file, replaces, err := s.createCopy(ctx, d, item, seg)
	if err != nil {
		return 0, s.driveFault(err, d)
	}
	defer file.Abort()
	sum := &summedFile{file: file}
	n, err := s.fill(ctx, sum, seg)
	switch {
	case err != nil:
		return n, s.driveFault(err, d)
	case sum.crc != item.CRC32C:
		return n, fault.New(fault.Corrupted, "payload "+ref.id.String(), "came with CRC32C %08x, and its record says %08x", sum.crc, item.CRC32C)
	}
	if _, err := file.Commit(ctx); err != nil {
		return n, s.driveFault(err, d)
	}
	if err := ctx.Err(); err != nil {
		if !replaces {
			// Nobody will hear of it. One that has taken another's place may be
			// one that a record names.
			s.removeUnheard(caller, d, ref)
		}
		return n, err
	}
	return n, nil
}

// createCopy opens the file of a copy. One that is there already is replaced:
// it may be bad or, where a process has died between writing and syncing it,
// not be durable, which can't be seen. Then it is the first to be copied from.
func (s *Service) createCopy(ctx context.Context, d *dataio.Drive, item *copyItem, seg *control.Segment) (file *dataio.Writer, replaces bool, err error) {
	if !item.Replace {
		file, err = d.Create(ctx, item.ID, item.SizeBytes)
		if !errors.Is(err, dataio.ErrExists) {
			return file, false, err
		}
		seg.Drives = append([]string{d.ID()}, seg.Drives...)
	}
	file, err = d.CreateReplacement(ctx, item.ID, item.SizeBytes)
	return file, true, err
}

// fill copies a whole segment, verified where it is read, from the first copy
// that is good.
func (s *Service) fill(ctx context.Context, w io.Writer, seg *control.Segment) (int64, error) {
	copies := s.replicasOf(part{seg, 0, seg.SizeBytes}, true)
	src, err := copies.open(ctx, 0)
	if err != nil {
		return 0, err
	}
	t := newSending(s, w, dataio.Windows{FirstBytes: dataio.NextWindowBytes})
	t.counts = false
	return t.part(ctx, copies, src, nil)
}

// summedFile sums up what is written to a file.
type summedFile struct {
	file *dataio.Writer
	crc  uint32
}

func (f *summedFile) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	f.crc = crc32.Update(f.crc, castagnoli, p[:n])
	return n, err
}

// Check looks at payload files of a drive, here or elsewhere, and returns those
// that are bad. With verify each is read and compared with its checksums, at
// most at bytesPerSecond where that isn't 0. An error says that it was not found
// out for all: the drive is gone, or its node.
func (s *Service) Check(ctx context.Context, drive string, items []CheckItem, verify bool, bytesPerSecond int64) ([]BadCopy, error) {
	node, err := s.locate(ctx, drive)
	if err != nil {
		return nil, err
	}
	subject := s.driveName(node.Name, drive)
	var bad []BadCopy
	for at := 0; at < len(items); {
		req := &checkRequest{Drive: drive, Verify: verify, BytesPerSecond: bytesPerSecond}
		for _, item := range items[at:min(at+checkMax, len(items))] {
			req.Items = append(req.Items, checkItem(item))
		}
		resp, err := askOrServe(ctx, s, node.Name, subject, req, s.serveCheck, checkCall.Call)
		if err != nil {
			return bad, err
		}
		if resp.Checked < 1 || resp.Checked > len(req.Items) {
			return bad, fault.New(fault.Internal, subject, "says that it has looked at %d of %d payloads", resp.Checked, len(req.Items))
		}
		for _, b := range resp.Bad {
			if b.Index < 0 || b.Index >= resp.Checked {
				return bad, fault.New(fault.Internal, subject, "answers about payload %d of %d", b.Index, resp.Checked)
			}
			bad = append(bad, BadCopy{Index: at + b.Index, Reason: b.Reason, Detail: b.Detail})
		}
		at += resp.Checked
	}
	return bad, nil
}

// serveCheck looks at payloads on a drive of this node, as many as it comes to.
func (s *Service) serveCheck(ctx context.Context, req *checkRequest) (*checkResponse, error) {
	if len(req.Items) > checkMax {
		return nil, fault.New(fault.InvalidArgument, "items", "are %d; at most %d are allowed", len(req.Items), checkMax)
	}
	if _, err := s.driveFor(ctx, req.Drive, manner{hedge: true}); err != nil {
		return nil, err
	}
	limit := rate.NewLimiter(rate.Inf, checkedBytes)
	if req.BytesPerSecond > 0 {
		limit.SetLimit(rate.Limit(req.BytesPerSecond))
	}
	resp := &checkResponse{}
	for began := time.Now(); resp.Checked < len(req.Items); resp.Checked++ {
		if resp.Checked > 0 && time.Since(began) > checkFor {
			break
		}
		err := s.checkOne(ctx, payloadRef{req.Drive, req.Items[resp.Checked].ID}, &req.Items[resp.Checked], req.Verify, limit)
		why := whyBad(err)
		switch {
		case err == nil:
		case why != "":
			resp.Bad = append(resp.Bad, badItem{Index: resp.Checked, Reason: why, Detail: err.Error()})
		case resp.Checked > 0 && ctx.Err() == nil:
			return resp, nil // the next call hears of it, unless it is over by then
		default:
			return nil, err
		}
	}
	return resp, nil
}

// checkOne looks at one payload.
func (s *Service) checkOne(ctx context.Context, ref payloadRef, item *checkItem, verify bool, limit *rate.Limiter) error {
	how := manner{verify: verify, quiet: true, patience: s.o.WaitTimeout}
	seg := &control.Segment{ID: item.ID, SizeBytes: item.SizeBytes, CRC32C: item.CRC32C}
	f, err := s.openPart(ctx, ref, part{seg, 0, item.SizeBytes}, how)
	if err != nil {
		return err
	}
	defer f.close()
	for left := item.SizeBytes; verify && left > 0; {
		if err := limit.WaitN(ctx, int(min(left, checkedBytes))); err != nil {
			return err
		}
		n, err := f.ready(ctx, left, 0)
		if err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, f.reader(), n); err != nil {
			return f.fault(f.short(err))
		}
		f.took(n)
		left -= n
	}
	return nil
}
