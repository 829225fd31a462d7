package grid_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

func faultCases() []conformance {
	return []conformance{
		{name: "17 a dead peer is detected in the configured time", on: memory | plain, slow: true, change: quickDeath, run: blackhole},
		{name: "17 a quiet session lives by its pings", on: memory, run: quietSessionLives},
		{name: "17 pings are sent only when it is silent", on: memory, run: pingsOnlyWhenSilent},
		{name: "17 half open: the end that noticed reconnects, the other's calls end", on: sockets, run: halfOpen},
		{name: "17 a slow link is not a dead one", on: plain, slow: true, change: quickDeath, run: slowLink},
		{name: "17 bulk load causes no disconnect", on: plain, slow: true, change: quickDeath, run: bulkIsNoDeath},
		{name: "17 a write that hangs ends the session", slow: true, change: quickWrites, run: hangingWrite},
		{name: "17 the round trip is measured", on: sockets, slow: true, change: quickDeath, run: roundTrip},
		{name: "17 reconnecting backs off, with jitter", on: memory, run: backsOff},
		{name: "17 a peer that accepts and closes is backed off from", on: plain, slow: true, run: acceptsAndCloses},
		{name: "17 a session that ends as it begins is backed off from", on: memory, prepare: endsAtOnce},
		{name: "17 a duplicate connection: the newer attempt or instance wins", on: plain, run: duplicates},
	}
}

const quickDeadAfter = 600 * time.Millisecond

func quickDeath(_ int, o *grid.ManagerOptions) {
	o.PingInterval, o.DeadAfter = quickDeadAfter/8, quickDeadAfter
}

