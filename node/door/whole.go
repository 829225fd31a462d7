package door

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
)

// Whole serves GETs that ask for nothing but an object: no part of it, no
// condition, no digest, and by no link. Their answers are those of ServeHTTP,
// without what other requests need on the way there. It belongs to a connection,
// and has one request at a time: FindNow or Find, and then Send.
type Whole struct {
	door *Door
	p    iam.Principal
	t    target

	reader *object.Reader
	own    object.Reader // where reader most often is

	head  Head
	w     WholeWriter
	begun bool
	ctx   context.Context // of Send
	stop  func()          // ends what follow began; nil: it didn't

	gone atomic.Pointer[revoked] // why the principal may not any more

	// Methods of this and of head, bound once.
	before   func() error
	recheck  func(now iam.Principal) error
	deadline func(time.Time) error
	waits    func()
	end      func(why error)
}

// WholeWriter is what an object is sent to.
type WholeWriter interface {
	http.ResponseWriter
	io.ReaderFrom
}

// Head is what stands before the object, and holds for what is written of it.
type Head interface {
	// May says whether there is to be an answer, now that its first bytes are at
	// hand. It is asked once, and now is the present.
	May(now time.Time) bool
	// Begin writes the head.
	Begin()
	// SetWriteDeadline is the connection's, for what is written next.
	SetWriteDeadline(t time.Time) error
	// OnWait has f called before what is written waits for the client, once.
	OnWait(f func())
}

// NewWhole makes one that has no request yet.
func (d *Door) NewWhole(head Head) *Whole {
	o := &Whole{door: d, head: head, deadline: head.SetWriteDeadline}
	o.before, o.recheck, o.waits, o.end = o.renew, o.authorize, o.follow, o.revoke
	return o
}

// FindNow finds the object at a path below Prefix that has nothing to be unescaped,
// for a principal, if its record is at hand. Of what isn't found plain ServeHTTP
// has to say what it is: nothing was written yet.
func (o *Whole) FindNow(p iam.Principal, path string) bool {
	if !o.ask(p, path) || !o.door.objects.OpenNow(&o.own, o.t.bucket, o.t.key) {
		return false
	}
	o.reader = &o.own
	return o.plain()
}

// Find is FindNow that asks for the record, too.
func (o *Whole) Find(ctx context.Context, p iam.Principal, path string) bool {
	if !o.ask(p, path) {
		return false
	}
	reader, err := o.door.objects.Open(ctx, o.t.bucket, o.t.key, object.Conditions{}, 0)
	o.reader = reader
	return err == nil && o.plain()
}

// ask takes a request over, if its principal may make it.
func (o *Whole) ask(p iam.Principal, path string) bool {
	t, err := parsePath(path)
	o.p, o.t, o.reader, o.begun = p, t, nil, false
	return err == nil && iam.Allowed(p, iam.ObjectRead, t.bucket, t.key)
}

// plain says that what was found is one answer with a body, of which nobody else
// has to be asked for the bytes.
func (o *Whole) plain() bool {
	if o.reader.InOne() && o.reader.Info.SizeBytes > 0 && o.reader.Here() {
		return true
	}
	o.Forget()
	return false
}

// AtHand says whether the object that was found is in memory.
func (o *Whole) AtHand() bool { return o.reader.AtHand() }

// still says whether the principal may do now what it was let in for.
func (o *Whole) still() error {
	if o.door.still == nil {
		return nil
	}
	return o.door.still(o.p, o.recheck)
}

// follow ends the answer once the principal may not have it any more. It is for
// one that has to wait: most are in the kernel's hands before anybody could end
// them.
func (o *Whole) follow() {
	if o.door.follow != nil {
		o.stop = o.door.follow(o.p, o.recheck, o.end)
	}
}

func (o *Whole) revoke(why error) {
	o.gone.Store(&revoked{why})
	cut(o.w)
}

// authorize says whether the principal, as it is now, may still read the object.
func (o *Whole) authorize(now iam.Principal) error {
	return iam.Authorize(now, iam.ObjectRead, o.t.bucket, o.t.key)
}

