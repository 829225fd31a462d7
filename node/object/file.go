package object

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// checkedBytes is what a checksum covers: dataio.File.Verified gives so much at
// once, from a multiple of it on.
const checkedBytes = 1 << 20

// fileStream is a part of a payload on a drive of this node. Each window is in
// memory before it is moved, so that nobody has to wait for the drive in the
// middle of one, where another copy can't take over.
type fileStream struct {
	s        *Service
	d        *dataio.Drive
	ref      payloadRef
	how      manner
	subject  string
	f        *dataio.File
	off, end int64
	known    int64 // up to here it is in memory, or was a moment ago

	section io.Reader     // the *os.File
	checked *bufio.Reader // in its place, for how.verify
	unread  func()        // ends checked

	ahead *readAhead // nil: none
}

// readAhead is a window that is being read while the one before is on its way.
type readAhead struct {
	upTo   int64
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
	err    error         // how; set by then
}

// stop ends a read ahead.
func (a *readAhead) stop() {
	if a != nil {
		a.cancel()
		<-a.done
	}
}

// patience is how long the drive may stall.
func (f *fileStream) patience() time.Duration {
	if f.how.hedge {
		return f.s.reads.hedge(f.ref.drive)
	}
	return f.how.patience
}

// openPayload opens a payload on a drive of this node.
func (s *Service) openPayload(ctx context.Context, ref payloadRef, how manner) (*fileStream, error) {
	d, err := s.driveFor(ctx, ref.drive, how)
	if err != nil {
		return nil, err
	}
	f := &fileStream{s: s, d: d, ref: ref, how: how, subject: s.driveName(s.o.Self, ref.drive)}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !how.verify && !how.quiet { // a check, or a read that is to be one, looks at the drive
		if f.f = d.OpenNow(ref.id); f.f != nil {
			return f, nil
		}
	}
	err = f.wait(ctx, func(ctx context.Context) (err error) {
		f.f, err = d.Open(ctx, ref.id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// wait has the drive do something, for as long as it may take.
func (f *fileStream) wait(ctx context.Context, do func(ctx context.Context) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, f.patience(), errStalled)
	defer cancel()
	err := do(ctx)
	f.s.reads.waited(f.ref.drive, time.Since(began))
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil:
		return f.fault(err)
	case context.Cause(ctx) == errStalled:
		return f.stalled()
	}
	return context.Cause(ctx)
}

// driveFor returns a drive of this node, which may be waited for.
func (s *Service) driveFor(ctx context.Context, id string, how manner) (*dataio.Drive, error) {
	if !how.hedge {
		return s.awaitDrive(ctx, id)
	}
	d, _ := s.drive(id)
	if d == nil {
		return nil, fault.New(fault.Waiting, s.driveName(s.o.Self, id), "is not open")
	}
	return d, nil
}

// openPart opens a part of a payload, which must be as its segment says.
func (s *Service) openPart(ctx context.Context, ref payloadRef, p part, how manner) (*fileStream, error) {
	f, err := s.openPayload(ctx, ref, how)
	if err != nil {
		return nil, err
	}
	if err = f.matches(p.segment); err == nil {
		err = f.read(ctx, p.off, p.n)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// matches compares what was opened with its record.
func (f *fileStream) matches(seg *control.Segment) error {
	var err error
	switch {
	case f.f.SizeBytes() != seg.SizeBytes:
		err = &fault.Error{Kind: fault.Corrupted, Subject: f.subject, Err: dataio.ErrSize,
			Detail: fmt.Sprintf("has %d bytes of payload %s, whose record says %d", f.f.SizeBytes(), f.ref.id, seg.SizeBytes)}
	case f.f.CRC32C() != seg.CRC32C:
		err = &fault.Error{Kind: fault.Corrupted, Subject: f.subject, Err: dataio.ErrCorrupted,
			Detail: fmt.Sprintf("has payload %s with another checksum than its record", f.ref.id)}
	default:
		return nil
	}
	return f.fault(err)
}

// read says what is to be read.
func (f *fileStream) read(ctx context.Context, off, n int64) error {
	if err := checkRange(off, n, f.f.SizeBytes()); err != nil {
		return err
	}
	f.off, f.end = off, off+n
	if f.how.verify {
		ctx, f.unread = context.WithCancel(ctx)
		// The smallest buffer there is: it is for looking at one byte, whose MiB
		// has been verified then.
		f.checked = bufio.NewReaderSize(f.f.Verified(ctx, off, n), 16)
		return nil
	}
	section, err := f.f.Section(off, n)
	if err != nil {
		return f.fault(err)
	}
	f.section = section.R
	return nil
}

// errStalled ends a wait for a drive.
var errStalled = errors.New("object: the drive has stalled")

// stalled is the error of a drive that was waited for long enough.
func (f *fileStream) stalled() error {
	kind := fault.Unavailable
	if f.how.hedge {
		kind = fault.Deadline
	}
	return &fault.Error{Kind: kind, Subject: f.subject, Detail: fmt.Sprintf("has not answered within %v", f.patience()), Err: errStalled}
}

// fault gives an error of the drive its kind, and reports a copy that is bad.
func (f *fileStream) fault(err error) error {
	if why := whyBad(err); why != "" && !f.how.quiet {
		f.s.badCopy(f.ref, why)
	}
	if errors.Is(err, dataio.ErrUnknownFormat) { // of this file: the drive's was known when it was opened
		return &fault.Error{Kind: fault.Corrupted, Subject: f.subject, Detail: "has a corrupted payload", Err: err}
	}
	return f.s.driveFault(err, f.d)
}

func (f *fileStream) ready(ctx context.Context, want, next int64) (int64, error) {
	upTo := min(f.off+want, f.end)
	if f.checked != nil {
		return f.verified(ctx, upTo)
	}
	if !f.atHand(upTo - f.off) {
		if err := f.wait(ctx, func(ctx context.Context) error { return f.fetch(ctx, upTo) }); err != nil {
			return 0, err
		}
	}
	if f.ahead == nil && f.known < f.end && next > 0 {
		f.fetchAhead(ctx, min(f.known+next, f.end))
	}
	return upTo - f.off, nil
}

// atHand says that the next n bytes are in memory, and need no check.
func (f *fileStream) atHand(n int64) bool {
	upTo := f.off + n
	if f.checked != nil || upTo > f.end {
		return false
	}
	if upTo > f.known && f.ahead == nil && f.f.InMemory(max(f.off, f.known), upTo-max(f.off, f.known)) {
		f.known = upTo
	}
	return upTo <= f.known
}

// verified has the next byte verified, and with it all of its MiB.
func (f *fileStream) verified(ctx context.Context, upTo int64) (int64, error) {
	err := f.wait(ctx, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, f.unread)()
		_, err := f.checked.Peek(1)
		return err
	})
	if err != nil {
		return 0, err
	}
	return min(upTo, f.off-f.off%checkedBytes+checkedBytes) - f.off, nil
}

// fetch has the bytes up to there in memory.
func (f *fileStream) fetch(ctx context.Context, upTo int64) error {
	if a := f.ahead; a != nil {
		f.ahead = nil
		select {
		case <-a.done:
		case <-ctx.Done():
		}
		if a.stop(); a.err == nil {
			f.known = a.upTo
		}
	}
	if upTo <= f.known {
		return nil
	}
	off := max(f.off, f.known)
	if err := f.f.Prefetch(ctx, off, upTo-off); err != nil {
		return err
	}
	f.known = upTo
	return nil
}

// fetchAhead begins to read the next window.
func (f *fileStream) fetchAhead(ctx context.Context, upTo int64) {
	off := f.known
	if f.f.InMemory(off, upTo-off) {
		f.known = upTo
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &readAhead{upTo: upTo, cancel: cancel, done: make(chan struct{})}
	f.ahead = a
	go func() {
		defer close(a.done)
		a.err = f.f.Prefetch(ctx, off, upTo-off)
	}()
}

func (f *fileStream) reader() io.Reader {
	if f.checked != nil {
		return f.checked
	}
	return f.section
}

// short gives a kind to the end of a file that comes before the end of its
// payload: it was cut after it was looked at.
func (f *fileStream) short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &dataio.Error{Op: "read", Path: f.d.Path(), ID: f.ref.id, Kind: dataio.ErrCorrupted, Err: err}
	}
	return err
}

func (f *fileStream) took(n int64) { f.off += n }

// blame reads again what could not be sent: a destination's error doesn't show
// whether it was the file that failed.
func (f *fileStream) blame(ctx context.Context, err error) error {
	if f.checked != nil {
		return nil // what was ready was in memory of ours
	}
	f.ahead.stop()
	f.ahead, f.known = nil, f.off
	if f.off < f.end { // by Prefetch, as what InMemory remembers may be over
		if err := f.wait(ctx, func(ctx context.Context) error { return f.f.Prefetch(ctx, f.off, 1) }); err != nil {
			return err
		}
	}
	if err := f.short(err); errors.Is(err, dataio.ErrCorrupted) {
		return f.fault(err)
	}
	return nil
}

func (f *fileStream) close() {
	f.ahead.stop()
	if f.unread != nil {
		f.unread()
	}
	f.f.Close()
}
