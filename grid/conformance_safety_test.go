package grid_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/gridloom/gridloom/grid"
)

func identityCases() []conformance {
	other := []byte("another secret altogether, longer")
	atOne := func(f func(o *grid.ManagerOptions)) func(int, *grid.ManagerOptions) {
		return func(i int, o *grid.ManagerOptions) {
			if i == 1 {
				f(o)
			}
		}
	}
	var cases []conformance
	for _, r := range []struct {
		name   string
		change func(int, *grid.ManagerOptions)
		want   string
	}{
		{"a wrong secret", atOne(func(o *grid.ManagerOptions) { o.Secrets = func() [][]byte { return [][]byte{other} } }), "secret"},
		{"no secret", atOne(func(o *grid.ManagerOptions) { o.Secrets, o.Insecure = nil, true }), "secret"},
		{"secrets that have gone", func(_ int, o *grid.ManagerOptions) { o.Secrets = func() [][]byte { return nil } }, "secret"},
		{"an empty secret", func(_ int, o *grid.ManagerOptions) { o.Secrets = func() [][]byte { return [][]byte{{}} } }, "secret"},
		{"another realm", func(i int, o *grid.ManagerOptions) { o.Realm = func() string { return []string{"a", "b"}[i] } }, "realm"},
		{"an unknown host", atOne(func(o *grid.ManagerOptions) { o.Hosts = nil }), ""},
	} {
		cases = append(cases, conformance{name: "18 refused: " + r.name, on: memory | plain, apart: true, change: r.change,
			run: func(b *bed) { refused(b, r.want) }})
	}
	return append(cases,
		conformance{name: "18 what can be is refused before the socket is taken over", run: screening},
		conformance{name: "18 the handshake has a time limit and a size limit", on: plain, slow: true, change: quickHandshake, run: handshakeLimits},
		conformance{name: "18 a replay is refused", on: plain, run: replay},
		conformance{name: "18 a clock that is far off is only reported", on: plain, run: clockOff},
		conformance{name: "18 the peer's name is proven to the handler", run: provenName},
		conformance{name: "18 a certificate is for the name that CertificateName gives", on: secure, change: certificateName("node"), run: provenName},
		conformance{name: "18 refused: a certificate for the address, where CertificateName has another name", on: secure, apart: true, change: certificateName("elsewhere"),
			run: func(b *bed) { refused(b, "elsewhere") }},
	)
}

func garbageCases() []conformance {
	return []conformance{
		{name: "19 hostile frames end the connection, honest peers are unharmed", on: plain, run: hostileFrames},
		{name: "19 garbage on the listener", on: sockets, run: garbageOnListener},
		{name: "19 msgpack is limited in depth and size", run: hostileMsgpack},
		{name: "20 a flipped bit ends the session, and reaches nobody", on: sockets, run: flippedBit},
		{name: "20 over TLS nothing is readable on the way", on: sockets, run: secrecy},
	}
}

// refused waits for a session that must not come.
func refused(b *bed, want string) {
	dialler := b.Connection(0, 1)
	if !dialler.Stats().Dialler {
		dialler = b.Connection(1, 0)
	}
	if b.virtual {
		b.pass(time.Minute)
	}
	b.until("it was tried a few times", func() bool { return dialler.Stats().DialAttempts >= 4 || dialler.State() == grid.StateUnknown })
	ended, cancel := context.WithCancel(b.ctx)
	cancel()
	wantIs(b.t, "WaitConnected", b.Connection(0, 1).WaitConnected(ended), context.Canceled)
	st := dialler.Stats()
	if want != "" && (st.LastError == nil || !strings.Contains(st.LastError.Error(), want)) {
		b.t.Errorf("the dialling end says %v", st.LastError)
	}
	if st.Sessions != 0 || st.DialAttempts > 150 {
		b.t.Errorf("%d sessions, %d attempts", st.Sessions, st.DialAttempts)
	}
}

