package grid

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestHostileConnections throws malformed connections at a live listener while
// an honest peer works. make soak throws many more.
func TestHostileConnections(t *testing.T) {
	h := newHostility(t, 2*time.Second)
	h.quiet.during(func() { quietFor(100 * time.Millisecond) })
	h.aside.during(func() { h.throw(500, h.bystander) })
	h.attack.during(func() { h.throw(2_000, h.victim.Local()) })
	h.judge()
}

// hostility is an honest pair of nodes, and what attacks one of them.
type hostility struct {
	t         *testing.T
	victim    *testNode
	honest    *Connection
	impostor  string // a known host that is not up, and would dial
	newcomer  string // as yet unknown, and would dial
	bystander string // a plain HTTP server that answers every attack with 404
	memory    uint64
	thrown    int
	seed      uint64

	quiet, aside, attack latencies
}

func newHostility(t *testing.T, handshake time.Duration) *hostility {
	nodes := newTestMesh(t, 2, func(o *ManagerOptions) { o.HandshakeTimeout = handshake })
	h := &hostility{t: t, victim: nodes[1], honest: nodes[0].Connection(nodes[1].Local())}
	for port := 1; h.newcomer == ""; port++ {
		if name := fmt.Sprintf("http://127.0.0.9:%d", port); dials(name, h.victim.Local()) {
			h.impostor, h.newcomer = name, h.impostor
		}
	}
	if err := h.victim.AddHost(h.impostor); err != nil {
		t.Fatal(err)
	}
	registerAll(t, h.victim.Manager)
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	h.bystander = server.URL
	for _, l := range []*latencies{&h.quiet, &h.aside, &h.attack} {
		l.call = func(ctx context.Context) {
			if _, err := h.honest.Request(ctx, echoID, make([]byte, 512)); err != nil && ctx.Err() == nil {
				t.Errorf("the honest peer: %v", err)
			}
		}
	}
	return h
}

// throw makes n malformed connections.
func (h *hostility) throw(n int, target string) {
	addr, err := url.Parse(target)
	if err != nil {
		h.t.Fatal(err)
	}
	var attackers sync.WaitGroup
	const workers = 4
	for range workers {
		h.seed++
		rng := rand.New(rand.NewPCG(h.seed, 1))
		attackers.Go(func() {
			for range n / workers {
				attack(h.t, rng, addr.Host, h.impostor, h.victim.Local())
			}
		})
	}
	attackers.Wait()
	h.thrown += n
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	h.memory = max(h.memory, ms.Sys-ms.HeapReleased)
}

// judge reports, and fails for what can be told on any machine.
func (h *hostility) judge() {
	h.t.Logf("%d connections; at most %d MiB; an honest peer's p99 %v in quiet, %v beside as many to a plain HTTP server, %v under attack",
		h.thrown, h.memory>>20, h.quiet.p99(), h.aside.p99(), h.attack.p99())
	if sessions := h.honest.Stats().Sessions; sessions != 1 || len(h.attack.all) == 0 {
		h.t.Errorf("the honest peer needed %d sessions for %d calls", sessions, len(h.attack.all))
	}
	if h.memory > 256<<20 {
		h.t.Errorf("%d MiB of memory", h.memory>>20)
	}
	for deadline := testContextLong(h.t); h.victim.shaking.underWay() > 0; yield() {
		if deadline.Err() != nil {
			h.t.Fatalf("%d handshakes never ended", h.victim.shaking.underWay())
		}
	}
}

// latencies are those of calls made one after the other, some time apart.
type latencies struct {
	call func(ctx context.Context)
	all  []time.Duration
}

// during calls on and on while f runs.
func (l *latencies) during(f func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var calling sync.WaitGroup
	calling.Go(func() {
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for {
			start := time.Now()
			l.call(ctx)
			if ctx.Err() != nil {
				return
			}
			l.all = append(l.all, time.Since(start))
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
		}
	})
	f()
	cancel()
	calling.Wait()
}

func (l *latencies) p99() time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[len(l.all)*99/100]
}

// quietFor lets time pass in which nobody attacks.
func quietFor(d time.Duration) { <-time.After(d) }

func testContextLong(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func askForUpgrade(conn net.Conn, from, to string) {
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s: %s\r\n%s: %s\r\n\r\n",
		RoutePath, headerFrom, from, headerTo, to)
}

