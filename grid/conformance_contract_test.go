package grid_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

func unlessEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func contractCases() []conformance {
	return []conformance{
		{name: "00 Connection is never nil, an unknown host gives ErrUnknownHost", run: unknownHost},
		{name: "00 one message each way, of any size", run: requestSizes},
		{name: "00 large messages go through beside each other", on: plain, slow: true, run: largeRequests},
		{name: "00 the deadline is forwarded", run: deadlineTravels},
		{name: "00 cancelling returns at once, with the context's error", run: cancelReturns},
		{name: "00 a context that has ended wins over an answer", run: endedContextWins},
		{name: "00 disconnected fails at once, WaitConnected waits", run: disconnectedFails},
		{name: "00 a handler is registered once, and only if it makes sense", on: memory, apart: true, run: registrations},
		{name: "00 with neither function it only declares", run: declarationServesNothing},
		{name: "00 beyond MaxConcurrent callers get ErrOverloaded", run: maxConcurrent},
		{name: "00 Inline handlers answer", run: inlineAnswers},
		{name: "00 secrets can be rotated", on: memory | plain, change: rotatedSecrets, run: func(b *bed) {}},
		{name: "00 a manager without proof of its peers needs Insecure", on: memory, apart: true, run: proofIsAskedFor},
		{name: "00 the realm is agreed later, and counts for live sessions", on: memory, prepare: realmLater},
		{name: "00 host names are normalised", run: namesAreNormalised},
		{name: "00 hosts are added and removed at run time", apart: true, change: alone, run: addAndRemove},
		{name: "00 typed calls of both kinds", run: typedCalls},
		{name: "00 the two ends agree on who dials, about evenly", on: memory, nodes: 4, run: whoDials},
		{name: "00 AppendRequest appends to the caller's buffer", run: appendRequest},
	}
}

func unknownHost(b *bed) {
	for _, name := range []string{"http://stranger:1", "", "not a url", "ftp://x"} {
		c := b.Node(0).Connection(name)
		_, err := c.Request(b.ctx, echoID, nil)
		wantIs(b.t, "Request", err, grid.ErrUnknownHost)
		wantNotExecuted(b.t, "Request", err, true)
		_, err = c.NewStream(b.ctx, echoID, nil)
		wantIs(b.t, "NewStream", err, grid.ErrUnknownHost)
		wantIs(b.t, "WaitConnected", c.WaitConnected(b.ctx), grid.ErrUnknownHost)
		if got := c.State(); got != grid.StateUnknown {
			b.t.Errorf("state is %v", got)
		}
	}
}

func requestSizes(b *bed) {
	b.serve(0, echo())
	b.serve(1, echo())
	for _, c := range []*grid.Connection{b.Connection(0, 1), b.Connection(1, 0), b.Connection(0, 0)} {
		for _, size := range []int{0, 1, 63, 512, 5000, 16 << 10, 16<<10 + 1, 64<<10 + 1, 300_000} {
			req := bytes.Repeat([]byte{byte(size), 3, 7}, size/3+1)[:size]
			resp, err := c.Request(b.ctx, echoID, req)
			if err != nil || !bytes.Equal(resp, req) || resp == nil {
				b.t.Errorf("%s: %d bytes: got %d, %v", c.Host(), size, len(resp), err)
			}
		}
	}
}

func largeRequests(b *bed) {
	for i := range 2 {
		b.serve(i, echo())
	}
	var wg sync.WaitGroup
	for i, size := range []int{5 << 20, 3<<20 + 1, 1 << 20, 16 << 20} {
		wg.Go(func() {
			req := bytes.Repeat([]byte{byte(i), 3, 7}, size/3+1)[:size]
			resp, err := b.Connection(i%2, 1-i%2).Request(b.ctx, echoID, req)
			if err != nil || !bytes.Equal(resp, req) {
				b.t.Errorf("%d bytes: got %d, %v", size, len(resp), err)
			}
		})
	}
	wg.Wait()
}

func deadlineTravels(b *bed) {
	got := make(chan time.Duration, 1)
	b.serve(1, single(echoID, func(ctx context.Context, _ []byte) ([]byte, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			b.t.Error("no deadline")
		}
		got <- time.Until(deadline)
		return nil, nil
	}))
	const remaining = 12345 * time.Millisecond
	ctx, cancel := context.WithTimeout(b.ctx, remaining)
	defer cancel()
	if _, err := b.Connection(0, 1).Request(ctx, echoID, nil); err != nil {
		b.t.Fatal(err)
	}
	if d := <-got; d > remaining || b.virtual && d != remaining || d <= 0 {
		b.t.Errorf("%v remained of %v", d, remaining)
	}
}