func screening(b *bed) {
	m := b.Node(0)
	stranger := "http://stranger:1"
	header := func(from, to string) http.Header {
		return http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Gridloom-Grid-From": {from}, "Gridloom-Grid-To": {to}}
	}
	peer := b.Name(1)
	ours := b.Connection(0, 1).Stats().Dialler
	bare := header(peer, m.Local())
	bare.Del("Upgrade")
	for what, c := range map[string]struct {
		method, path string
		header       http.Header
		want         int
	}{
		"a stranger":     {"GET", grid.RoutePath, header(stranger, m.Local()), 403},
		"itself":         {"GET", grid.RoutePath, header(m.Local(), m.Local()), 403},
		"another name":   {"GET", grid.RoutePath, header(peer, stranger), 421},
		"another path":   {"GET", grid.RoutePath + "0", header(peer, m.Local()), 404},
		"another method": {"POST", grid.RoutePath, header(peer, m.Local()), 405},
		"no upgrade":     {"GET", grid.RoutePath, bare, 426},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Header = c.header
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, r)
		if w.Code != c.want {
			b.t.Errorf("%s: %d %s, want %d", what, w.Code, w.Body, c.want)
		}
	}
	r := httptest.NewRequest("GET", grid.RoutePath, nil)
	r.Header, r.TLS = header(peer, m.Local()), &tls.ConnectionState{} // no client certificate
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	switch {
	case ours && w.Code != 409:
		b.t.Errorf("the wrong end dials: %d %s", w.Code, w.Body)
	case !ours && b.tcp != nil && b.tcp.ca != nil && w.Code != 403:
		b.t.Errorf("no certificate: %d %s", w.Code, w.Body)
	}
	if st := b.Connection(0, 1).Stats(); st.Sessions != 1 || st.State != grid.StateConnected {
		b.t.Errorf("%d sessions, %v", st.Sessions, st.State)
	}
}

// certificateName has every node's certificate be checked for one name. The
// authority's own are for 127.0.0.1 and "node".
func certificateName(name string) func(int, *grid.ManagerOptions) {
	return func(_ int, o *grid.ManagerOptions) { o.CertificateName = func(string) string { return name } }
}

func quickHandshake(_ int, o *grid.ManagerOptions) { o.HandshakeTimeout = 300 * time.Millisecond }

func handshakeLimits(b *bed) {
	m := b.Node(0)
	name := diallingName(m.Local())
	if err := m.AddHost(name); err != nil {
		b.t.Fatal(err)
	}
	silent := newSecond(b.t, m)
	silent.upgrade(name, m.Local())
	start := time.Now()
	silent.closed()
	if took := time.Since(start); took < 100*time.Millisecond {
		b.t.Errorf("a silent peer was given %v", took)
	}
	large := newSecond(b.t, m)
	large.upgrade(name, m.Local())
	large.write(make([]byte, 5000))
	large.closed()
	if st := m.Connection(name).Stats(); st.Sessions != 0 {
		b.t.Errorf("%d sessions", st.Sessions)
	}
	b.serve(1, echo())
	wantIs(b.t, "an honest peer's call", <-b.call(b.ctx, echoID, nil), nil)
}

// replay sends again what an honest dialling end has sent.
func replay(b *bed) {
	p := b.tcp.link(0, 1)
	p.set(func() { p.tapping = true })
	before := b.Connection(0, 1).Stats().Sessions
	b.Reset(0, 1)
	b.until("there is a new session", func() bool { return b.Connection(0, 1).Stats().Sessions > before })
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	acceptor := 0
	if b.Connection(0, 1).Stats().Dialler {
		acceptor = 1
	}
	p.mu.Lock()
	said := bytes.Clone(p.tapped[0].Bytes())
	p.mu.Unlock()
	sessions := b.Connection(acceptor, 1-acceptor).Stats().Sessions
	s := newSecond(b.t, b.Node(acceptor))
	if _, err := s.conn.Write(said); err != nil {
		b.t.Fatal(err)
	}
	s.closed()
	b.serve(1, echo())
	wantIs(b.t, "an honest peer's call", <-b.call(b.ctx, echoID, nil), nil)
	if st := b.Connection(acceptor, 1-acceptor).Stats(); st.Sessions != sessions {
		b.t.Errorf("%d sessions, %d before the replay", st.Sessions, sessions)
	}
}

