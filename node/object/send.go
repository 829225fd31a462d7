package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/gridloom/gridloom/dataio"
)

// prefetchBytes is how much of a segment is left when the next one is opened:
// early enough to hide the opening, late enough that a slow client doesn't
// keep a peer waiting with it for long.
const prefetchBytes = 8 << 20

// slowSource is how long a source may keep a window waiting before the window
// ends there: the destination's deadline, which the next one renews, is not for
// waiting.
const slowSource = 250 * time.Millisecond

// sending is a transfer to one destination. One goroutine uses it.
//
// What is moved goes by windows, each of one or several moves: as much as the
// source has ready, so that no move waits for it. That is what tells whose an
// error is, though the kernel moves the bytes: before a move, it's the source's;
// in one, the destination's, but for a file that could not be read after all.
type sending struct {
	s   *Service
	w   io.Writer
	win dataio.Windows
	// counts: the bytes are a reader's, and Hooks.Sent is told.
	counts bool
}

func newSending(s *Service, w io.Writer, win dataio.Windows) *sending {
	if win.FirstBytes <= 0 {
		win.FirstBytes = dataio.FirstWindowBytes
	}
	if win.NextBytes <= 0 {
		win.NextBytes = dataio.NextWindowBytes
	}
	return &sending{s: s, w: w, win: win, counts: true}
}

// begin begins a window.
func (t *sending) begin() error {
	if t.win.Before == nil {
		return nil
	}
	return t.win.Before()
}

// end ends a window of n bytes.
func (t *sending) end(path Path, n int64) {
	t.win.FirstBytes = t.win.NextBytes
	if t.counts && t.s.o.Hooks.Sent != nil {
		t.s.o.Hooks.Sent(path, n)
	}
	if !t.counts {
		t.s.traffic.sent.Add(n) // to another node
	}
	if t.win.After != nil {
		t.win.After(n)
	}
}

// parts sends one part of an object after the other, the next being opened
// while the present one is on its way.
func (t *sending) parts(ctx context.Context, parts []part, r *Reader) (int64, error) {
	cancel := func() {}
	if len(parts) > 1 { // of those that are opened ahead
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	copies := r.replicas(parts[0])
	src, err := copies.open(ctx, 0)
	if err != nil {
		return 0, err
	}
	var sent int64
	for i := range parts {
		var next *prefetch
		if i+1 < len(parts) {
			next = &prefetch{copies: r.replicas(parts[i+1])}
		}
		n, err := t.part(ctx, copies, src, next)
		sent += n
		if err != nil {
			cancel()
			next.drop()
			return sent, err
		}
		if next == nil {
			break
		}
		copies = next.copies
		if src, err = next.take(ctx); err != nil && t.s.again(next) {
			copies = r.replicas(parts[i+1])
			src, err = copies.open(ctx, 0)
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// part sends a part, which src is open for, from one copy after the other.
func (t *sending) part(ctx context.Context, copies *replicas, src *source, next *prefetch) (int64, error) {
	var sent int64
	for {
		n, broke, err := t.from(ctx, src, copies.part.n-sent, next)
		sent += n
		copies.done(src)
		switch {
		case ctx.Err() != nil && (broke != nil || err != nil):
			return sent, ctx.Err()
		case err != nil:
			return sent, err
		case broke == nil:
			return sent, nil
		}
		copies.failed(src.copy, src.asked, broke)
		if src, err = copies.open(ctx, sent); err != nil {
			return sent, err
		}
	}
}

// from sends the n bytes that a source has. broke is why it has ended early;
// err is what ends everything. next is started near the end.
func (t *sending) from(ctx context.Context, src *source, n int64, next *prefetch) (sent int64, broke, err error) {
	if src.data != nil {
		if n <= prefetchBytes {
			next.start(ctx)
		}
		sent, err = t.bytes(ctx, src.data, src.path)
		return sent, nil, err
	}
	for sent < n {
		if sent > 0 {
			// A destination that takes whatever comes would have the processor until its
			// buffer is full, while those of others run empty.
			runtime.Gosched()
		}
		if n-sent <= prefetchBytes {
			next.start(ctx)
		}
		moved, broke, err := t.window(ctx, src, n-sent)
		sent += moved
		if broke != nil || err != nil {
			return sent, broke, err
		}
	}
	return sent, nil, nil
}

// window sends the next window of a source that has left bytes.
func (t *sending) window(ctx context.Context, src *source, left int64) (moved int64, broke, err error) {
	want := min(t.win.FirstBytes, left)
	if t.counts && t.win.FirstBytes != t.win.NextBytes && want > dataio.FirstWindowBytes && !src.atHand(want) {
		want = dataio.FirstWindowBytes // the first bytes don't wait for others
	}
	path := src.path
	if !inKernel(t.w) {
		path = PathCopy
	}
	for moved < want {
		src.asked = time.Now()
		n, err := src.ready(ctx, want-moved, min(t.win.NextBytes, left-want))
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
			fallthrough
		case err != nil:
			if moved > 0 {
				t.end(path, moved)
			}
			return moved, err, nil
		case moved == 0:
			if err := t.begin(); err != nil {
				return 0, nil, err
			}
		case time.Since(src.asked) > slowSource:
			t.end(path, moved)
			return moved, nil, nil
		}
		m, err := dataio.Send(ctx, t.w, &io.LimitedReader{R: src.reader(), N: n}, dataio.Windows{FirstBytes: n})
		moved += m
		src.took(m)
		if err != nil {
			t.end(path, moved)
			return t.judge(ctx, src, moved, err)
		}
	}
	t.end(path, moved)
	return moved, nil, nil
}

// inKernel says whether what is sent to a destination need not come to user space:
// it has ReadFrom, and doesn't say otherwise by InKernel. One that encrypts, or puts
// messages together, has ReadFrom for other reasons.
func inKernel(w io.Writer) bool {
	if _, ok := w.(io.ReaderFrom); !ok {
		return false
	}
	asked, ok := w.(interface{ InKernel() bool })
	return !ok || asked.InKernel()
}

// judge finds out whose the error of a move was.
func (t *sending) judge(ctx context.Context, src *source, moved int64, err error) (int64, error, error) {
	if ctx.Err() != nil {
		return moved, nil, ctx.Err()
	}
	if broke := src.blame(ctx, err); broke != nil {
		return moved, broke, nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return moved, nil, err
	}
	return moved, nil, fmt.Errorf("object: send payload of %s: %w", src.subject, err)
}

// bytes sends what is in memory.
func (t *sending) bytes(ctx context.Context, data []byte, path Path) (int64, error) {
	var sent int64
	for len(data) > 0 {
		if err := ctx.Err(); err != nil {
			return sent, err
		}
		if err := t.begin(); err != nil {
			return sent, err
		}
		n, err := t.w.Write(data[:min(int64(len(data)), t.win.FirstBytes)])
		sent += int64(n)
		data = data[n:]
		t.end(path, int64(n))
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