func cancelReturns(b *bed) {
	h, entered, left := blocking()
	b.serve(1, h)
	ctx, cancel := context.WithCancel(b.ctx)
	errs := b.call(ctx, blockID, nil)
	<-entered
	b.Blackhole(0, 1) // the peer can't have a say in it
	cancel()
	err := <-errs
	wantIs(b.t, "Request", err, context.Canceled)
	wantNotExecuted(b.t, "Request", err, false)
	b.Heal(0, 1)
	<-left
	short, cancel := context.WithTimeout(b.ctx, 20*time.Millisecond)
	defer cancel()
	_, err = b.Connection(0, 1).Request(short, blockID, nil)
	wantIs(b.t, "Request", err, context.DeadlineExceeded)
	<-short.Done()
	wantIs(b.t, "a call with an ended context", <-b.call(short, blockID, nil), context.DeadlineExceeded)
	if _, err = b.Connection(0, 1).NewStream(short, sinkID, nil); !errors.Is(err, context.DeadlineExceeded) {
		b.t.Errorf("NewStream with an ended context: %v", err)
	}
}

func endedContextWins(b *bed) {
	ctx, cancel := context.WithCancel(b.ctx)
	b.serve(1, single(echoID, func(context.Context, []byte) ([]byte, error) {
		cancel()
		return []byte("too late"), nil
	}))
	wantIs(b.t, "Request", <-b.call(ctx, echoID, nil), context.Canceled)
}

func disconnectedFails(b *bed) {
	b.Cut(0, 1)
	for _, c := range []*grid.Connection{b.Connection(0, 1), b.Connection(1, 0)} {
		b.until("the loss is noticed", func() bool { return c.State() == grid.StateDisconnected })
		_, err := c.Request(b.ctx, echoID, nil)
		wantIs(b.t, "Request", err, grid.ErrDisconnected)
		wantNotExecuted(b.t, "Request", err, true)
		_, err = c.NewStream(b.ctx, echoID, nil)
		wantIs(b.t, "NewStream", err, grid.ErrDisconnected)
		short, cancel := context.WithTimeout(b.ctx, 20*time.Millisecond)
		wantIs(b.t, "WaitConnected", c.WaitConnected(short), context.DeadlineExceeded)
		cancel()
	}
	b.Heal(0, 1)
	start := time.Now()
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	if took := time.Since(start); b.virtual && took > 6*time.Second {
		b.t.Errorf("reconnecting took %v", took)
	}
}

func registrations(b *bed) {
	f := func(context.Context, []byte) ([]byte, error) { return nil, nil }
	g := func(context.Context, []byte, <-chan []byte, chan<- []byte) error { return nil }
	p := func(context.Context, []byte, *grid.Pipe) error { return nil }
	for what, h := range map[string]grid.Handler{
		"id 0":              {Single: f},
		"both kinds":        {ID: 1, Single: f, Stream: &grid.StreamHandler{Handle: g, OutCapacity: 1}},
		"Handle and Pull":   {ID: 1, Stream: &grid.StreamHandler{Handle: g, Pull: p, OutCapacity: 1}},
		"OutCapacity 0":     {ID: 1, Stream: &grid.StreamHandler{Handle: g, InCapacity: 1}},
		"negative capacity": {ID: 1, Stream: &grid.StreamHandler{Handle: g, InCapacity: -1, OutCapacity: 1}},
		"vast capacity":     {ID: 1, Stream: &grid.StreamHandler{Handle: g, OutCapacity: 1 << 30}},
		"a class too many":  {ID: 1, Single: f, Class: grid.ClassBulk + 1},
		"negative limit":    {ID: 1, Single: f, MaxConcurrent: -1},
		"an inline stream":  {ID: 1, Inline: true, Stream: &grid.StreamHandler{Handle: g, OutCapacity: 1}},
	} {
		if err := b.Node(0).Register(h); err == nil {
			b.t.Errorf("%s was registered", what)
		}
	}
	b.serve(0, single(1, f)) // nothing of the refused ones has stayed
	if err := b.Node(0).Register(single(1, f)); err == nil {
		b.t.Error("an id was registered twice")
	}
}

func declarationServesNothing(b *bed) {
	b.serve(1, grid.Handler{ID: otherID, Name: "declared"})
	err := <-b.call(b.ctx, otherID, nil)
	wantIs(b.t, "Request", err, grid.ErrUnknownHandler)
	wantNotExecuted(b.t, "Request", err, true)
}