func blackhole(b *bed) {
	h, entered, _ := blocking()
	b.serve(1, h)
	errs := b.call(b.ctx, blockID, nil)
	<-entered
	b.Blackhole(0, 1)
	start := time.Now()
	wantIs(b.t, "Request", <-errs, grid.ErrDisconnected)
	took := time.Since(start)
	if took < quickDeadAfter*7/10 || b.virtual && took > quickDeadAfter*14/10 || took > 10*time.Second {
		b.t.Errorf("detected after %v, DeadAfter is %v", took, quickDeadAfter)
	}
	b.Heal(0, 1)
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

func quietSessionLives(b *bed) {
	b.pass(10 * time.Minute)
	for _, c := range []*grid.Connection{b.Connection(0, 1), b.Connection(1, 0)} {
		if st := c.Stats(); st.Sessions != 1 || st.State != grid.StateConnected {
			b.t.Errorf("%d sessions, state %v", st.Sessions, st.State)
		}
	}
}

func pingsOnlyWhenSilent(b *bed) {
	b.serve(1, echo())
	b.pass(time.Second)
	c := b.Connection(0, 1)
	before := c.Stats().BatchesOut
	const calls = 100
	for range calls { // never silent for as long as PingInterval
		wantIs(b.t, "Request", <-b.call(b.ctx, echoID, nil), nil)
		b.pass(500 * time.Millisecond)
	}
	if n := c.Stats().BatchesOut - before; n > calls+2 {
		b.t.Errorf("%d batches for %d calls", n, calls)
	}
	before = c.Stats().BatchesOut
	b.pass(time.Minute)
	if n := c.Stats().BatchesOut - before; n == 0 || n > 61 {
		b.t.Errorf("%d batches in a silent minute", n)
	}
}

// halfOpen has one end learn of the loss and the other not.
func halfOpen(b *bed) {
	for i := range 2 {
		h, _, _ := blocking()
		b.serve(i, h, echo())
	}
	var errs [2]chan error
	for i := range 2 {
		errs[i] = make(chan error, 1)
		go func() {
			_, err := b.Connection(i, 1-i).Request(b.ctx, blockID, nil)
			errs[i] <- err
		}()
		b.until("the call is under way", func() bool { return b.Connection(1-i, i).Stats().CallsIn == 1 })
	}
	b.tcp.link(0, 1).halfOpen()
	for i := range 2 { // the other end's by the new session that replaces its own
		wantIs(b.t, "a call", <-errs[i], grid.ErrDisconnected)
	}
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	for i := range 2 {
		if _, err := b.Connection(i, 1-i).Request(b.ctx, echoID, nil); err != nil {
			b.t.Error(err)
		}
	}
}

func slowLink(b *bed) {
	b.serve(1, echo())
	p := b.tcp.link(0, 1)
	p.set(func() { p.slow = 1024 })
	req := bytes.Repeat([]byte("slow"), 100_000)
	if resp, err := b.Connection(0, 1).Request(b.ctx, echoID, req); err != nil || !bytes.Equal(req, resp) {
		b.t.Errorf("got %d, %v", len(resp), err)
	}
	if st := b.Connection(0, 1).Stats(); st.Sessions != 1 {
		b.t.Errorf("%d sessions: %v", st.Sessions, st.LastError)
	}
}

func bulkIsNoDeath(b *bed) {
	b.serve(1, echoPull(floodID, 64, 64))
	ctx, cancel := context.WithTimeout(b.ctx, quickDeadAfter*3/2)
	defer cancel()
	var wg sync.WaitGroup
	for range 4 {
		p := b.openPipe(ctx, floodID, nil)
		wg.Go(func() {
			msg := make([]byte, 60_000)
			for p.Send(ctx, msg) == nil {
			}
		})
		wg.Go(func() {
			for {
				if _, err := p.Recv(ctx); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if st := b.Connection(0, 1).Stats(); st.Sessions != 1 {
		b.t.Errorf("%d sessions: %v", st.Sessions, st.LastError)
	}
}

func quickWrites(_ int, o *grid.ManagerOptions) {
	o.WriteTimeout, o.DeadAfter = 300*time.Millisecond, time.Hour
}

func hangingWrite(b *bed) {
	b.serve(1, single(otherID, func(context.Context, []byte) ([]byte, error) { return nil, nil }))
	b.Blackhole(0, 1)
	calls := b.jam(b.ctx, otherID)
	for _, call := range calls {
		wantIs(b.t, "Request", <-call, grid.ErrDisconnected)
	}
	b.Heal(0, 1)
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

func roundTrip(b *bed) {
	const delay = 20 * time.Millisecond
	p := b.tcp.link(0, 1)
	p.set(func() { p.delay = delay })
	b.until("a ping has measured it", func() bool { return b.Connection(0, 1).Stats().RTT >= 2*delay })
}

func backsOff(b *bed) {
	b.Cut(0, 1)
	attempts := func() uint64 {
		return b.Connection(0, 1).Stats().DialAttempts + b.Connection(1, 0).Stats().DialAttempts
	}
	before := attempts()
	b.pass(time.Second)
	early := attempts() - before
	b.pass(10 * time.Second)
	before = attempts()
	b.pass(time.Minute)
	late := attempts() - before
	if early < 2 || early > 60 || late < 12 || late > 60 { // 2.5 s apart in the mean, from 5 s on
		b.t.Errorf("%d attempts in the first second, %d in a later minute", early, late)
	}
}

// acceptsAndCloses has the proxy take every connection and reset it.
func acceptsAndCloses(b *bed) {
	b.Cut(0, 1)
	p := b.tcp.link(0, 1)
	b.pass(600 * time.Millisecond)
	p.mu.Lock()
	n := len(p.dials)
	p.mu.Unlock()
	if n < 4 || n > 150 { // 25 ms apart in the mean
		b.t.Errorf("%d attempts in 600 ms, BackoffMax is 50 ms", n)
	}
	b.Heal(0, 1)
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

// endsAtOnce resets every session as soon as it is up.
func endsAtOnce() (func(int, *grid.ManagerOptions), func(b *bed)) {
	var reset atomic.Pointer[func()]
	change := func(_ int, o *grid.ManagerOptions) {
		o.Hooks.SessionUp = func(grid.SessionInfo) {
			if f := reset.Load(); f != nil {
				(*f)()
			}
		}
	}
	return change, func(b *bed) {
		f := func() { b.Reset(0, 1) }
		reset.Store(&f)
		f()
		b.pass(20 * time.Second)
		attempts := func() uint64 {
			return b.Connection(0, 1).Stats().DialAttempts + b.Connection(1, 0).Stats().DialAttempts
		}
		before := attempts()
		b.pass(time.Minute)
		if n := attempts() - before; n < 12 || n > 60 || b.Connection(0, 1).Stats().Sessions+b.Connection(1, 0).Stats().Sessions < 10 {
			b.t.Errorf("%d attempts in a minute", n)
		}
		reset.Store(nil)
	}
}

// duplicates has another implementation connect more than once by one name.
func duplicates(b *bed) {
	m := b.Node(0)
	name := diallingName(m.Local())
	if err := m.AddHost(name); err != nil {
		b.t.Fatal(err)
	}
	sessions := func() uint64 { return m.Connection(name).Stats().Sessions }
	connect := func(instance string, attempt uint64) (*second, string) {
		s := newSecond(b.t, m)
		s.instance, s.attempt = instance, attempt
		before := sessions()
		s.upgrade(name, m.Local())
		refused := s.shake(name, m.Local())
		b.until("it is refused or up", func() bool { return refused != "" || sessions() > before })
		return s, refused
	}
	first, refused := connect("aaaaaaaaaaaaaaaa", 5)
	if refused != "" {
		b.t.Fatal(refused)
	}
	for _, attempt := range []uint64{4, 5} {
		if _, refused := connect("aaaaaaaaaaaaaaaa", attempt); !strings.Contains(refused, "older") {
			b.t.Errorf("attempt %d beside 5: %q", attempt, refused)
		}
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	errs := make(chan error, 1)
	go func() {
		_, err := m.Connection(name).Request(ctx, 77, nil)
		errs <- err
	}()
	b.until("a call is under way", func() bool { return m.Connection(name).Stats().CallsOut == 1 })
	second, refused := connect("aaaaaaaaaaaaaaaa", 6)
	if refused != "" {
		b.t.Errorf("a newer attempt: %q", refused)
	}
	wantIs(b.t, "a call on the older session", <-errs, grid.ErrDisconnected)
	first.closed()
	if _, refused := connect("bbbbbbbbbbbbbbbb", 1); refused != "" { // the peer has restarted
		b.t.Errorf("a new instance: %q", refused)
	}
	second.closed()
	if n := sessions(); n != 3 {
		b.t.Errorf("%d sessions", n)
	}
}
