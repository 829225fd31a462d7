package node

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/door"
	"github.com/gridloom/gridloom/node/door/lean"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/observability"
)

// direct serves the plainest GETs, of objects that are looked up and sent without
// anything going wrong: by the same parts as the handlers from limited.server to
// door.Door, in the same order, and by nothing of its own. What any of them has
// something to say to is for those: nothing has been written then.
type direct struct {
	conns   *limit.Conns
	measure func(ctx context.Context, w http.ResponseWriter, began time.Time) answer // nil where it can't be done
	auth    *iam.Gate
	callers limit.Callers
	audit   *audit.Log
	cors    *cors // nil: there is none
	ready   <-chan struct{}
	door    *door.Door
}

// answer is one that is measured: an *observability.Answer.
type answer interface {
	door.WholeWriter
	About(bucket, key, user string)
	End(whole bool)
	Forget()
}

// measuredBy measures GETs as an http.Handler measures them that requests is around.
func measuredBy(requests *observability.Requests) func(context.Context, http.ResponseWriter, time.Time) answer {
	return func(ctx context.Context, w http.ResponseWriter, began time.Time) answer {
		if a := requests.Get(ctx, w, door.GetAPI, began); a != nil {
			return a
		}
		return nil
	}
}

// of makes what serves a connection.
func (d *direct) of(conn net.Conn) lean.Direct {
	c := &directConn{direct: d, conn: conn}
	c.whole = d.door.NewWhole(c)
	return c
}

// directConn is a connection's: one request at a time.
type directConn struct {
	*direct
	conn  net.Conn
	whole *door.Whole

	get    *lean.Get // the request
	began  time.Time // when it did
	begins time.Time // when its answer does

	by      iam.Principal // of the last request
	account string        // by's
}

// ServeGet implements lean.Direct.
func (c *directConn) ServeGet(ctx context.Context, g *lean.Get) (served, again bool) {
	c.conns.Busy(c.conn)
	defer c.conns.Quiet(c.conn)
	c.get, c.began = g, time.Now()
	p, ok := c.identify()
	if !ok {
		return false, false
	}
	answer := c.measure(ctx, g.Answer, c.began)
	if answer == nil {
		return false, false
	}
	begun, reason, about := false, "", audit.Resource{}
	defer func() {
		if answer != nil { // it panics
			answer.End(false)
			c.record(&p, about, fault.Internal.Reason())
		}
	}()
	if c.find(ctx, p) {
		about.Bucket, about.Key = c.whole.Target()
		answer.About(about.Bucket, about.Key, p.User)
		begun, reason = c.whole.Send(ctx, answer)
	}
	if !begun {
		answer.Forget()
		answer = nil
		return false, false
	}
	answer.End(reason == "")
	answer = nil
	if reason != "" || c.audit.Reads() {
		c.record(&p, about, reason)
	}
	return true, reason == ""
}

// identify says whose request it is, where that is beyond doubt.
func (c *directConn) identify() (p iam.Principal, ok bool) {
	select {
	case <-c.ready:
	default:
		return p, false
	}
	p, err := c.auth.Verify(iam.Request{Authorization: c.get.Credential, Addr: c.get.Addr, Door: doorHTTP, Now: c.began})
	if err != nil {
		return p, false
	}
	if c.account == "" || p != c.by {
		c.by, c.account = p, p.Account()
	}
	return p, true
}

// find finds what is asked for. Neither a drive nor another node is asked on behalf
// of who has made too many requests, and nobody for long: the handlers have
// patience of their own.
func (c *directConn) find(ctx context.Context, p iam.Principal) bool {
	if c.whole.FindNow(p, c.get.Path) {
		if c.whole.AtHand() || c.callers.Identities.Room(c.account, c.began) {
			return true
		}
		c.whole.Forget()
		return false
	}
	if !c.callers.Identities.Room(c.account, c.began) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, findMost)
	defer cancel()
	return c.whole.Find(ctx, p, c.get.Path)
}

// findMost is how long a record may take on the short way.
const findMost = 500 * time.Millisecond

// May implements door.Head: what is answered here counts here, and what isn't
// counts where it is.
func (c *directConn) May(now time.Time) bool {
	c.begins = now
	return c.callers.Identities.Take(c.account, now)
}

// Begin implements door.Head.
func (c *directConn) Begin() { c.get.Answer.Begin(c.begins, c.whole.Info().SizeBytes, c.fields()) }

// SetWriteDeadline implements door.Head.
func (c *directConn) SetWriteDeadline(t time.Time) error { return c.get.Answer.SetWriteDeadline(t) }

// OnWait implements door.Head.
func (c *directConn) OnWait(f func()) { c.get.Answer.OnWait(f) }

// fields are those of an answer's header. They are made once for as long as the
// object is kept with its record.
func (c *directConn) fields() []byte {
	made := c.whole.Info().Made
	if made != nil {
		if fields, ok := made.Load().([]byte); ok {
			return fields
		}
	}
	h := make(http.Header)
	c.cors.unasked(h)
	c.whole.Describe(h)
	fields := lean.AppendHeader(nil, h)
	if made != nil {
		made.Store(fields)
	}
	return fields
}

// record writes down what front would have.
func (c *directConn) record(p *iam.Principal, about audit.Resource, reason string) {
	r := c.audit.Since(c.began, doorHTTP, c.get.Addr, http.MethodGet)
	r.Identity(p.User, p.ID, p.Via)
	r.About(about)
	if reason != "" {
		r.Fail(reason)
	}
	r.API(door.GetAPI)
	c.audit.End(r, true, "")
}