func maxConcurrent(b *bed) {
	h, entered, _ := blocking()
	h.MaxConcurrent = 2
	b.serve(1, h, echo())
	ctx, cancel := context.WithCancel(b.ctx)
	first, second := b.call(ctx, blockID, nil), b.call(ctx, blockID, nil)
	<-entered
	<-entered
	err := <-b.call(b.ctx, blockID, nil)
	wantIs(b.t, "the third", err, grid.ErrOverloaded)
	wantNotExecuted(b.t, "the third", err, true)
	if retry, ok := grid.RetryAfter(err); !ok || retry <= 0 || !grid.IsRemote(err) {
		b.t.Errorf("retry after %v, %v", retry, err)
	}
	b.serve(1, grid.Handler{ID: sinkID, MaxConcurrent: 1, Stream: &grid.StreamHandler{InCapacity: 1, OutCapacity: 1,
		Pull: func(ctx context.Context, _ []byte, p *grid.Pipe) error { <-ctx.Done(); return ctx.Err() }}})
	if _, err := b.Connection(0, 1).OpenPipe(ctx, sinkID, nil); err != nil {
		b.t.Error(err)
	}
	_, err = b.Connection(0, 1).OpenPipe(ctx, sinkID, nil)
	wantIs(b.t, "the second stream", err, grid.ErrOverloaded)
	wantIs(b.t, "another handler", <-b.call(b.ctx, echoID, nil), nil)
	cancel()
	<-first
	<-second
}

func inlineAnswers(b *bed) {
	h := echo()
	h.Inline = true
	b.serve(1, h)
	for i := range 20 {
		req := fmt.Append(nil, i)
		if resp, err := b.Connection(0, 1).Request(b.ctx, echoID, req); err != nil || !bytes.Equal(req, resp) {
			b.t.Errorf("got %q, %v", resp, err)
		}
	}
}

func rotatedSecrets(i int, o *grid.ManagerOptions) {
	secrets := [][]byte{[]byte("the old secret, known to everybody"), []byte("the new secret, known to everybody")}
	o.Secrets = func() [][]byte { return [][]byte{secrets[i], secrets[1-i]} }
}

func proofIsAskedFor(b *bed) {
	for what, o := range map[string]grid.ManagerOptions{
		"nothing":                            {Local: "http://127.0.0.1:1"},
		"a certificate for a plaintext host": {Local: "http://127.0.0.1:1", TLS: &tls.Config{Certificates: []tls.Certificate{{}}}, Hosts: []string{"http://127.0.0.1:2"}},
		"a TLS configuration without proofs": {Local: "https://127.0.0.1:1", TLS: &tls.Config{}},
		"a name that is no base URL":         {Local: "127.0.0.1:1", Insecure: true},
		"a host with a path":                 {Local: "http://127.0.0.1:1", Insecure: true, Hosts: []string{"http://x/y"}},
		"a negative limit":                   {Local: "http://127.0.0.1:1", Insecure: true, MaxMessage: -1},
		"a death before the first ping":      {Local: "http://127.0.0.1:1", Insecure: true, DeadAfter: 1, PingInterval: 2},
	} {
		if m, err := grid.NewManager(b.ctx, o); err == nil {
			b.t.Errorf("a manager with %s", what)
			_ = m.Close(b.ctx)
		}
	}
	m, err := grid.NewManager(b.ctx, grid.ManagerOptions{Local: "http://127.0.0.1:1", Insecure: true})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := m.Close(b.ctx); err != nil {
		b.t.Error(err)
	}
}

func realmLater() (func(int, *grid.ManagerOptions), func(b *bed)) {
	var realms [2]atomic.Value
	for i := range realms {
		realms[i].Store("")
	}
	change := func(i int, o *grid.ManagerOptions) { o.Realm = func() string { return realms[i].Load().(string) } }
	return change, func(b *bed) {
		realms[0].Store("one")
		b.pass(time.Minute)
		if b.Connection(0, 1).Stats().Sessions != 1 {
			b.t.Error("one realm alone ended the session")
		}
		realms[1].Store("another")
		b.pass(time.Minute)
		if st := b.Connection(0, 1).State(); st == grid.StateConnected {
			b.t.Error("the session outlives a difference in realms")
		}
		realms[1].Store("one")
		if err := b.WaitConnected(b.ctx); err != nil {
			b.t.Error(err)
		}
	}
}

func namesAreNormalised(b *bed) {
	name := b.Name(1)
	spellings := []string{name, name + "/", "HTTP" + name[4:]}
	if b.virtual {
		spellings = append(spellings, "http://NODE1", "http://Node1:80/")
	}
	if b.tcp != nil && b.tcp.ca != nil {
		spellings = spellings[:2]
	}
	for _, s := range spellings {
		if c := b.Node(0).Connection(s); c != b.Connection(0, 1) {
			b.t.Errorf("%s is another connection: %s", s, c.Host())
		}
	}
}

