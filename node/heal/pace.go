package heal

import (
	"context"
	"sync"
	"time"
)

// pace bounds bytes per second: whoever has something to move takes its bytes
// first, and waits until those before are paid for.
type pace struct {
	perSecond int64

	mu   sync.Mutex // guards what follows
	free time.Time  // when everything that was taken is paid for
}

// ahead is how much may be taken at once after a while without any.
const ahead = time.Second

// take waits until n more bytes may be moved.
func (p *pace) take(ctx context.Context, n int64) error {
	now := time.Now()
	p.mu.Lock()
	if start := now.Add(-ahead); p.free.Before(start) {
		p.free = start
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.perSecond) * float64(time.Second)))
	wait := p.free.Sub(now)
	p.mu.Unlock()
	return rest(ctx, wait)
}

// rest waits, or returns ctx's error once that has ended.
func rest(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// meter is how fast something goes, of late: over the last ten to twenty
// seconds.
type meter struct {
	mu        sync.Mutex // guards what follows
	began     time.Time  // of the present span
	now, last int64      // counted in the present span, and in the one before
}

const meterSpan = 10 * time.Second

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turnLocked(time.Now())
	m.now += n
}

// perSecond is the rate.
func (m *meter) perSecond() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := time.Now()
	m.turnLocked(t)
	if m.began.IsZero() {
		return 0
	}
	span := t.Sub(m.began)
	if m.last > 0 {
		span += meterSpan
	}
	return float64(m.now+m.last) / max(1, span.Seconds())
}

func (m *meter) turnLocked(t time.Time) {
	switch age := t.Sub(m.began); {
	case m.began.IsZero(), age >= 2*meterSpan:
		m.began, m.now, m.last = t, 0, 0
	case age >= meterSpan:
		m.began, m.last, m.now = m.began.Add(meterSpan), m.now, 0
	}
}

// left is how long n more take at a rate; 0 is not known.
func (m *meter) left(n int64) time.Duration {
	r := m.perSecond()
	if r <= 0 || n <= 0 {
		return 0
	}
	return time.Duration(min(float64(n)/r, 1e9) * float64(time.Second)).Round(time.Second)
}