func clockOff(b *bed) {
	m := b.Node(0)
	name := diallingName(m.Local())
	if err := m.AddHost(name); err != nil {
		b.t.Fatal(err)
	}
	newSecond(b.t, m).connect(name, m.Local()) // it says that it is 1970
	b.until("the session is up", func() bool { return m.Connection(name).State() == grid.StateConnected })
	if off := m.Connection(name).Stats().ClockOffset; off > -40*365*24*time.Hour {
		b.t.Errorf("the peer's clock is off by %v", off)
	}
}

func provenName(b *bed) {
	for i := range 2 {
		b.serve(i, single(echoID, func(ctx context.Context, _ []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s %d", grid.PeerFrom(ctx), grid.HandlerFrom(ctx)), nil
		}))
	}
	for j := range 2 {
		resp, err := b.Connection(0, j).Request(b.ctx, echoID, nil)
		if want := b.Name(0) + " 1000"; err != nil || string(resp) != want {
			b.t.Errorf("got %q, %v; want %q", resp, err, want)
		}
	}
}

// hostileFrames says, after a proper handshake, one wrong thing each.
func hostileFrames(b *bed) {
	m := b.Node(0)
	name := diallingName(m.Local())
	if err := m.AddHost(name); err != nil {
		b.t.Fatal(err)
	}
	b.serve(0, echo(), pull(sinkID, 1, 1, func(ctx context.Context, _ []byte, _ *grid.Pipe) error { <-ctx.Done(); return ctx.Err() }))
	b.serve(1, echo())
	id := uint64(1) << 32
	u32 := func(v ...uint32) (out []byte) {
		for _, x := range v {
			out = binary.LittleEndian.AppendUint32(out, x)
		}
		return out
	}
	frame := func(typ, flags byte, handler uint16, id uint64, body []byte) func(s *second) {
		return func(s *second) { s.batch(secondFrame(typ, flags, handler, id, body)) }
	}
	raw := func(what ...byte) func(s *second) {
		return func(s *second) { _, _ = s.conn.Write(what) }
	}
	for what, say := range map[string]func(s *second){
		"a wrong checksum":  func(s *second) { s.write(append(secondFrame(12, 0, 0, 0, nil), 1, 2, 3, 4)) },
		"no checksum":       func(s *second) { s.write([]byte{1}) },
		"a truncated frame": func(s *second) { s.batch(secondFrame(1, 0, 1000, id, nil)[:10]) },
		"a frame longer than its batch": func(s *second) {
			f := secondFrame(1, 0, 1000, id, nil)
			binary.LittleEndian.PutUint32(f[4:], 1<<31)
			s.batch(f)
		},
		"an unknown frame":           frame(99, 0, 0, 0, nil),
		"a call with the other's id": frame(1, 0, 1000, 1<<63|id, nil),
		"an index out of range":      frame(1, 0, 1000, id|1<<30, nil),
		"a message larger than said": func(s *second) {
			s.batch(secondFrame(1, 1, 1000, id, append(u32(4), "ab"...)), secondFrame(8, 0, 0, id, []byte("cdefgh")))
		},
		"a stream message without credit": func(s *second) {
			s.batch(secondFrame(5, 0, uint16(sinkID), id, u32(1000, 0)), secondFrame(7, 0, 0, id, nil), secondFrame(7, 0, 0, id, nil), secondFrame(7, 0, 0, id, nil))
		},
		"a vast session credit":      frame(11, 0, 0, 0, bytes.Repeat([]byte{0xff}, 8)),
		"a large ping":               frame(12, 0, 0, 0, make([]byte, 65)),
		"a malformed error":          frame(3, 0, 0, 1<<63|id, []byte{0xc1}),
		"a frame without a mask":     raw(0x82, 0x01, 0x00),
		"a fragment":                 raw(0x02, 0x81, 0, 0, 0, 0, 0),
		"reserved bits":              raw(0xf2, 0x81, 0, 0, 0, 0, 0),
		"a message of 2^62 bytes":    raw(0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"a text message":             raw(0x81, 0x81, 0, 0, 0, 0, 0),
		"nothing more, then the end": func(s *second) { s.conn.Close() },
	} {
		s := newSecond(b.t, m)
		s.instance = fmt.Sprintf("%-16.16s", what)
		sessions := m.Connection(name).Stats().Sessions
		s.connect(name, m.Local())
		b.until("the session is up", func() bool { return m.Connection(name).Stats().Sessions > sessions })
		say(s)
		b.until("the session with "+what+" ends", func() bool { return m.Connection(name).State() != grid.StateConnected })
	}
	wantIs(b.t, "an honest peer's call", <-b.call(b.ctx, echoID, make([]byte, 100_000)), nil)
	if st := b.Connection(0, 1).Stats(); st.Sessions != 1 {
		b.t.Errorf("an honest peer needed %d sessions", st.Sessions)
	}
}

func garbageOnListener(b *bed) {
	b.serve(1, echo())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j, garbage := range [][]byte{
				bytes.Repeat([]byte{byte(i)}, 1000), []byte("GET / HTTP/9.9\r\n\r\n"), {0x16, 3, 1, 0xff, 0xff},
				[]byte("GET " + grid.RoutePath + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"), {},
			} {
				conn, err := net.Dial("tcp", b.tcp.listeners[j%2].Addr().String())
				if err != nil {
					b.t.Error(err)
					return
				}
				_, _ = conn.Write(garbage)
				conn.Close()
			}
		})
	}
	wg.Wait()
	wantIs(b.t, "an honest peer's call", <-b.call(b.ctx, echoID, make([]byte, 100_000)), nil)
	if st := b.Connection(0, 1).Stats(); st.Sessions != 1 {
		b.t.Errorf("an honest peer needed %d sessions", st.Sessions)
	}
}

