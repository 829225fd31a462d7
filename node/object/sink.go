package object

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

// sink takes one payload file, here or on another node. One goroutine uses it.
type sink interface {
	Write(p []byte) (int, error)
	// Commit makes the payload durable.
	Commit(ctx context.Context) (dataio.Written, error)
	// Abort gives it up, unless it was committed.
	Abort()
}

// openSink opens a payload file on a drive, for as long as ctx lasts. An error
// means that there is none, and nothing was written. sizeBytes is -1 where it
// isn't known.
func (s *Service) openSink(ctx context.Context, t target, id dataio.ID, sizeBytes int64) (sink, error) {
	if s.o.Hooks.Span == nil {
		return s.openPlainSink(ctx, t, id, sizeBytes)
	}
	ctx, end := s.span(ctx, "object.copy", t.node.Name)
	w, err := s.openPlainSink(ctx, t, id, sizeBytes)
	if err != nil {
		end(err)
		return nil, err
	}
	return &tracedSink{sink: w, end: end}, nil
}

// tracedSink is a sink whose span ends with it.
type tracedSink struct {
	sink
	end  func(error)
	over bool // end was called
	err  error
}

func (t *tracedSink) Write(p []byte) (n int, err error) {
	if n, err = t.sink.Write(p); err != nil {
		t.err = err
	}
	return n, err
}

func (t *tracedSink) Commit(ctx context.Context) (dataio.Written, error) {
	w, err := t.sink.Commit(ctx)
	t.finish(err)
	return w, err
}

func (t *tracedSink) Abort() {
	t.sink.Abort()
	if t.err == nil {
		t.err = errGivenUp
	}
	t.finish(t.err)
}

func (t *tracedSink) finish(err error) {
	if !t.over {
		t.over = true
		t.end(err)
	}
}

func (s *Service) openPlainSink(ctx context.Context, t target, id dataio.ID, sizeBytes int64) (sink, error) {
	if t.local == nil {
		return s.bulk.create(ctx, t.node, t.drive, id, sizeBytes)
	}
	ref := payloadRef{t.drive, id}
	ctx, end, err := s.receive(ctx, ref)
	if err != nil {
		return nil, err
	}
	w, err := t.local.Create(ctx, id, sizeBytes)
	if err != nil {
		end()
		return nil, s.driveFault(err, t.local)
	}
	return &localSink{s: s, ctx: ctx, end: end, d: t.local, ref: ref, w: w}, nil
}

// localSink is a file on a drive of this node. It is registered as one that is
// received until its end.
type localSink struct {
	s    *Service
	ctx  context.Context
	end  func()
	over bool // end was called
	d    *dataio.Drive
	ref  payloadRef
	w    *dataio.Writer
}

func (l *localSink) Write(p []byte) (int, error) {
	if l.ctx.Err() != nil {
		return 0, context.Cause(l.ctx)
	}
	n, err := l.w.Write(p)
	return n, l.s.driveFault(err, l.d)
}

// Commit removes the file again if it is too late with it.
func (l *localSink) Commit(context.Context) (dataio.Written, error) {
	w, err := l.w.Commit(l.ctx)
	if err == nil && l.ctx.Err() != nil {
		err = context.Cause(l.ctx)
		l.s.removeUnheard(l.ctx, l.d, l.ref)
	}
	l.finish()
	return w, l.s.driveFault(err, l.d)
}

// Abort removes the file. A drive that can't do that says so itself.
func (l *localSink) Abort() {
	_ = l.w.Abort()
	l.finish()
}

func (l *localSink) finish() {
	if !l.over {
		l.over = true
		l.end()
	}
}

// writeOwn writes a payload that is in memory to a drive of this node. It is
// removed again if ctx has ended by then.
func (s *Service) writeOwn(ctx context.Context, d *dataio.Drive, id dataio.ID, data []byte) (dataio.Written, error) {
	ref := payloadRef{d.ID(), id}
	ctx, end, err := s.receive(ctx, ref)
	if err != nil {
		return dataio.Written{}, err
	}
	defer end()
	w, err := d.Create(ctx, id, int64(len(data)))
	if err != nil {
		return dataio.Written{}, s.driveFault(err, d)
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return dataio.Written{}, s.driveFault(err, d)
	}
	written, err := w.Commit(ctx)
	if err != nil {
		return dataio.Written{}, s.driveFault(err, d)
	}
	if ctx.Err() != nil {
		// The caller has gone, or wants it removed, and won't hear of it.
		s.removeUnheard(ctx, d, ref)
		return dataio.Written{}, context.Cause(ctx)
	}
	return written, nil
}

// writeSmall writes a payload that is in memory to a drive here or elsewhere.
func (s *Service) writeSmall(ctx context.Context, t target, id dataio.ID, data []byte, crc uint32) (err error) {
	ctx, end := s.span(ctx, "object.copy", t.node.Name)
	defer func() { end(err) }()
	w, err := s.sendSmall(ctx, t, id, data, crc)
	if err != nil {
		return err
	}
	return checkWritten(w, int64(len(data)), crc)
}

