package object

import (
	"log/slog"
	"sync"
)

// recorder keeps what the hooks report.
type recorder struct {
	mu        sync.Mutex // guards the fields below it
	sent      map[Path]int64
	opened    int // bulk connections, ever
	open      int // and now
	reclaimed int
	left      int
	missing   int // copies
	chunks    []*chunk
}

func (r *recorder) hooks() Hooks {
	return Hooks{
		Sent: func(path Path, n int64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.sent == nil {
				r.sent = make(map[Path]int64)
			}
			r.sent[path] += n
		},
		BulkConns: func(_ string, delta int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.open += delta
			r.opened += max(0, delta)
		},
		Reclaimed: func(files int, _ int64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reclaimed += files
		},
		CopiesMissing: func(copies int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.missing += copies
		},
		LeftBehind: func(files int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.left += files
		},
	}
}

// take returns what was sent since the last call.
func (r *recorder) take() map[Path]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent = nil
	return sent
}

func (r *recorder) leftBehind() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

func (r *recorder) copiesMissing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missing
}

// chunksOf returns how many chunks were ever made, and how many somebody holds.
func (r *recorder) chunksOf() (made, held int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.chunks {
		if c.holders.Load() != 0 {
			held++
		}
	}
	return len(r.chunks), held
}

func (r *recorder) conns() (open, opened int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open, r.opened
}

// countLines counts log lines.
type countLines struct {
	mu sync.Mutex
	n  int
}

func (c *countLines) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return len(p), nil
}

func (c *countLines) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *countLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(c, nil)) }
