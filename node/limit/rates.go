package limit

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/gridloom/gridloom/node/fault"
)

// Bounds of the tables. An entry is some 200 bytes.
const (
	maxIdentities = 16 << 10
	maxAddresses  = 16 << 10
)

// source is what an address counts as: itself, or its IPv6 network of 64 bits.
// It takes "host:port", and anything else as the zero address.
func source(addr string) netip.Addr {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() && !ip.IsLoopback() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// Identities limits the requests a second of each identity.
type Identities struct {
	rate    rate.Limit
	burst   int
	refused func(limit string)

	mu      sync.Mutex // guards buckets
	buckets recent[string, *rate.Limiter]
}

// NewIdentities allows each identity so many requests a second, and twice as
// many at once. refused is told of each that isn't allowed; nil is nobody.
func NewIdentities(perSecond int, refused func(limit string)) *Identities {
	return &Identities{
		rate: rate.Limit(perSecond), burst: 2 * perSecond, refused: refused,
		buckets: recent[string, *rate.Limiter]{limit: maxIdentities},
	}
}

// Allow takes one request of an identity, or says when there will be room for
// one.
func (i *Identities) Allow(id string, now time.Time) (retryAfter time.Duration, ok bool) {
	if i == nil {
		return 0, true
	}
	b := i.bucket(id)
	if b.AllowN(now, 1) {
		return 0, true
	}
	report(i.refused, "requests")
	return until(b, now), false
}

// Take is Allow that says no more, and tells nobody: whoever isn't allowed is to
// ask by Allow, which does. As with that, now is to be now: a time before that of
// another call would fill the bucket twice.
func (i *Identities) Take(id string, now time.Time) bool {
	return i == nil || i.bucket(id).AllowN(now, 1)
}

// Room says whether Take would succeed, and takes nothing.
func (i *Identities) Room(id string, now time.Time) bool {
	return i == nil || i.bucket(id).TokensAt(now) >= 1
}

func (i *Identities) bucket(id string) *rate.Limiter {
	i.mu.Lock()
	defer i.mu.Unlock()
	b, known := i.buckets.get(id)
	if !known {
		b = rate.NewLimiter(i.rate, i.burst)
		i.buckets.put(id, b)
	}
	return b
}

// Check is Allow, with an error for the caller.
func (i *Identities) Check(id string, now time.Time) error {
	if wait, ok := i.Allow(id, now); !ok {
		return overloaded(wait, "requests", "%s has made too many; %v a second are allowed", id, i.rate)
	}
	return nil
}

// until is when a bucket will have a token.
func until(b *rate.Limiter, now time.Time) time.Duration {
	missing := max(0, 1-b.TokensAt(now))
	return time.Duration(math.Ceil(missing / float64(b.Limit()) * float64(time.Second)))
}

func overloaded(wait time.Duration, subject, format string, args ...any) error {
	err := fault.New(fault.Overloaded, subject, format, args...)
	err.Retry = wait
	return err
}

func report(refused func(limit string), limit string) {
	if refused != nil {
		refused(limit)
	}
}

// Failures limits the failed authentications of each address: those beyond are
// told to wait. Nobody is kept from a right credential, for an address may be
// that of many, behind a proxy or a router, and secrets have 256 bits: there is
// nothing to be guessed, whatever the pace.
type Failures struct {
	perMinute int
	refused   func(limit string)

	mu    sync.Mutex // guards what follows
	spent recent[netip.Addr, *rate.Limiter]
}

// NewFailures allows each address so many failures a minute, and as many at
// once.
func NewFailures(perMinute int, refused func(limit string)) *Failures {
	return &Failures{perMinute: perMinute, refused: refused, spent: recent[netip.Addr, *rate.Limiter]{limit: maxAddresses}}
}

// Check counts a failure, and says so where there were too many.
func (f *Failures) Check(addr string, now time.Time) error {
	if f == nil {
		return nil
	}
	from := source(addr)
	f.mu.Lock()
	b, ok := f.spent.get(from)
	if !ok {
		b = rate.NewLimiter(rate.Limit(float64(f.perMinute)/60), f.perMinute)
		f.spent.put(from, b)
	}
	f.mu.Unlock()
	if b.AllowN(now, 1) {
		return nil
	}
	report(f.refused, "failures")
	return overloaded(until(b, now), "authentication", "too many failures from this address; %d a minute are allowed", f.perMinute)
}
