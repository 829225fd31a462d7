package door

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
)

// Whole is an object that a GET asks for, which asks for nothing else: no part of
// it, no condition, no digest, and by no link. Its answer is that of ServeHTTP,
// without what the others need on the way there.
type Whole struct {
	door   *Door
	p      iam.Principal
	t      target
	reader *object.Reader
}

// Whole finds the object at a path below Prefix that has nothing to be unescaped,
// for a principal. It gives no answer to anything that isn't plain, which
// ServeHTTP does: nothing was counted or written yet.
func (d *Door) Whole(ctx context.Context, p iam.Principal, path string) (o Whole, ok bool) {
	t, err := parsePath(path)
	if err != nil || !iam.Allowed(p, iam.ObjectRead, t.bucket, t.key) {
		return o, false
	}
	reader, err := d.objects.Open(ctx, t.bucket, t.key, object.Conditions{}, 0)
	if err != nil || !reader.InOne() || reader.Info.SizeBytes == 0 {
		return o, false
	}
	o = Whole{d, p, t, reader}
	if reader.AtHand() && d.allowed(p, iam.ObjectRead, t) != nil {
		return o, false
	}
	return o, true
}

// Target names the object.
func (o *Whole) Target() (bucket, key string) { return o.t.bucket, o.t.key }

// Info describes it.
func (o *Whole) Info() *object.Info { return o.reader.Info }

// Describe sets the fields of its answer.
func (o *Whole) Describe(h http.Header) { describe(h, o.reader.Info, o.reader.Info.SizeBytes) }

// WholeWriter is what a Whole is sent to.
type WholeWriter interface {
	http.ResponseWriter
	io.ReaderFrom
}

// Send sends it to w. begin writes the head, and is called once the first bytes
// are at hand; renew sets the deadline of what is written next. Where begin wasn't
// called, there has been no answer yet. Else reason says why it was broken off; ""
// is why it wasn't.
func (o *Whole) Send(ctx context.Context, w WholeWriter, begin func(), setDeadline func(time.Time) error) (begun bool, reason string) {
	b := &wholeBody{o: o, w: w, head: begin, set: setDeadline}
	var err error
	if o.reader.AtHand() {
		err = b.send(ctx)
	} else {
		err = o.door.watch(ctx, w, o.p, iam.ObjectRead, o.t, b.send)
	}
	if err == nil || !b.begun {
		return b.begun, ""
	}
	return true, o.door.brokenOff(ctx, Prefix+o.t.bucket+"/"+o.t.key, err)
}

// wholeBody is the body of its answer.
type wholeBody struct {
	o     *Whole
	w     WholeWriter
	head  func()
	set   func(time.Time) error
	begun bool
}

func (b *wholeBody) send(ctx context.Context) error {
	size := b.o.reader.Info.SizeBytes
	window := min(size, dataio.NextWindowBytes)
	_, err := b.o.reader.Send(ctx, b, 0, size, dataio.Windows{
		Before: func() error { return renew(ctx, b.set, b.o.door.writeDeadline(window)) },
	})
	if err != nil && b.begun {
		return &brokenBody{err}
	}
	return err
}

func (b *wholeBody) begin() {
	if !b.begun {
		b.begun = true
		b.head()
	}
}

// Write implements io.Writer.
func (b *wholeBody) Write(p []byte) (int, error) {
	b.begin()
	return b.w.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (b *wholeBody) ReadFrom(src io.Reader) (int64, error) {
	b.begin()
	return b.w.ReadFrom(src)
}
