package node

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/door"
	"github.com/gridloom/gridloom/node/door/lean"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/observability"
)

// direct serves the plainest GETs, of objects that are looked up and sent without
// anything going wrong: by the same parts as the handlers from limited.server to
// door.Door, in the same order, and by nothing of its own. What any of them has
// something to say to is for those: nothing has been written then.
type direct struct {
	conns    *limit.Conns
	requests *observability.Requests
	auth     *iam.Gate
	callers  limit.Callers
	audit    *audit.Log
	cors     *cors // nil: there is none
	ready    <-chan struct{}
	door     *door.Door
}

// of makes what serves a connection.
func (d *direct) of(conn net.Conn) lean.Direct { return &directConn{direct: d, conn: conn} }

// directConn is a connection's: one request at a time.
type directConn struct {
	*direct
	conn net.Conn

	by      iam.Principal // of the last request
	account string        // by's
}

// ServeGet implements lean.Direct.
func (c *directConn) ServeGet(ctx context.Context, g *lean.Get) (served, again bool) {
	c.conns.Busy(c.conn)
	defer c.conns.Quiet(c.conn)
	select {
	case <-c.ready:
	default:
		return false, false
	}
	began := time.Now()
	p, err := c.auth.Verify(iam.Request{Authorization: g.Credential, Addr: g.Addr, Door: doorHTTP, Now: began})
	if err != nil {
		return false, false
	}
	if c.account == "" || p != c.by {
		c.by, c.account = p, p.Account()
	}
	if !c.callers.Identities.Take(c.account, began) {
		return false, false
	}
	answer := c.requests.Get(ctx, g.Answer, door.GetAPI)
	if answer == nil {
		return false, false
	}
	ended := false
	defer func() {
		if !ended { // it panics
			answer.End(false)
		}
	}()
	o, ok := c.door.Whole(ctx, p, g.Path)
	if !ok {
		ended = true
		answer.Forget()
		return false, false
	}
	bucket, key := o.Target()
	answer.About(bucket, key, p.User)
	begun, reason := o.Send(ctx, answer, func() { g.Answer.Begin(o.Info().SizeBytes, c.fields(&o)) }, g.Answer.SetWriteDeadline)
	ended = true
	if !begun {
		answer.Forget()
		return false, false
	}
	answer.End(reason == "")
	if reason != "" || c.audit.Reads() {
		c.record(began, g.Addr, &p, audit.Resource{Bucket: bucket, Key: key}, reason)
	}
	return true, reason == ""
}

// fields are those of an answer's header. They are made once for as long as the
// object is kept with its record.
func (c *directConn) fields(o *door.Whole) []byte {
	made := o.Info().Made
	if made != nil {
		if fields, ok := made.Load().([]byte); ok {
			return fields
		}
	}
	h := make(http.Header)
	c.cors.unasked(h)
	o.Describe(h)
	fields := lean.AppendHeader(nil, h)
	if made != nil {
		made.Store(fields)
	}
	return fields
}

// record writes down what front would have.
func (c *directConn) record(began time.Time, addr string, p *iam.Principal, about audit.Resource, reason string) {
	r := c.audit.Since(began, doorHTTP, addr, http.MethodGet)
	r.Identity(p.User, p.ID, p.Via)
	r.About(about)
	if reason != "" {
		r.Fail(reason)
	}
	r.API(door.GetAPI)
	c.audit.End(r, true, "")
}
