package observability

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	// MaxLines is how many lines of its log a node keeps.
	MaxLines = 1000
	// linesQueued is how many lines wait for one who follows and is slow.
	linesQueued = 1024

	// A line is kept in part where it is longer than this: with what a line may
	// have, all of them are at most some 20 MB, and a few hundred KiB as they are.
	maxLineText  = 4 << 10 // bytes of the message, and of a value
	maxLineAttrs = 32

	// keptLevel is the least that is kept while nobody asks for more.
	keptLevel = slog.LevelInfo
)

// Line is a line of a node's log.
type Line struct {
	Time    time.Time
	Level   slog.Level
	Message string
	Attrs   []LineAttr // in their order; the names of groups are put before with a dot
}

// LineAttr is a name and what it stands for.
type LineAttr struct{ Name, Value string }

// Lines keeps the last lines of a log, and shows those to come to those who
// follow it.
type Lines struct {
	wanted atomic.Int64 // the least level that somebody wants: keptLevel, or less

	mu      sync.Mutex // guards what follows; short, and no I/O under it
	ring    []Line     // the last MaxLines
	next    int        // where the next goes once the ring is full
	follows []*LineWatch
}

// NewLines keeps nothing yet.
func NewLines() *Lines {
	l := &Lines{}
	l.wanted.Store(int64(keptLevel))
	return l
}

// LineWatch is one who follows. What doesn't find room in its queue is counted
// and lost: nobody who logs waits for it.
type LineWatch struct {
	lines   *Lines
	level   slog.Level
	queue   chan *Line
	dropped atomic.Uint64
}

// Follow gives the last lines of a level and above, at most tail of them, and one
// who follows from there on; nil where MaxWatches do already. The caller ends it
// with Close.
func (l *Lines) Follow(level slog.Level, tail int) ([]Line, *LineWatch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.follows) >= MaxWatches {
		return nil, nil
	}
	w := &LineWatch{lines: l, level: level, queue: make(chan *Line, linesQueued)}
	l.follows = append(l.follows, w)
	l.want()
	return l.last(level, tail), w
}

// Last gives the last lines of a level and above, at most tail of them.
func (l *Lines) Last(level slog.Level, tail int) []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last(level, tail)
}

func (l *Lines) last(level slog.Level, tail int) []Line {
	var found []Line
	for i := len(l.ring) - 1; i >= 0 && len(found) < tail; i-- {
		if line := &l.ring[(l.next+i)%len(l.ring)]; line.Level >= level {
			found = append(found, *line)
		}
	}
	slices.Reverse(found)
	return found
}

// want notes what somebody wants. mu is held.
func (l *Lines) want() {
	least := keptLevel
	for _, w := range l.follows {
		least = min(least, w.level)
	}
	l.wanted.Store(int64(least))
}

// Close ends the following. It may be called again.
func (w *LineWatch) Close() {
	l := w.lines
	l.mu.Lock()
	defer l.mu.Unlock()
	l.follows = slices.DeleteFunc(l.follows, func(o *LineWatch) bool { return o == w })
	l.want()
}

// C gives the lines. It is never closed.
func (w *LineWatch) C() <-chan *Line { return w.queue }

// Dropped is how many lines found no room so far.
func (w *LineWatch) Dropped() uint64 { return w.dropped.Load() }

func (l *Lines) add(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.Level >= keptLevel {
		if len(l.ring) < MaxLines {
			l.ring = append(l.ring, line)
		} else {
			l.ring[l.next] = line
			l.next = (l.next + 1) % MaxLines
		}
	}
	for _, w := range l.follows {
		if line.Level < w.level {
			continue
		}
		select {
		case w.queue <- &line:
		default:
			w.dropped.Add(1)
		}
	}
}

// Handler keeps what is logged, and passes it on to inner as before.
func (l *Lines) Handler(inner slog.Handler) slog.Handler { return &lineHandler{lines: l, inner: inner} }

// lineHandler is immutable.
type lineHandler struct {
	lines *Lines
	inner slog.Handler
	group string     // with a dot at its end, or ""
	attrs []LineAttr // of WithAttrs
}

// Enabled implements slog.Handler.
func (h *lineHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return int64(level) >= h.lines.wanted.Load() || h.inner.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	if int64(r.Level) >= h.lines.wanted.Load() {
		line := Line{Time: r.Time, Level: r.Level, Message: clipLine(r.Message), Attrs: slices.Clone(h.attrs)}
		r.Attrs(func(a slog.Attr) bool {
			line.Attrs = appendAttr(line.Attrs, h.group, a)
			return true
		})
		for _, a := range traceAttrs(ctx) {
			line.Attrs = appendAttr(line.Attrs, "", a)
		}
		h.lines.add(line)
	}
	if !h.inner.Enabled(ctx, r.Level) {
		return nil
	}
	return h.inner.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.inner, more.attrs = h.inner.WithAttrs(attrs), slices.Clone(h.attrs)
	for _, a := range attrs {
		more.attrs = appendAttr(more.attrs, h.group, a)
	}
	return &more
}

// WithGroup implements slog.Handler.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	more := *h
	more.inner = h.inner.WithGroup(name)
	if name != "" {
		more.group += name + "."
	}
	return &more
}

func appendAttr(attrs []LineAttr, group string, a slog.Attr) []LineAttr {
	value := a.Value.Resolve()
	switch {
	case len(attrs) >= maxLineAttrs, a.Equal(slog.Attr{}):
		return attrs
	case value.Kind() == slog.KindGroup:
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, inner := range value.Group() {
			attrs = appendAttr(attrs, group, inner)
		}
		return attrs
	}
	return append(attrs, LineAttr{clipLine(group + a.Key), clipLine(value.String())})
}

// clipLine keeps what a line may have of a text, with no character cut in two.
func clipLine(text string) string {
	if len(text) <= maxLineText {
		return text
	}
	cut := maxLineText
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
