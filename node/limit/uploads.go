package limit

import (
	"sync"
	"time"
)

// UploadOptions are the limits of Uploads. 0 is no limit.
type UploadOptions struct {
	Max              int   // at once
	MaxPerIdentity   int   // at once, of one identity
	Bytes            int64 // received and not yet visible
	BytesPerIdentity int64
	Refused          func(limit string) // nil is nobody
}

// uploadRetry is when to try again: uploads end in their own time.
const uploadRetry = 5 * time.Second

// Uploads limits the uploads under way.
type Uploads struct {
	o UploadOptions

	mu  sync.Mutex // guards what follows
	all held
	by  map[string]*held // of the identities that have one
}

// held is what uploads hold together.
type held struct {
	n     int
	bytes int64
}

// NewUploads begins with none.
func NewUploads(o UploadOptions) *Uploads {
	return &Uploads{o: o, by: make(map[string]*held)}
}

// Upload is one that is under way. It is used by one goroutine.
type Upload struct {
	of    *Uploads
	id    string
	bytes int64
}

// Begin takes room for an upload of an identity, or says why there is none. The
// caller calls End.
func (u *Uploads) Begin(id string) (*Upload, error) {
	if u == nil {
		return nil, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	own := u.by[id]
	switch {
	case own != nil && over(own.n+1, u.o.MaxPerIdentity):
		report(u.o.Refused, "uploads_per_identity")
		return nil, overloaded(uploadRetry, "uploads", "%s has %d under way, and may have no more", id, own.n)
	case over(u.all.n+1, u.o.Max):
		report(u.o.Refused, "uploads")
		return nil, overloaded(uploadRetry, "uploads", "the node has %d under way, and takes no more", u.all.n)
	case own == nil:
		own = new(held)
		u.by[id] = own
	}
	u.all.n++
	own.n++
	return &Upload{of: u, id: id}, nil
}

// Add counts bytes that have come. With an error the upload must not go on.
func (p *Upload) Add(n int64) error {
	if p == nil || n <= 0 {
		return nil
	}
	u := p.of
	u.mu.Lock()
	defer u.mu.Unlock()
	own := u.by[p.id]
	switch {
	case over(own.bytes+n, u.o.BytesPerIdentity):
		report(u.o.Refused, "upload_bytes_per_identity")
		return overloaded(uploadRetry, "uploads", "%s has %d bytes under way, and may have %d", p.id, own.bytes, u.o.BytesPerIdentity)
	case over(u.all.bytes+n, u.o.Bytes):
		report(u.o.Refused, "upload_bytes")
		return overloaded(uploadRetry, "uploads", "the node has %d bytes under way, and takes %d", u.all.bytes, u.o.Bytes)
	}
	p.bytes += n
	own.bytes += n
	u.all.bytes += n
	return nil
}

// End gives the room back. It may be called again.
func (p *Upload) End() {
	if p == nil || p.of == nil {
		return
	}
	u := p.of
	p.of = nil
	u.mu.Lock()
	defer u.mu.Unlock()
	own := u.by[p.id]
	own.n--
	own.bytes -= p.bytes
	if own.n == 0 {
		delete(u.by, p.id)
	}
	u.all.n--
	u.all.bytes -= p.bytes
}

// over compares with a limit; 0 is none.
func over[N int | int64](n, limit N) bool { return limit > 0 && n > limit }