// Target names the object.
func (o *Whole) Target() (bucket, key string) { return o.t.bucket, o.t.key }

// Info describes it.
func (o *Whole) Info() *object.Info { return o.reader.Info }

// Describe sets the fields of its answer.
func (o *Whole) Describe(h http.Header) { describe(h, o.reader.Info, o.reader.Info.SizeBytes) }

// Send sends it, and forgets it. If it hasn't begun, there is no answer yet. Else
// reason says why it was broken off; "": it wasn't.
func (o *Whole) Send(ctx context.Context, w WholeWriter) (begun bool, reason string) {
	o.w = w
	defer o.Forget()
	var err error
	switch {
	case o.reader.AtHand():
		err = o.send(ctx)
	case o.reader.Info.SizeBytes <= firstBytes:
		err = o.sendFollowed(ctx)
	default:
		err = o.door.watch(ctx, w, o.p, iam.ObjectRead, o.t, o.send)
	}
	if err == nil || !o.begun {
		return o.begun, ""
	}
	return true, o.door.brokenOff(ctx, Prefix+o.t.bucket+"/"+o.t.key, err)
}

// Forget lets go of what the request had: a connection may be idle for long. Send
// does it, too.
func (o *Whole) Forget() {
	o.w, o.ctx, o.reader, o.own, o.p = nil, nil, nil, object.Reader{}, iam.Principal{}
}

// firstBytes is how much of an object in memory leaves at once, in one window: the
// client isn't woken for 64 KiB of a MiB. What it can't take at once is told of
// before it is waited for, so that the time to the first byte stays one.
const firstBytes = 1 << 20

func (o *Whole) send(ctx context.Context) error {
	o.ctx = ctx
	size := o.reader.Info.SizeBytes
	sent, err := o.reader.SendNow((*wholeBody)(o), firstBytes, o.before)
	if err == nil && sent < size {
		_, err = o.reader.Send(ctx, (*wholeBody)(o), sent, size-sent, dataio.Windows{FirstBytes: firstBytes, Before: o.before})
	}
	if err != nil && o.begun {
		return &brokenBody{err}
	}
	return err
}

// sendFollowed is send of one window, followed from when it waits for the client.
func (o *Whole) sendFollowed(ctx context.Context) error {
	defer o.unfollow() // should send panic
	o.head.OnWait(o.waits)
	err := o.send(ctx)
	o.unfollow()
	if why := o.gone.Swap(nil); why != nil && err != nil {
		return &brokenBody{why}
	}
	return err
}

func (o *Whole) unfollow() {
	if o.stop != nil {
		o.stop()
		o.stop = nil
	}
}

// errNotBegun is why nothing is sent of what is for ServeHTTP to refuse.
var errNotBegun = errors.New("door: the answer may not begin")

// renew sets the deadline of a window, if it is still to be sent.
func (o *Whole) renew() error {
	if err := o.still(); err != nil {
		return err
	}
	now := time.Now()
	if !o.begun && !o.head.May(now) {
		return errNotBegun
	}
	window := min(o.reader.Info.SizeBytes, dataio.NextWindowBytes)
	if err := renew(o.ctx, o.deadline, o.door.writeDeadline(now, window)); err != nil {
		return err
	}
	// Whoever comes second, revoke or this, sees what the other did.
	if why := o.gone.Load(); why != nil {
		cut(o.w)
		return why
	}
	return nil
}

func (o *Whole) begin() {
	if !o.begun {
		o.begun = true
		o.head.Begin()
	}
}

// wholeBody is what the object service writes to.
type wholeBody Whole

// Write implements io.Writer.
func (b *wholeBody) Write(p []byte) (int, error) {
	(*Whole)(b).begin()
	return b.w.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (b *wholeBody) ReadFrom(src io.Reader) (int64, error) {
	(*Whole)(b).begin()
	return b.w.ReadFrom(src)
}