func alone(_ int, o *grid.ManagerOptions) { o.Hosts = nil }

func addAndRemove(b *bed) {
	b.serve(1, echo())
	c := b.Connection(0, 1)
	_, err := c.Request(b.ctx, echoID, nil)
	wantIs(b.t, "before", err, grid.ErrUnknownHost)
	for i := range 2 {
		if err := errors.Join(b.Node(i).AddHost(b.Name(1-i)), b.Node(i).AddHost(b.Name(1-i))); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	if _, err := c.Request(b.ctx, echoID, nil); err != nil { // by the old handle
		b.t.Error(err)
	}
	if err := b.Node(0).RemoveHost(b.Name(1)); err != nil {
		b.t.Fatal(err)
	}
	wantIs(b.t, "removed twice", b.Node(0).RemoveHost(b.Name(1)), grid.ErrUnknownHost)
	if b.Node(0).RemoveHost(b.Name(0)) == nil {
		b.t.Error("a node was removed from itself")
	}
	wantIs(b.t, "after", <-b.call(b.ctx, echoID, nil), grid.ErrUnknownHost)
	b.until("the other side notices", func() bool { return b.Connection(1, 0).State() != grid.StateConnected })
	_, err = b.Connection(1, 0).Request(b.ctx, echoID, nil)
	wantIs(b.t, "from the other side", err, grid.ErrDisconnected)
	if err := b.Node(0).AddHost(b.Name(1)); err != nil {
		b.t.Fatal(err)
	}
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	wantIs(b.t, "added again", <-b.call(b.ctx, echoID, nil), nil)
}

func typedCalls(b *bed) {
	if err := registerTyped(b.Node(1)); err != nil {
		b.t.Fatal(err)
	}
	if resp, err := double.Call(b.ctx, b.Connection(0, 1), &Num{21}); err != nil || resp.N != 42 {
		b.t.Errorf("got %v, %v", resp, err)
	}
	p, err := upTo.Open(b.ctx, b.Connection(0, 1), &Num{1})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := p.Send(b.ctx, &Num{1}); err != nil {
		b.t.Error(err)
	}
	if out, err := p.Recv(b.ctx); err != nil || out.N != -1 {
		b.t.Errorf("got %v, %v", out, err)
	}
	if err := p.CloseSend(); err != nil {
		b.t.Error(err)
	}
	if _, err := p.Recv(b.ctx); err != io.EOF {
		b.t.Errorf("the end is %v", err)
	}
}

func whoDials(b *bed) {
	for i := range 4 {
		for j := range i {
			if b.Connection(i, j).Stats().Dialler == b.Connection(j, i).Stats().Dialler {
				b.t.Errorf("%d and %d do not agree on who dials", i, j)
			}
		}
	}
	const hosts = 1000
	o := grid.ManagerOptions{Local: "http://10.0.0.1:7402", Insecure: true,
		Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody is there") }}
	for i := range hosts {
		o.Hosts = append(o.Hosts, fmt.Sprintf("http://10.1.%d.%d:7402", i/250, i%250))
	}
	m, err := grid.NewManager(b.ctx, o)
	if err != nil {
		b.t.Fatal(err)
	}
	diallers := 0
	for _, st := range m.Stats() {
		if st.Dialler && st.Host != m.Local() {
			diallers++
		}
	}
	if diallers < hosts*4/10 || diallers > hosts*6/10 {
		b.t.Errorf("one node dials %d of its %d peers", diallers, hosts)
	}
	if err := m.Close(b.ctx); err != nil {
		b.t.Error(err)
	}
}

func appendRequest(b *bed) {
	b.serve(1, echo(), single(otherID, func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no") }))
	buf := make([]byte, 0, 100)
	out, err := b.Connection(0, 1).AppendRequest(b.ctx, echoID, append(buf, "x:"...), []byte("hello"))
	if err != nil || string(out) != "x:hello" || &out[0] != &buf[:1][0] {
		b.t.Errorf("got %q, %v", out, err)
	}
	out, err = b.Connection(0, 1).AppendRequest(b.ctx, echoID, nil, make([]byte, 100_000))
	if err != nil || len(out) != 100_000 {
		b.t.Errorf("got %d, %v", len(out), err)
	}
	out, err = b.Connection(0, 1).AppendRequest(b.ctx, otherID, []byte("kept"), nil)
	wantCode(b.t, "an error", err, grid.CodeUnspecified)
	if string(out) != "kept" {
		b.t.Errorf("on an error the buffer came back as %q", out)
	}
}
