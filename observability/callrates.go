package observability

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// The times to first byte are counted in buckets of their own, finer than
// those of the exported histogram: from callsLeast on, callsPerOctave for each
// doubling.
const (
	callsLeast     = 32 * time.Microsecond
	callsPerOctave = 4
	callsBuckets   = 1 + 21*callsPerOctave // up to a minute, and one for what is over

	// callsSpan is how many samples the quantiles are of.
	callsSpan = 10
)

// callCounts counts the requests of one API since the start. It costs an atomic
// addition a request, two for an error, and no lock.
type callCounts struct {
	buckets                    [callsBuckets]atomic.Uint32
	clientErrors, serverErrors atomic.Uint32
}

func (c *callCounts) count(ttfb time.Duration, class class) {
	c.buckets[callsBucket(ttfb)].Add(1)
	switch class {
	case classClientError:
		c.clientErrors.Add(1)
	case classServerError:
		c.serverErrors.Add(1)
	}
}

// callsBucket is the bucket of a time: its octave, and the quarter in it.
func callsBucket(d time.Duration) int {
	if d < callsLeast {
		return 0
	}
	n := uint64(d) / uint64(callsLeast/callsPerOctave) // at least callsPerOctave
	octave := bits.Len64(n) - bits.Len64(callsPerOctave)
	quarter := int(n>>octave) - callsPerOctave
	return min(1+octave*callsPerOctave+quarter, callsBuckets-1)
}

// callsFrom is where a bucket begins, in seconds.
func callsFrom(bucket int) float64 {
	if bucket == 0 {
		return 0
	}
	octave, quarter := (bucket-1)/callsPerOctave, (bucket-1)%callsPerOctave
	return callsLeast.Seconds() * float64(uint64(1)<<octave) * (1 + float64(quarter)/callsPerOctave)
}

// callSnapshot is a callCounts at one moment. The counts may go round; their
// differences don't mind.
type callSnapshot struct {
	buckets                    [callsBuckets]uint32
	clientErrors, serverErrors uint32
}

func (c *callCounts) snapshot(to *callSnapshot) {
	for i := range c.buckets {
		to.buckets[i] = c.buckets[i].Load()
	}
	to.clientErrors, to.serverErrors = c.clientErrors.Load(), c.serverErrors.Load()
}

// since makes a difference of to, which is of before.
func (s *callSnapshot) since(before *callSnapshot) (d callSnapshot, requests uint64) {
	for i := range s.buckets {
		d.buckets[i] = s.buckets[i] - before.buckets[i]
		requests += uint64(d.buckets[i])
	}
	d.clientErrors, d.serverErrors = s.clientErrors-before.clientErrors, s.serverErrors-before.serverErrors
	return d, requests
}

// quantile is the time that a share of the requests took at most, in seconds,
// as if those of a bucket were spread evenly over it. n is how many there are.
func (s *callSnapshot) quantile(share float64, n uint64) float64 {
	if n == 0 {
		return 0
	}
	rank := share * float64(n)
	below := 0.0
	for i, count := range s.buckets {
		if count == 0 || below+float64(count) < rank {
			below += float64(count)
			continue
		}
		from := callsFrom(i)
		if i == callsBuckets-1 {
			return from
		}
		return from + (callsFrom(i+1)-from)*(rank-below)/float64(count)
	}
	return 0
}

// callRates makes rates of the counts of Requests, for one collector. It keeps
// callsSpan snapshots of each API: some 4 KiB for each of the at most 130 pairs
// of API and protocol.
type callRates struct {
	requests *Requests
	at       time.Time // of the last snapshot
	apis     map[*api]*callHistory
}

type callHistory struct {
	ring   [callsSpan + 1]callSnapshot
	newest int
	older  int // snapshots before the newest
}

// sample takes a snapshot of each API, and returns the rates since the last
// and the quantiles since the oldest of those that had a request since then.
// The first has none.
func (c *callRates) sample(now time.Time) []APICalls {
	if c.requests == nil {
		return nil
	}
	if c.apis == nil {
		c.apis = make(map[*api]*callHistory)
	}
	first, seconds := c.at.IsZero(), now.Sub(c.at).Seconds()
	c.at = now
	var all []APICalls
	for key, counted := range c.requests.known() {
		h := c.apis[counted]
		if h == nil {
			h = new(callHistory) // its requests came since the last sample
			c.apis[counted] = h
			if first {
				counted.calls.snapshot(&h.ring[0])
				continue
			}
		}
		h.take(&counted.calls)
		if rates, ok := h.rates(seconds); ok {
			rates.Name, rates.Proto = key.name, key.proto
			all = append(all, rates)
		}
	}
	slices.SortFunc(all, func(a, b APICalls) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Proto, b.Proto)) })
	return all
}

// take adds a snapshot. The ring begins with one, which may be all zero.
func (h *callHistory) take(c *callCounts) {
	h.newest = (h.newest + 1) % len(h.ring)
	c.snapshot(&h.ring[h.newest])
	h.older = min(h.older+1, callsSpan)
}

// rates is false where there was no request since the oldest snapshot.
func (h *callHistory) rates(seconds float64) (APICalls, bool) {
	at := func(back int) *callSnapshot { return &h.ring[(h.newest-back+len(h.ring))%len(h.ring)] }
	span, n := at(0).since(at(h.older))
	if n == 0 || seconds <= 0 {
		return APICalls{}, false
	}
	last, now := at(0).since(at(1))
	return APICalls{
		RequestsPerSecond:     float64(now) / seconds,
		ClientErrorsPerSecond: float64(last.clientErrors) / seconds,
		ServerErrorsPerSecond: float64(last.serverErrors) / seconds,
		TTFBP50Seconds:        span.quantile(0.50, n),
		TTFBP99Seconds:        span.quantile(0.99, n),
	}, true
}