func (s *Service) sendSmall(ctx context.Context, t target, id dataio.ID, data []byte, crc uint32) (dataio.Written, error) {
	if t.local != nil {
		return s.writeOwn(ctx, t.local, id, data)
	}
	subject := s.driveName(t.node.Name, t.drive)
	c, err := s.await(ctx, t.node.Name, subject)
	if err != nil {
		return dataio.Written{}, err
	}
	resp, err := writeCall.Call(ctx, c, &writeRequest{Drive: t.drive, ID: id, Data: data, CRC32C: crc})
	if err != nil {
		return dataio.Written{}, remoteFault(err, subject)
	}
	return dataio.Written{SizeBytes: resp.SizeBytes, CRC32C: resp.CRC32C}, nil
}

// leavesNothing says that a failed writeSmall has certainly left no file: the
// drive's node has said so, or never got the request.
func leavesNothing(t target, err error) bool {
	var answer *grid.RemoteError
	return t.local != nil || errors.As(err, &answer) || grid.NotExecuted(err) || errors.Is(err, grid.ErrOverloaded)
}

// removeFiles removes payload files wherever they are, within discardTimeout.
// What can't be removed by then is left to the collector.
func (s *Service) removeFiles(ctx context.Context, files []placed) {
	if len(files) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, discardTimeout)
	defer cancel()
	byNode := make(map[string][]payloadRef)
	for _, f := range files {
		byNode[f.node] = append(byNode[f.node], f.payloadRef)
	}
	var all sync.WaitGroup // so that a node that is away costs the others no time
	for node, refs := range byNode {
		all.Go(func() {
			for batch := range slices.Chunk(refs, removeMax) {
				if err := s.removeAt(ctx, node, batch); err != nil {
					left := make([]placed, len(batch))
					for i, ref := range batch {
						left[i] = placed{node, ref}
					}
					s.leftBehind(left, err)
				}
			}
		})
	}
	all.Wait()
}

// removeAt removes payload files of one node. One that isn't there is removed.
func (s *Service) removeAt(ctx context.Context, node string, refs []payloadRef) error {
	if node == s.o.Self {
		return s.removeOwn(ctx, refs)
	}
	req := &removeRequest{Items: make([]removeItem, len(refs))}
	for i, ref := range refs {
		req.Items[i] = removeItem{Drive: ref.drive, ID: ref.id}
	}
	_, err := ask(ctx, s, node, "node "+node, req, func(ctx context.Context, c *grid.Connection, req *removeRequest) (*removeResponse, error) {
		return removeCall.Call(ctx, c, req)
	})
	return err
}

// removeOwn removes payload files of this node, ending uploads of them first.
func (s *Service) removeOwn(ctx context.Context, refs []payloadRef) error {
	var errs []error
	for _, ref := range refs {
		if err := s.endIncoming(ctx, ref); err != nil {
			errs = append(errs, err)
			continue
		}
		d, _ := s.drive(ref.drive)
		if d == nil {
			errs = append(errs, fault.New(fault.Waiting, s.driveName(s.o.Self, ref.drive), "is not open"))
			continue
		}
		if err := d.Remove(ctx, ref.id); err != nil && !errors.Is(err, dataio.ErrNotFound) {
			errs = append(errs, s.driveFault(err, d))
		}
	}
	return errors.Join(errs...)
}

// leftBehind reports files that nobody will remove but the collector.
func (s *Service) leftBehind(files []placed, why error) {
	s.log.Warn("payload files left behind", "files", len(files), "first_node", files[0].node,
		"first_drive", files[0].drive, "first_id", files[0].id.String(), "err", why)
	if s.o.Hooks.LeftBehind != nil {
		s.o.Hooks.LeftBehind(len(files))
	}
}

// incoming is a payload that is being written here, for this node or another.
// It is registered before the file is created and ends after it was committed
// or removed: who gives up a copy that may be late removes it under that, and
// never afterwards, when the same payload may be copied there again.
type incoming struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// receive registers a payload that is to be written. Its context ends when the payload is to be
// removed; end is called when the file is committed, or gone.
func (s *Service) receive(ctx context.Context, ref payloadRef) (_ context.Context, end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	in := &incoming{cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.incoming[ref] != nil {
		cancel()
		return nil, nil, fault.New(fault.Conflict, "payload "+ref.id.String(), "is being written")
	}
	s.incoming[ref] = in
	return ctx, func() {
		s.mu.Lock()
		delete(s.incoming, ref)
		s.mu.Unlock()
		cancel()
		close(in.done)
	}, nil
}

func (s *Service) incomingOf(ref payloadRef) *incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.incoming[ref]
}

// endUpload tells a node that nobody waits for an upload any more. That the
// connection is closed it may notice only when all is written and synced. Where
// the word doesn't come through the file stays, as a copy that no record tells
// of.
func (s *Service) endUpload(node string, ref payloadRef) {
	c := s.o.Conn(node)
	if !connected(c) {
		return
	}
	ctx, cancel := context.WithTimeout(s.closing, discardTimeout)
	defer cancel()
	req := &removeRequest{Items: []removeItem{{Drive: ref.drive, ID: ref.id}}, Unfinished: true}
	if _, err := removeCall.Call(ctx, c, req); err != nil {
		s.log.Debug("an upload wasn't ended", "node", node, "drive", ref.drive, "id", ref.id.String(), "err", err)
	}
}

// endIncoming cancels an upload, if there is one, and waits for its end, so
// that a removal can't come between the last byte and the commit.
func (s *Service) endIncoming(ctx context.Context, ref payloadRef) error {
	in := s.incomingOf(ref)
	if in == nil {
		return nil
	}
	in.cancel()
	select {
	case <-in.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