func hostileMsgpack(b *bed) {
	if err := registerTyped(b.Node(1)); err != nil {
		b.t.Fatal(err)
	}
	// Not a number, nested too deeply, something left over, a length that lies.
	for _, bad := range [][]byte{{0xa1, 'x'}, deep(100_000), {1, 2}, {0xdb, 0xff, 0xff, 0xff, 0xff}, {0xdd, 0xff, 0xff, 0xff, 0xff}} {
		wantCode(b.t, fmt.Sprintf("% x…", bad[:1]), <-b.call(b.ctx, double.ID(), bad), grid.CodeMalformed)
	}
	if resp, err := double.Call(b.ctx, b.Connection(0, 1), &Num{1}); err != nil || resp.N != 2 {
		b.t.Errorf("afterwards: %v, %v", resp, err)
	}
}

func flippedBit(b *bed) {
	b.serve(1, single(otherID, func(_ context.Context, req []byte) ([]byte, error) {
		if bytes.Count(req, []byte{'x'}) != len(req) {
			b.t.Error("a handler got what nobody sent")
		}
		return nil, nil
	}))
	p := b.tcp.link(0, 1)
	p.set(func() { p.flip = true })
	wantIs(b.t, "Request", <-b.call(b.ctx, otherID, bytes.Repeat([]byte{'x'}, 50_000)), grid.ErrDisconnected)
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	wantIs(b.t, "afterwards", <-b.call(b.ctx, otherID, bytes.Repeat([]byte{'x'}, 50_000)), nil)
}

func secrecy(b *bed) {
	b.serve(1, echo())
	p := b.tcp.link(0, 1)
	p.set(func() { p.tapping = true })
	const marker = "this is what is being said"
	wantIs(b.t, "Request", <-b.call(b.ctx, echoID, []byte(marker)), nil)
	p.mu.Lock()
	seen := bytes.Contains(p.tapped[0].Bytes(), []byte(marker)) || bytes.Contains(p.tapped[1].Bytes(), []byte(marker))
	p.mu.Unlock()
	if seen != (b.tcp.ca == nil) {
		b.t.Errorf("readable on the way: %v", seen)
	}
}
