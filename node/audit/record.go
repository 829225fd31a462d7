package audit

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Record is what is known of one request. Its methods may be called by several
// goroutines, and on a nil Record, which a context without one gives.
type Record struct {
	began time.Time

	mu    sync.Mutex // guards what follows
	line  line
	first [1]Resource // where line.Resources begins: most requests are about one thing
}

// line is the form in the file. Fields are only ever added.
type line struct {
	Time      string     `json:"time"` // RFC 3339, UTC, with nanoseconds
	Node      string     `json:"node"`
	Door      string     `json:"door"` // "grpc" or "http"
	Address   string     `json:"address"`
	User      string     `json:"user,omitempty"`
	Key       string     `json:"access_key,omitempty"` // its id
	Via       string     `json:"via,omitempty"`        // how it proved itself: "key", "token", "link", "certificate"
	API       string     `json:"api,omitempty"`
	Method    string     `json:"method,omitempty"` // of HTTP
	Resources []Resource `json:"resources,omitempty"`
	More      int        `json:"more_resources,omitempty"` // that the request was about, beyond those
	Outcome   string     `json:"outcome"`                  // "ok", or the kind of the error
	Seconds   float64    `json:"seconds"`
	Trace     string     `json:"trace_id,omitempty"`
	Unlisted  int64      `json:"unlisted,omitempty"` // refused requests of nobody known, since the line before, that have none
}

// Resource is a thing that a request was about.
type Resource struct {
	Bucket string `json:"bucket,omitempty"`
	Key    string `json:"key,omitempty"`
	// Other is what is neither: "user alice", "node n2".
	Other string `json:"other,omitempty"`
}

// What is written down of a request is bounded, before anything has checked its
// names: else a few requests with names of megabytes push everything else out of
// the files.
const (
	maxResources   = 16   // that a record names of a request for many
	maxNameBytes   = 1024 // as long as a key may be
	maxMethodBytes = 32
	cutOff         = "…" // behind what was longer
)

func bounded(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + cutOff
}

// credential is an access key as package iam writes it: somebody who puts it where
// a name belongs has given it away to the mesh, and not yet to who reads the log.
var credential = regexp.MustCompile(`gl_([a-z0-9-]{1,64})_[a-z2-7]{20,}(_[a-z2-7]*)?`)

// name is what is written down of a name.
func name(s string) string {
	s = bounded(s, maxNameBytes)
	if strings.Contains(s, "gl_") {
		s = credential.ReplaceAllString(s, "gl_${1}_••••")
	}
	return s
}

// Identity says who a request is from.
func (r *Record) Identity(user, key, via string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line.User, r.line.Key, r.line.Via = user, key, via
}

// API says what the request asks for, by the name that telemetry has, too.
func (r *Record) API(name string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line.API = name
}

// About adds a thing that the request is about. Of a name that is longer than
// any may be its beginning is kept.
func (r *Record) About(what Resource) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.line.Resources) == maxResources {
		r.line.More++
		return
	}
	r.line.Resources = append(r.line.Resources, Resource{
		Bucket: name(what.Bucket), Key: name(what.Key), Other: name(what.Other),
	})
}

// Fail says what became of the request: the kind of an error. The first counts.
func (r *Record) Fail(kind string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.line.Outcome == "" {
		r.line.Outcome = kind
	}
}

type recordKey struct{}

// With puts a record into a context.
func With(ctx context.Context, r *Record) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// From gives the context's record; nil, which takes everything and keeps
// nothing, where there is none.
func From(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}