// TestStalledHandshakesGiveWay opens more connections than may shake hands,
// that say nothing: an honest peer still gets in, long before they time out.
func TestStalledHandshakesGiveWay(t *testing.T) {
	h := newHostility(t, time.Minute) // nobody is here for that long
	h.victim.shaking.limit = 4
	addr := strings.TrimPrefix(h.victim.Local(), "http://")
	var conns []net.Conn
	for range 3 * h.victim.shaking.limit {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		askForUpgrade(conn, h.impostor, h.victim.Local())
		if status, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(status, "101") {
			t.Fatalf("the upgrade: %q, %v", status, err)
		}
		conns = append(conns, conn)
	}
	start := time.Now()
	// Which of them are the oldest is for their goroutines to settle.
	gone := make(chan struct{}, len(conns))
	var reading sync.WaitGroup
	defer reading.Wait()
	for _, conn := range conns {
		defer conn.Close()
		_ = conn.SetDeadline(start.Add(time.Minute))
		reading.Go(func() {
			if _, err := io.Copy(io.Discard, conn); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
				gone <- struct{}{}
			}
		})
	}
	tooLong := time.After(20 * time.Second)
	for n := range len(conns) - h.victim.shaking.limit {
		select {
		case <-gone:
		case <-tooLong:
			t.Fatalf("%d of %d have given way after %v, with a limit of %d", n, len(conns), time.Since(start), h.victim.shaking.limit)
		}
	}
	if n := h.victim.shaking.underWay(); n > h.victim.shaking.limit {
		t.Errorf("%d handshakes are under way", n)
	}
	late, err := NewManager(t.Context(), ManagerOptions{Local: h.newcomer, Secrets: h.victim.o.Secrets, Hosts: []string{h.victim.Local()}})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close(t.Context())
	if err := h.victim.AddHost(h.newcomer); err != nil {
		t.Fatal(err)
	}
	if err := late.Connection(h.victim.Local()).WaitConnected(testContext(t)); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took >= h.victim.o.HandshakeTimeout {
		t.Errorf("it took %v", took)
	}
}

// attack opens one connection, says something wrong and resets it.
func attack(t *testing.T, rng *rand.Rand, addr, from, to string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetLinger(0) // RST, so that ports do not run out
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	garbage := make([]byte, rng.IntN(2000))
	for i := range garbage {
		garbage[i] = byte(rng.Uint32())
	}
	kind := rng.IntN(6)
	if kind == 0 {
		_, _ = conn.Write(garbage)
		return
	}
	switch kind {
	case 1:
		from = "http://127.0.0.1:1" // unknown
	case 2:
		to = from
	}
	askForUpgrade(conn, from, to)
	switch kind {
	case 3:
		_, _ = conn.Write(garbage)
	case 4: // a frame that announces 2^62 bytes
		_, _ = conn.Write(binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<62))
	case 5: // a hello without a proof after it
		h := hello{Protocol: RoutePath, From: from, To: to, Instance: "0123456789abcdef", Nonce: make([]byte, nonceLen), MaxMessage: 1, Reassembly: 1, Window: 1 << 20}
		if msg, err := h.MarshalMsg(nil); err == nil {
			_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewBinaryFrame(msg)))
			_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewBinaryFrame(garbage[:len(garbage)/2])))
		}
	}
	_, _ = conn.Read(make([]byte, 4096))
}

// TestHandshakesUnderWay has names come to a place with room for four.
func TestHandshakesUnderWay(t *testing.T) {
	a, b, c, d := new(Connection), new(Connection), new(Connection), new(Connection)
	h := handshakes{limit: 4, by: make(map[*Connection][]net.Conn)}
	closed := func(conn net.Conn) bool {
		_ = conn.SetReadDeadline(time.Now())
		_, err := conn.Read(make([]byte, 1))
		return errors.Is(err, io.ErrClosedPipe)
	}
	conns := map[string]net.Conn{}
	for _, step := range []struct {
		name   string
		of     *Connection
		enters bool
		drops  string
	}{
		{"a1", a, true, ""}, {"b1", b, true, ""}, {"b2", b, true, ""}, {"b3", b, true, ""},
		{"b4", b, true, "b1"}, {"c1", c, true, "b2"}, {"d1", d, true, "b3"}, {"d2", d, false, ""},
	} {
		near, far := net.Pipe()
		defer far.Close()
		conns[step.name] = near
		if h.enter(step.of, near) != step.enters {
			t.Fatalf("%s: entered is not %v", step.name, step.enters)
		}
		if step.drops != "" && !closed(conns[step.drops]) {
			t.Errorf("%s: %s is still open", step.name, step.drops)
		}
	}
	for name, of := range map[string]*Connection{"a1": a, "b1": b, "b2": b, "b4": b, "c1": c, "d1": d, "d2": d} {
		if (name == "a1" || name == "b4" || name == "c1" || name == "d1") && closed(conns[name]) {
			t.Errorf("%s was dropped", name)
		}
		h.leave(of, conns[name])
		conns[name].Close()
	}
	if h.underWay() != 0 || len(h.by) != 0 {
		t.Errorf("%d are left, of %d names", h.underWay(), len(h.by))
	}
}
